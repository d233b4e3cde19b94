"""Where bashlex sees commands begin: a third opinion, and the one door to bashlex.

bashlex hides commands, refuses much, raises errors of five kinds, recurses without bound and loops for ever on some
texts (``a'${'``), so only ``guardhouse.worker.parser`` runs this, which is killed when it takes long. Whatever it
cannot read gives None. Pure.
"""

from collections.abc import Iterator
from typing import Any, Final

import bashlex
import bashlex.errors

from guardhouse.policy.shell.second_reader import CommandStarts

__all__ = ["command_starts"]

# Every kind that its 0.18 was seen to raise on text; they tell of its limits, not of ours.
_ITS_ERRORS: Final = (
    bashlex.errors.ParsingError,
    NotImplementedError,
    AttributeError,
    TypeError,
    IndexError,
    KeyError,
    ValueError,
    AssertionError,
    RecursionError,
)


def command_starts(text: str) -> CommandStarts:
    """Return the character offsets at which command names begin, or None where bashlex cannot read the text.

    May not return; see above.
    """
    try:
        return frozenset(_starts(bashlex.parse(text)))
    except _ITS_ERRORS:
        return None


def _starts(trees: list[Any]) -> Iterator[int]:
    waiting = list(trees)
    while waiting:
        node = waiting.pop()
        if node.kind == "command":
            named = next((part for part in node.parts if part.kind == "word"), None)
            if named is not None:
                yield named.pos[0]
        for name in ("parts", "list"):
            waiting.extend(getattr(node, name, ()))
        for name in ("command", "output", "heredoc"):
            inner = getattr(node, name, None)
            if hasattr(inner, "kind"):
                waiting.append(inner)
