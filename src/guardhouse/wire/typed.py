"""Plain values to typed messages, with the two allowances that interoperation needs.

A ``null`` for a known field counts as absent (Go writes ``null`` for an empty list or map), an unknown field is
ignored. Everything else is strict: no number from text, no text from a number. Runs in the runner and in the hub.
"""

from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from guardhouse.errors import PeerError

__all__ = ["parse_typed", "printable"]

T = TypeVar("T", bound=msgspec.Struct)


def parse_typed(value: Any, kind: type[T], *, what: str, code: str) -> T:
    """Return ``value``, a JSON object, as ``kind``.

    Raises:
        PeerError: with ``code``; the text is ``invalid <what>: <reason> - at `$.field```.
    """
    if value is None:
        value = {}
    try:
        return msgspec.convert(_without_nulls(value, kind), kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PeerError(f"invalid {what}: {printable(str(error))}", code=code) from error


def printable(text: str, *, max_chars: int = 200) -> str:
    """Return a peer's text fit for a log line or an error: its start, without control characters."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:max_chars])
    return shown if len(text) <= max_chars else f"{shown}…"


def _without_nulls(value: Any, kind: type[msgspec.Struct]) -> Any:
    """Return ``value`` without the members that are null, in ``kind`` and in the structs inside it.

    Objects of free form (``args``, ``arguments``, ``result``) are left as they are.
    """
    if type(value) is not dict:
        return value
    nested = _nested_structs(kind)
    cleaned = {}
    for key, item in value.items():
        if item is None:
            continue
        inner = nested.get(key)
        if inner is None:
            cleaned[key] = item
        elif type(item) is list:
            cleaned[key] = [_without_nulls(one, inner) for one in item]
        else:
            cleaned[key] = _without_nulls(item, inner)
    return cleaned


@cache
def _nested_structs(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return the fields of ``kind`` that hold structs, alone or in a sequence."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        inner = _struct_in(hint)
        if inner is not None:
            found[name] = inner
    return found


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if get_origin(hint) in (Union, UnionType, tuple):
        for argument in get_args(hint):
            inner = _struct_in(argument)
            if inner is not None:
                return inner
    return None
