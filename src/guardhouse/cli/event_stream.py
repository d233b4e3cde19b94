"""Server-sent events of the hub as the command line reads them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from guardhouse.cli.client import HubClient

__all__ = ["read_events"]


def read_events(
    client: HubClient, path: str, *, query: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Yield name, number (None where it has none) and facts of each event of one stream, until that is over.

    Raises:
        HubUnreachable: no answer, or it broke off.
        ClientError: the hub refused.
    """
    name, number = "", None
    with client.open_stream("GET", path, query=query or {}) as reply:
        for line in reply.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                number = int(value)
            elif field == "data":
                yield name, number, json.loads(value)
                name, number = "", None
