"""A policy document in one fixed form: the same keys in the same order, one rule a block, comments kept.

A section of plain ``pattern: action`` pairs stays one; any other becomes a list of rules. Comments on their own lines
stay above what they stand above; a comment behind a value moves to the line above it. What is printed says exactly
what was read: both are loaded and their digests compared. Pure.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from guardhouse.errors import InvariantError
from guardhouse.policy.document import load_policy
from guardhouse.policy.model import ACTIONS, PolicyError
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode, TextNode
from guardhouse.policy.yaml_text import LOADER, parse_yaml_text, render_text, without_pairs

__all__ = ["format_policy"]

_TOP_ORDER: Final = ("version", "name", "about", "path", "include", "permission")
_RULE_ORDER: Final = ("match", "argv", "then", "because", "children", "profile", "timeout", "when", "examples")
_PLAIN: Final = re.compile(r"[A-Za-z/_.][A-Za-z0-9/_. -]*[A-Za-z0-9/_.-]|[A-Za-z]")
_YAML_WORDS: Final = frozenset(["y", "yes", "n", "no", "true", "false", "on", "off", "null", "~", "nan", "inf"])
_WIDTH: Final = 110


def format_policy(text: str, *, name: str) -> str:
    """Return the document in the fixed form.

    Raises:
        PolicyError: the document cannot be loaded.
        InvariantError: what would be printed does not say the same.
    """
    nothing = "permission: {bash: {}}"
    before = load_policy(text, name=name, includes=lambda _: nothing, with_examples=False)
    node = parse_yaml_text(text, name=name)
    if node is None:
        raise PolicyError("the document is empty", place=name)
    formatted = _Writer(_comments(without_pairs(text))).write(node)
    after = load_policy(formatted, name=name, includes=lambda _: nothing, with_examples=False)
    if after.digest != before.digest:
        raise InvariantError(f"{name}: formatting would change what the policy says")
    return formatted


def _comments(text: str) -> list[tuple[int, str]]:
    """Every comment with its line, from 1: a ``#`` outside every scalar."""
    lines = text.splitlines()
    covered: dict[int, list[tuple[int, int]]] = {}
    for token in yaml.scan(text, Loader=LOADER):
        if isinstance(token, yaml.ScalarToken):
            for row in range(token.start_mark.line, min(token.end_mark.line + 1, len(lines))):
                first = token.start_mark.column if row == token.start_mark.line else 0
                last = token.end_mark.column if row == token.end_mark.line else len(lines[row])
                covered.setdefault(row, []).append((first, last))
    found = []
    for number, line in enumerate(lines):
        for match in re.finditer(r"(?:(?<=\s)|^)#", line):
            if not any(first <= match.start() < last for first, last in covered.get(number, ())):
                found.append((number + 1, line[match.start() :].rstrip()))
                break
    return found


class _Writer:
    def __init__(self, comments: list[tuple[int, str]]) -> None:
        self._comments = comments
        self._lines: list[str] = []

    def write(self, node: Node) -> str:
        if isinstance(node, MappingNode) and not _is_pairs(node):
            self._write_top(node)
        else:
            # A bare list or mapping of pairs becomes a document.
            self._write_commands(node)
        self._flush(None, 0)
        return "\n".join(self._lines) + "\n"

    def _flush(self, node: Node | None, indent: int) -> None:
        """Write the comments that stand before a node; without one, all that are left."""
        line = int(node.place.split(":")[-2]) if node is not None else None
        while self._comments and (line is None or self._comments[0][0] <= line):
            self._lines.append(" " * indent + self._comments.pop(0)[1])

    def _write_top(self, node: MappingNode) -> None:
        entries = sorted(node.items, key=lambda item: _TOP_ORDER.index(item[0].value))
        if [key for key, _ in entries] != [key for key, _ in node.items] and self._comments:
            entries = list(node.items)
        for key, value in entries:
            self._flush(key, 0)
            if key.value != "permission":
                self._lines.append(f"{key.value}: {_flow(value)}")
            elif isinstance(value, MappingNode) and not _is_pairs(value):
                self._lines.append("permission:" if value.items else "permission: {}")
                for operation, section in value.items:
                    self._flush(operation, 2)
                    self._lines.append(f"  {operation.value}:" + _nothing(section))
                    self._write_section(section, indent=4)
            else:
                self._write_commands(value)

    def _write_commands(self, node: Node) -> None:
        """Write rules that stand without an operation: they are about commands."""
        self._lines += ["permission:", "  bash:" + _nothing(node)]
        self._write_section(node, indent=4)

    def _write_section(self, node: Node, *, indent: int) -> None:
        margin = " " * indent
        if isinstance(node, MappingNode):
            for key, value in node.items:
                self._flush(key, indent)
                self._lines.append(f"{margin}{render_text(key.value)}: {_flow(value)}")
            return
        for item in node.items if isinstance(node, SequenceNode) else ():
            self._flush(item, indent)
            if isinstance(item, MappingNode):
                self._write_rule(item, indent)
            else:
                self._lines.append(f"{margin}- {_flow(item)}")

    def _write_rule(self, rule: MappingNode, indent: int) -> None:
        lead = " " * indent + "- "
        for key, value in sorted(rule.items, key=lambda item: _RULE_ORDER.index(item[0].value)):
            for line in _block(key.value, value, indent + 2):
                self._lines.append(lead + line.lstrip() if lead.strip() else line)
                lead = ""
            lead = ""


def _nothing(section: Node) -> str:
    """What stands behind the name of a section without rules: an absent value would be refused."""
    return "" if isinstance(section, TextNode) or section.items else " []"


def _block(key: str, value: Node, indent: int) -> Iterator[str]:
    """A key and its value on one line where it fits, a mapping on several where it does not."""
    margin = " " * indent
    one_line = f"{margin}{key}: {_flow(value)}"
    if len(one_line) <= _WIDTH or isinstance(value, TextNode):
        yield one_line
        return
    yield f"{margin}{key}:"
    if isinstance(value, MappingNode):
        for inner, node in value.items:
            yield from _block(inner.value, node, indent + 2)
        return
    for item in value.items:
        yield f"{margin}  - {_flow(item)}"


def _flow(node: Node) -> str:
    if isinstance(node, TextNode):
        return _scalar(node.value)
    if isinstance(node, SequenceNode):
        return "[" + ", ".join(_flow(item) for item in node.items) + "]"
    return "{" + ", ".join(f"{_scalar(key.value)}: {_flow(value)}" for key, value in node.items) + "}"


def _scalar(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    if value.isascii() and value.isdigit():
        return value
    return render_text(value)


def _is_pairs(node: Any) -> bool:
    return (
        isinstance(node, MappingNode)
        and bool(node.items)
        and all(
            isinstance(value, TextNode) and value.value in ACTIONS and key.value not in _TOP_ORDER
            for key, value in node.items
        )
    )
