"""Our JSON reader and the standard library's, made as strict, agree on every input: what is taken and what it means.

Where they differ a policy and a worker, or two implementations of the protocol, could read one message in two ways.
"""

import json
import math

from driver import main
from guardhouse.errors import PeerError
from guardhouse.wire.json_text import parse_json

__all__ = ["TARGET", "fuzz_one"]


class _Refused(Exception):  # noqa: N818 - an outcome
    pass


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _Refused("key twice")
    return dict(pairs)


def _constant(name: str) -> object:
    raise _Refused(name)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused("beyond a double")
    return value


def _strict(data: bytes) -> object:
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant, parse_float=_number
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise _Refused(str(error)) from error
    if _depth(value) > 64 or not _has_small_integers(value):
        raise _Refused("bounds")
    return value


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _has_small_integers(value: object) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            pending.extend(item.values() if isinstance(item, dict) else item)
        elif type(item) is int and not -(2**63) <= item < 2**64:
            return False
    return True


def fuzz_one(data: bytes) -> None:
    """Same outcome, same value."""
    try:
        expected = ("taken", _strict(data))
    except _Refused:
        expected = ("refused", None)
    try:
        actual = ("taken", parse_json(data))
    except PeerError:
        actual = ("refused", None)
    assert actual == expected, (actual, expected)


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
