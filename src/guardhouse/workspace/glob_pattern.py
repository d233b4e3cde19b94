r"""Glob patterns, compiled to automata that need linear time whatever the pattern.

`*` and `?` stay within one component, `**` as a whole component crosses any number of them, `[a-z]`, `[!a-z]`
and `[^a-z]` are classes, `{a,b}` are alternatives (nested and with slashes too), `\` takes the next character
as it is. A leading dot needs no special pattern. Names are bytes: one that is not valid UTF-8 is matched byte
for byte. Pure.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import re2

from guardhouse.limits import PATTERN_MAX_BYTES
from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown

__all__ = ["GlobPattern"]

_META: Final = frozenset("*?[{\\")
_DEPTH_MAX: Final = 32
_BRACKETS: Final = frozenset(b"[]{}\\")
_STARS: Final = frozenset(b"*?")
# The shapes that most globs have: "src/*.py", "**/*.py", "src/**/test_*.py", "**/Makefile", "src/**".
_SIMPLE: Final = re.compile(
    rb"(?P<above>(?:[^*?\[\]{}\\]*/)?)"
    rb"(?:(?P<all>\*\*)|(?P<deep>\*\*/)?(?P<first>[^*?\[\]{}\\/]*)(?P<star>\*?)(?P<last>[^*?\[\]{}\\/]*))"
)


class GlobPattern:
    """One compiled pattern, for a base name or for a path relative to the workspace."""

    def __init__(self, pattern: str | bytes) -> None:
        """Compile ``pattern``.

        Raises:
            WorkspaceRefusal: INVALID: too long, unbalanced brackets or braces, a trailing backslash.
        """
        raw = pattern if isinstance(pattern, bytes) else pattern.encode("utf-8", "surrogateescape")
        if len(raw) > PATTERN_MAX_BYTES:
            raise WorkspaceRefusal(
                f"glob of {len(raw)} bytes is too long: at most {PATTERN_MAX_BYTES}", code=Code.INVALID
            )
        self.pattern = raw
        # Most names differ in what is plain text at the pattern's ends; an automaton costs ten times as much.
        self._beginning, self._ending = _plain_ends(raw)
        self._simple = _SIMPLE.fullmatch(raw)
        slash = raw.rfind(b"/") + 1
        # No part of the last component matches a slash, so it is the name's last one that it stands for.
        self._last = _plain_ends(raw[slash:])[0] if slash and not _BRACKETS.intersection(raw) else b""
        try:
            self._text_matcher = _compiled(raw.decode("utf-8"), latin=False)
        except UnicodeDecodeError:
            self._text_matcher = None
        self._byte_matcher: Any = None if self._text_matcher is not None else self._compile_for_bytes()

    def matches(self, name: bytes) -> bool:
        """Say whether the whole of ``name`` matches."""
        if not (name.endswith(self._ending) and name.startswith(self._beginning)):
            return False
        if self._last and not name.startswith(self._last, name.rfind(b"/") + 1):
            return False
        if self._text_matcher is not None:
            try:
                name.decode("utf-8")
            except UnicodeDecodeError:
                pass
            else:
                return self._text_matcher.fullmatch(name) is not None
        if self._byte_matcher is None:
            self._byte_matcher = self._compile_for_bytes()
        return self._byte_matcher is not False and self._byte_matcher.fullmatch(name) is not None

    def matching(self, prefix: bytes, names: Sequence[bytes]) -> Sequence[bytes]:
        """Return those of ``names`` for which ``prefix + name`` matches, in their order.

        Args:
            prefix: b"", or a path that ends in a slash.
            names: base names, neither empty nor with a slash.
        """
        shape = self._simple
        if shape is None:
            return [name for name in names if self.matches(prefix + name)]
        above = shape["above"]
        if shape["all"] or shape["deep"]:
            if not prefix.startswith(above):
                return []
        elif prefix != above:
            return []
        if shape["all"]:
            return names
        first, last = shape["first"], shape["last"]
        if not shape["star"]:
            return [first + last] if first + last in names else []
        shortest = len(first) + len(last)
        return [name for name in names if name.endswith(last) and name.startswith(first) and len(name) >= shortest]

    def _compile_for_bytes(self) -> Any:
        """Return the matcher for names that are not UTF-8; False when the pattern has none."""
        try:
            return _compiled(self.pattern.decode("latin-1"), latin=True)
        except WorkspaceRefusal:
            if self._text_matcher is None:
                raise
            return False  # [é-ü] is a range of characters and none of bytes: no such name matches it


def _plain_ends(pattern: bytes) -> tuple[bytes, bytes]:
    """Return the text that every match begins with and the one that it ends with; empty where there may be none."""
    if _BRACKETS.intersection(pattern):
        return b"", b""
    first = next((at for at, byte in enumerate(pattern) if byte in _STARS), len(pattern))
    last = next((at for at in range(len(pattern), 0, -1) if pattern[at - 1] in _STARS), 0)
    ending = pattern[last:]
    if pattern[:last].endswith(b"**"):
        ending = ending.removeprefix(b"/")  # "**/x" matches "x" as well
    return pattern[:first], ending


@lru_cache(maxsize=512)
def _compiled(pattern: str, *, latin: bool) -> Any:
    expression = _Translation(pattern).expression()
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = True
    options.max_mem = 16 << 20
    try:
        if latin:
            options.encoding = re2.Options.Encoding.LATIN1
            return re2.compile(expression.encode("latin-1"), options)
        return re2.compile(expression, options)
    except re2.error as error:
        raise WorkspaceRefusal(
            f"invalid glob {shown(pattern.encode('utf-8', 'replace'))}: {_said(error)}", code=Code.INVALID
        ) from error


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


class _Translation:
    """Reads a glob from left to right, once, and writes the regular expression."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._out: list[str] = []
        self._depth = 0

    def expression(self) -> str:
        while self._at < len(self._pattern):
            self._one()
        if self._depth:
            raise self._invalid("'{' is never closed")
        return "".join(self._out)

    def _one(self) -> None:
        character = self._pattern[self._at]
        if character == "*":
            self._stars()
            return
        self._at += 1
        if character == "?":
            self._out.append("[^/]")
        elif character == "[":
            self._class()
        elif character == "{":
            self._depth += 1
            if self._depth > _DEPTH_MAX:
                raise self._invalid(f"braces nested deeper than {_DEPTH_MAX}")
            self._out.append("(?:")
        elif character == "}" and self._depth:
            self._depth -= 1
            self._out.append(")")
        elif character == "," and self._depth:
            self._out.append("|")
        elif character == "\\":
            if self._at == len(self._pattern):
                raise self._invalid("a backslash at the end escapes nothing")
            self._out.append(_literal(self._pattern[self._at]))
            self._at += 1
        else:
            self._out.append(_literal(character))

    def _stars(self) -> None:
        start = self._at
        while self._at < len(self._pattern) and self._pattern[self._at] == "*":
            self._at += 1
        before = self._pattern[start - 1] if start else "/"
        after = self._pattern[self._at] if self._at < len(self._pattern) else ""
        opens = before == "/" or (self._depth and before in "{,")
        if self._at - start == 2 and opens:
            if after == "/":
                # "**/" is any number of directories, none included.
                self._at += 1
                self._out.append("(?:[^/]+/)*")
                return
            if after == "" or (self._depth and after in "},"):
                self._out.append(".+")
                return
        self._out.append("[^/]*")

    def _class(self) -> None:
        negated = self._at < len(self._pattern) and self._pattern[self._at] in "!^"
        at = self._at + negated
        members: list[tuple[str, str]] = []
        first = True
        while True:
            if at >= len(self._pattern):
                raise self._invalid("'[' is never closed")
            if self._pattern[at] == "]" and not first:
                break
            low, at = self._member(at)
            high = low
            if self._pattern[at : at + 1] == "-" and self._pattern[at + 1 : at + 2] not in ("]", ""):
                high, at = self._member(at + 1)
                if high < low:
                    raise self._invalid(f"range {low}-{high} runs backwards")
            members.append((low, high))
            first = False
        self._at = at + 1
        body = "".join(f"\\x{{{ord(low):x}}}-\\x{{{ord(high):x}}}" for low, high in members)
        if negated:
            self._out.append(f"[^/{body}]")
        elif any(low <= "/" <= high for low, high in members):
            # A class never matches the slash, even where a range spans it: RE2 has no intersection, so split it.
            kept = "".join(
                f"\\x{{{ord(low):x}}}-\\x{{{ord(high):x}}}" for pair in members for low, high in _without_slash(*pair)
            )
            self._out.append(f"[{kept}]" if kept else "[^\\x{0}-\\x{10FFFF}]")
        else:
            self._out.append(f"[{body}]")

    def _member(self, at: int) -> tuple[str, int]:
        if self._pattern[at] == "\\" and at + 1 < len(self._pattern):
            at += 1
        return self._pattern[at], at + 1

    def _invalid(self, why: str) -> WorkspaceRefusal:
        return WorkspaceRefusal(
            f"invalid glob {shown(self._pattern.encode('utf-8', 'replace'))}: {why}", code=Code.INVALID
        )


def _without_slash(low: str, high: str) -> list[tuple[str, str]]:
    if not low <= "/" <= high:
        return [(low, high)]
    parts = [(low, chr(ord("/") - 1)), (chr(ord("/") + 1), high)]
    return [(first, last) for first, last in parts if first <= last]


def _literal(character: str) -> str:
    """Return the expression for one character; a newline in a name is one too."""
    return character if character.isalnum() and character.isascii() else f"\\x{{{ord(character):x}}}"
