"""JSON from outside to plain values, within bounds and with one meaning only.

msgspec parses; this module refuses before it what would cost too much (size, nesting, number of values) and after it
what two parsers may read differently (a key given twice, an integer that many readers round). Every step before and
during the parse runs at C speed over the bytes, so that a 32 MiB message of one long text costs milliseconds.
Knows no message. Runs in the runner and in the hub.
"""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Final

import msgspec

from guardhouse import limits
from guardhouse.errors import PeerError

__all__ = ["MALFORMED", "OVERSIZED", "parse_json"]

OVERSIZED: Final = "oversized"
MALFORMED: Final = "malformed"

_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(_STEP)))
_PREFIX_BYTES: Final = 4 * 1024 * 1024
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1


def parse_json(
    data: bytes | str,
    *,
    max_bytes: int = limits.MESSAGE_MAX_BYTES,
    max_depth: int = limits.MESSAGE_MAX_DEPTH,
    max_nodes: int = limits.MESSAGE_MAX_NODES,
) -> Any:
    """Return the value of one JSON text (RFC 8259) of at most ``max_bytes`` bytes of UTF-8.

    A node is a value: a number, text, literal, object or array. NaN, Infinity, numbers beyond a double, integers
    beyond 64 bits, lone surrogates, a byte-order mark and invalid UTF-8 are no JSON here.

    Raises:
        PeerError: ``oversized``: more bytes than allowed; ``malformed``: anything else. The text never quotes the
            data, which may hold secrets.
    """
    encoded = _encode(data, max_bytes)
    outside = _check_shape(encoded, max_depth=max_depth, max_nodes=max_nodes)
    try:
        value = msgspec.json.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise PeerError(f"message is not valid JSON: {error}", code=MALFORMED) from error
    _check_members(value, encoded, outside)
    return value


def _encode(data: bytes | str, max_bytes: int) -> bytes:
    """Return the UTF-8 of ``data`` within its size; a character takes a byte at least."""
    if len(data) <= max_bytes:
        if isinstance(data, str):
            try:
                encoded = data.encode("utf-8")
            except UnicodeEncodeError as error:
                raise PeerError(f"message is not valid Unicode: {error.reason}", code=MALFORMED) from error
        else:
            encoded = data
        if len(encoded) <= max_bytes:
            return encoded
        size = len(encoded)
    else:
        size = len(data)
    raise PeerError(f"message is oversized: {size} bytes, at most {max_bytes} are allowed", code=OVERSIZED)


def _structure(encoded: bytes, max_nodes: int) -> bytes:
    r"""Return what of a JSON text stands outside its strings.

    Backslash pairs go first, so that what is left of ``\\"`` is a quote inside a string; then every second part
    between quotes is outside. Each node has two strings at most (its key and itself): more quotes are too many
    nodes, and the check keeps ``split`` from building a list of millions.
    """
    bare = encoded.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in encoded else encoded
    if _count(bare, b'"', up_to=4 * max_nodes + 1) > 4 * max_nodes:
        _refuse_nodes(max_nodes)
    return b'""'.join(bare.split(b'"')[::2])


def _count(data: bytes, mark: bytes, *, up_to: int) -> int:
    """Return how often the byte ``mark`` is in ``data``, counting no further than ``up_to``.

    `bytes.replace` looks with memchr and stops at a number; `bytes.count` does neither and takes 2.5 ns a byte,
    25 times as long where marks are rare (CPython 3.11).
    """
    return len(data) - len(data.replace(mark, b"", up_to))


def _check_shape(encoded: bytes, *, max_depth: int, max_nodes: int) -> bytes | None:
    """Refuse too many nodes or too deep nesting, before anything is built.

    Counted in the whole text first: marks inside strings make these counts too high, never too low, and nearly
    every message passes at once. Otherwise they are counted outside strings only.

    Returns:
        What stands outside strings, where that had to be worked out.

    Raises:
        PeerError: ``malformed``.
    """
    if len(encoded) > 2 * _PREFIX_BYTES:
        # Millions of values show in the first part already, before the whole is cut at its quotes.
        _check_shape(encoded[:_PREFIX_BYTES], max_depth=max_depth, max_nodes=max_nodes)
    opens = _count(encoded, b"[", up_to=max_nodes) + _count(encoded, b"{", up_to=max_nodes)
    if opens <= max_depth and opens + _count(encoded, b",", up_to=max_nodes) < max_nodes:
        return None
    outside = _structure(encoded, max_nodes)
    opens = _count(outside, b"[", up_to=max_nodes) + _count(outside, b"{", up_to=max_nodes)
    if opens + _count(outside, b",", up_to=max_nodes) >= max_nodes:
        _refuse_nodes(max_nodes)
    if opens > max_depth:
        brackets = outside.translate(None, delete=_NOT_BRACKETS)
        if max(accumulate(map(_STEP.__getitem__, brackets))) > max_depth:
            raise PeerError(f"message is nested deeper than {max_depth} levels", code=MALFORMED)
    return outside


def _refuse_nodes(max_nodes: int) -> None:
    raise PeerError(f"message holds more than {max_nodes} values", code=MALFORMED)


def _check_members(value: Any, encoded: bytes, outside: bytes | None) -> None:
    """Refuse a key given twice in one object and an integer beyond 64 bits.

    A parser keeps one of two equal keys, so an object with one has fewer members than the text has colons
    outside strings. Which key is meant differs between parsers: a policy and a worker could each see another.

    Raises:
        PeerError: ``malformed``.
    """
    members = 0
    pending: list[Iterable[Any]] = [(value,)]
    while pending:
        for item in pending.pop():
            kind = type(item)
            if kind is dict:
                members += len(item)
                pending.append(item.values())
            elif kind is list:
                pending.append(item)
            elif kind is int and not _INT_MIN <= item <= _INT_MAX:
                raise PeerError("message holds an integer beyond 64 bits", code=MALFORMED)
    if _count(encoded, b":", up_to=members + 1) != members:
        if outside is None:
            outside = _structure(encoded, len(encoded))
        if _count(outside, b":", up_to=members + 1) != members:
            raise PeerError("message holds an object with the same key twice", code=MALFORMED)
