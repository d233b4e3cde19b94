"""Lists of the hub that come in pages, read to their end or to as many records as were asked for."""

from typing import Any, Final

import click

from guardhouse.cli.client import HubClient

__all__ = ["read_pages", "say_more"]

# As many as the hub gives at a time.
_PAGE: Final = 500


def read_pages(
    client: HubClient, path: str, key: str, *, query: dict[str, Any] | None = None, limit: int | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """Return the records of a list, and whether there are more than these.

    Args:
        path: of the list, asked with GET.
        key: under which a page has its records.
        query: what is asked for, without cursor and limit.
        limit: the most records; None: every one.
    """
    found: list[dict[str, Any]] = []
    cursor = None
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        page = client.request("GET", path, query={**(query or {}), "cursor": cursor, "limit": size})
        found += page[key]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found, cursor is not None


def say_more(limit: int) -> None:
    """Tell on stderr that ``limit`` has cut a list."""
    click.echo(f"there are more; --limit {limit * 10} shows them", err=True)
