"""The arguments of an MCP call as rules see them: every leaf under its dotted name, as one text.

Knows no server and no rule. Pure.
"""

import json
from collections.abc import Mapping
from typing import Any

from guardhouse.errors import PeerError

__all__ = ["flatten_arguments"]


def flatten_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return each argument by name: ``{"a": {"b": 1}}`` has ``a`` (``{"b":1}``) and ``a.b`` (``1``).

    A text stands for itself; anything else is compact JSON with sorted keys, so ``true`` matches ``true`` and a list
    matches as a whole.

    Raises:
        PeerError: two arguments have the same dotted name (``{"a.b": …, "a": {"b": …}}``): a rule could be asked about
            one while the tool reads the other.
    """
    flat: dict[str, str] = {}
    pending: list[tuple[str, Any]] = list(arguments.items())
    while pending:
        name, value = pending.pop()
        if name in flat:
            raise PeerError(f"invalid mcp_call args: two arguments are called {name[:200]!r}; rename one")
        flat[name] = value if isinstance(value, str) else _as_json(value)
        if isinstance(value, Mapping):
            pending += [(f"{name}.{key}", inner) for key, inner in value.items()]
    return flat


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
