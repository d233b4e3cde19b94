"""What is looked for: a pattern of known secrets, or a literal value that the operator named. Pure.

An entry is asked only where one of its anchors (short literal texts; of a value its beginning) stands, and looks at a
bounded window from there. So its answer depends on the text alone and never on how the text was cut into chunks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import re2

from guardhouse.limits import REDACTION_WINDOW_BYTES
from guardhouse.redaction.errors import RedactionError

__all__ = ["MORE", "Entry", "Literal", "Match", "More", "Pattern", "Window", "latin1_options", "marker"]

_WORD_BYTES: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_SPACE: Final = re.compile(rb"[ \t\r\n\f\v]")
_COUNTED: Final = re.compile(r"\{(\d+)(,?)(\d*)\}")
_COUNTED_MAX: Final = 8
_MAX_MEMORY_BYTES: Final = 64 * 1024 * 1024


# No lines shorter than this are looked for of a value that may be broken into lines.
_WRAPPED_LINE_MIN: Final = 16


class More(Enum):
    """The type of `MORE`: an answer needs bytes that have not come yet."""

    MORE = auto()


MORE: Final = More.MORE


class Window(Enum):
    """How far an entry looks from its anchor: to the first blank, to the end of the line, or over lines."""

    WORD = "word"
    LINE = "line"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Match:
    """A secret from ``start`` to ``end`` (offsets in the buffer); `Pattern.extend` may carry it further."""

    start: int
    end: int


def latin1_options() -> re2.Options:
    """Return RE2's options for patterns over bytes."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    return options


def marker(kind: str) -> bytes:
    """Return what stands in a secret's place: its kind; neither the value nor its length."""
    return b"[redacted: " + kind.encode("ascii") + b"]"


def _loosen(counted: re.Match[str]) -> str:
    least, _comma, most = counted.groups()
    if int(most or least) <= _COUNTED_MAX:
        return counted[0]
    return f"{{{min(int(least), _COUNTED_MAX)},}}"


def _compile(expression: str, place: str) -> re2._Regexp:
    try:
        return re2.compile(expression.encode("latin-1"), latin1_options())
    except (re2.error, UnicodeEncodeError) as error:
        raise RedactionError(f"{expression!r} is no expression that RE2 takes: {error}", place=place) from None


@dataclass(frozen=True, slots=True)
class Literal:
    """One exact value. Found wherever it stands, inside words too."""

    kind: str
    value: bytes

    def __post_init__(self) -> None:
        if not self.value or self.value[:1] in b"\r\n":
            raise RedactionError("a value that is empty or begins with a line end", place=self.kind)

    @property
    def reach(self) -> int:
        """How many bytes from the anchor can matter."""
        return len(self.value)

    def look(self, data: bytes, at: int, *, is_final: bool) -> Match | More | None:
        """Say whether the value stands at ``at``."""
        if data.startswith(self.value, at):
            return Match(at, at + len(self.value))
        if not is_final and len(data) - at < len(self.value) and self.value.startswith(data[at:]):
            return MORE
        return None

    def extend(self, data: bytes, end: int, *, is_final: bool) -> tuple[int, bool | More]:  # noqa: ARG002 - as Pattern
        """A value ends where it ends."""
        return end, True


@dataclass(frozen=True, slots=True)
class WrappedLiteral(Literal):
    """One exact value of letters and digits that programs break into lines: base64(1) after 76, `xxd -p` after 60.

    Where a line ends depends on what stands before the value, so it may end behind any of its characters.
    """

    @property
    def reach(self) -> int:
        """How many bytes from the anchor can matter."""
        return len(self.value) + 2 * self._breaks_max

    @property
    def _breaks_max(self) -> int:
        return len(self.value) // _WRAPPED_LINE_MIN + 1

    def look(self, data: bytes, at: int, *, is_final: bool) -> Match | More | None:
        """Say whether the value stands at ``at``, in as many lines as it may."""
        here, done = at, 0
        for _ in range(self._breaks_max + 1):
            line = data[here : here + len(self.value) - done]
            ended = min((found for found in (line.find(b"\n"), line.find(b"\r")) if found >= 0), default=len(line))
            if not self.value.startswith(line[:ended], done):
                return None
            here, done = here + ended, done + ended
            if done == len(self.value):
                return Match(at, here)
            if here == len(data) or (data[here:] == b"\r"):
                return None if is_final else MORE
            if data.startswith(b"\r\n", here):
                here += 2
            elif data.startswith(b"\n", here):
                here += 1
            else:
                return None
        return None


@dataclass(frozen=True, slots=True)
class Pattern:
    """The shape of one kind of secret.

    Attributes:
        kind: what the marker says.
        anchors: at least one of these literals stands where ``expression`` begins.
        expression: RE2, over bytes, tried at an anchor within the window; its group ``secret``, or all of it, goes.
        ignores_case: anchors are found in any case; the expression says for itself.
        window: how far the expression may look.
        after_word: take it although a letter, digit or underscore stands in front of the anchor.
        rest: byte class; the secret goes on as long as bytes are of it.
        lines: RE2 for the next piece of a secret over many lines; one at least must follow, the group ``end`` ends it.
        unless: RE2; what matches one of them as a whole is no secret (a variable, a placeholder).
        unless_before: byte class; what such a byte follows is no secret (the bracket of a call).
        place: where it is written, ``file:line:column``.
    """

    kind: str
    anchors: tuple[bytes, ...]
    expression: str
    place: str
    ignores_case: bool = False
    window: Window = Window.WORD
    after_word: bool = False
    rest: str | None = None
    lines: str | None = None
    unless: tuple[str, ...] = ()
    unless_before: str | None = None
    _expression: re2._Regexp = field(init=False, repr=False, compare=False)
    _rest: re.Pattern[bytes] | None = field(init=False, repr=False, compare=False)
    _unless_before: re.Pattern[bytes] | None = field(init=False, repr=False, compare=False)
    _lines: re2._Regexp | None = field(init=False, repr=False, compare=False)
    _unless: re2._Regexp | None = field(init=False, repr=False, compare=False)
    _group: int = field(init=False, repr=False, compare=False)
    _line_end: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expression = _compile(self.expression, self.place)
        lines = None if self.lines is None else _compile(self.lines, self.place)
        unless = _compile("|".join(f"(?:{one})" for one in self.unless), self.place) if self.unless else None
        for name, value in (
            ("_expression", expression),
            ("_rest", _byte_class(self.rest, "rest", self.place, repeat=b"*")),
            ("_unless_before", _byte_class(self.unless_before, "unless_before", self.place)),
            ("_lines", lines),
            ("_unless", unless),
            ("_group", expression.groupindex.get(b"secret", 0)),
            ("_line_end", 0 if lines is None else lines.groupindex.get(b"end", 0)),
        ):
            object.__setattr__(self, name, value)

    @property
    def reach(self) -> int:
        """How many bytes from the anchor can matter."""
        return REDACTION_WINDOW_BYTES * (1 if self.lines is None else 2)

    @property
    def search_expression(self) -> bytes:
        """What RE2's set looks for: matches wherever `look` can, and sometimes where it does not.

        Long counted repeats are made open-ended: an automaton has a state for each count, and all patterns together
        then took a second to set up.
        """
        return _COUNTED.sub(_loosen, self.expression).encode("latin-1")

    def look(self, data: bytes, at: int, *, is_final: bool) -> Match | More | None:
        """Say whether a secret begins at the anchor at ``at``; `is_in_word` has been asked."""
        end = min(len(data), at + REDACTION_WINDOW_BYTES)
        is_whole = is_final or end == at + REDACTION_WINDOW_BYTES
        if self.window is Window.LINE:
            stop = data.find(b"\n", at, end)
            if stop >= 0:
                end, is_whole = stop, True
        elif self.window is Window.WORD:
            blank = _SPACE.search(data, at, end)
            if blank is not None:
                end, is_whole = blank.start(), True
        if not is_whole:
            return MORE
        found = self._expression.match(data, at, end)
        if found is None:
            return None
        start, stop = found.span(self._group)
        if start == stop or (self._unless is not None and self._unless.fullmatch(data, start, stop) is not None):
            return None
        if self._unless_before is not None and self._unless_before.match(data, found.end(), end) is not None:
            return None
        if self._lines is not None:
            following = self._next_lines(data, stop, is_final=is_final)
            if following is None:
                return None
            if following is MORE:
                return MORE
        return Match(start, stop)

    def is_in_word(self, before: int | None) -> bool:
        """Whether the byte in front of an anchor (None: none, or a secret's) makes it a part of a longer word."""
        return not self.after_word and before is not None and before in _WORD_BYTES

    def extend(self, data: bytes, end: int, *, is_final: bool) -> tuple[int, bool | More]:
        """Carry a secret on from ``end``.

        Returns:
            Where it goes to now, and whether it ends there: True; False when it may go on in bytes to come;
            MORE when the bytes from there cannot be judged without those to come.
        """
        if self._rest is not None:
            found = self._rest.match(data, end)
            end = end if found is None else found.end()
            return end, is_final or end < len(data)
        if self._lines is None:
            return end, True
        while True:
            following = self._next_lines(data, end, is_final=is_final)
            if following is MORE:
                return end, MORE
            if following is None:
                return end, True
            end, is_last = following
            if is_last:
                return end, True

    def _next_lines(self, data: bytes, at: int, *, is_final: bool) -> tuple[int, bool] | More | None:
        if self._lines is None:
            return None
        if not is_final and len(data) - at < REDACTION_WINDOW_BYTES:
            return MORE
        found = self._lines.match(data, at, min(len(data), at + REDACTION_WINDOW_BYTES))
        if found is None or found.end() == at:
            return None
        return found.end(), self._line_end > 0 and found.span(self._line_end)[0] >= 0


def _byte_class(text: str | None, key: str, place: str, *, repeat: bytes = b"") -> re.Pattern[bytes] | None:
    if text is None:
        return None
    # One class of single bytes: a repeat of it swallowed in pieces ends where it would end in one.
    if not re.fullmatch(r"\[(?:[^\[\]\\]|\\.)+\]", text):
        raise RedactionError(f"{key}: {text!r} is no byte class like '[A-Za-z0-9_-]'", place=place)
    try:
        return re.compile(text.encode("ascii") + repeat)
    except (re.error, UnicodeEncodeError) as error:
        raise RedactionError(f"{key}: {text!r} is no byte class: {error}", place=place) from None


Entry = Pattern | Literal


def longest_reach(entries: Sequence[Entry]) -> int:
    """Return how many bytes from an anchor any of ``entries`` may look at."""
    return max((entry.reach for entry in entries), default=0)
