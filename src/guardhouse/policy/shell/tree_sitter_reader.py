"""Where tree-sitter-bash sees commands begin: an independent grammar, compiled C, never hanging, linear in practice.

Used as a second opinion only: its trees hide commands on a few constructs and take ``time`` for a program. It is C
code fed with hostile text, so a process that holds a secret asks for it through ``guardhouse.worker.parser``; a tool
on a person's own machine may call it directly. Pure.
"""

from functools import cache
from typing import Final

import tree_sitter
import tree_sitter_bash

from guardhouse import limits
from guardhouse.policy.shell.second_reader import CommandStarts

__all__ = ["command_starts"]

_KEYWORDS: Final = frozenset({b"time", b"coproc", b"!"})
_OWN_NAME: Final = frozenset({"declaration_command", "unset_command"})


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def command_starts(text: str) -> CommandStarts:
    """Return the character offsets at which command names begin, or None where the grammar does not fit the text."""
    data = text.encode()
    # Its recovery from errors takes time about quadratic in the text: half a second at this length.
    if len(data) > limits.SHELL_SECOND_READER_MAX_BYTES:
        return None
    root = _parser().parse(data).root_node
    if root.has_error:
        return None
    starts: set[int] = set()
    cursor = root.walk()
    while True:
        node = cursor.node
        if node is not None and (start := _start(node)) is not None:
            starts.add(start)
        if cursor.goto_first_child() or cursor.goto_next_sibling():
            continue
        while cursor.goto_parent():
            if cursor.goto_next_sibling():
                break
        else:
            return frozenset(starts if len(data) == len(text) else _characters(data, starts))


def _start(node: tree_sitter.Node) -> int | None:
    """The byte at which the name of the command begins that ``node`` is; None when it is none."""
    kind = node.type
    if kind == "command":
        named = node.child_by_field_name("name")
        if named is None:
            return None
        if named.text not in _KEYWORDS:
            return named.start_byte
        for argument in node.children_by_field_name("argument"):
            if argument.text not in _KEYWORDS and argument.text not in (b"-p", b"--"):
                return argument.start_byte
        return None
    if kind in _OWN_NAME:
        return node.start_byte
    if kind == "test_command":
        return node.start_byte if node.child_count and node.children[0].type == "[" else None
    return None


def _characters(data: bytes, starts: set[int]) -> set[int]:
    """Byte offsets as character offsets."""
    places: set[int] = set()
    at = count = 0
    for start in sorted(starts):
        count += len(data[at:start].decode(errors="replace"))
        at = start
        places.add(count)
    return places
