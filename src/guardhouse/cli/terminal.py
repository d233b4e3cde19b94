"""A command's output for a person's terminal: text and colours pass, whatever else a terminal would obey is spelt out.

A terminal obeys what it is sent: it changes its title, moves the cursor over what was printed before, answers questions
as if somebody had typed, writes the clipboard, hides text. A command that nobody trusts prints what it likes. Where our
stream is no terminal, every byte passes as it came. Runs in the `guardhouse` command.
"""

import codecs
import re
import sys
from typing import Final, TextIO

from guardhouse.cli.tables import plain_text

__all__ = ["HarmlessOutput", "HarmlessText", "plain_lines"]

# ECMA-48, 8.3.117 (SGR); a longer list of parameters is no terminal program's.
_COLOUR: Final = re.compile(r"\x1b\[([0-9;:]{0,64})m")
_COLOUR_BEGUN: Final = re.compile(r"\x1b(\[[0-9;:]{0,64})?\Z")
_CONCEAL: Final = 8
_COLOURS_FOLLOW: Final = {38: {5: 1, 2: 3}, 48: {5: 1, 2: 3}, 58: {5: 1, 2: 3}}  # parameters of these are no attributes
_RESET: Final = b"\x1b[0m"
# What a terminal obeys, C0 and C1 without line feed, tab and carriage return, and what reorders a line as it is shown.
_OBEYED: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\udc80-\udcff]"
)


class HarmlessText:
    """Makes one stream harmless, piece by piece; a sequence may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._begun = ""
        self._is_coloured = False

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown of the next bytes; the begin of a sequence waits for its rest."""
        return self._shown(self._decoder.decode(data))

    def finish(self) -> bytes:
        """Return what waited, and the end of a colour that was left on."""
        text = self._shown(self._decoder.decode(b"", final=True))
        rest, self._begun = self._begun, ""
        colour = _RESET if self._is_coloured else b""
        self._is_coloured = False
        return text + _OBEYED.sub(_spelt, rest).encode() + colour

    def _shown(self, text: str) -> bytes:
        text = self._begun + text
        begun = _COLOUR_BEGUN.search(text)
        self._begun = begun[0] if begun else ""
        text = text[: len(text) - len(self._begun)]
        parts: list[str] = []
        place = 0
        for found in _COLOUR.finditer(text):
            parts.append(_OBEYED.sub(_spelt, text[place : found.start()]))
            parts.append(found[0] if self._is_colour(found[1]) else _OBEYED.sub(_spelt, found[0]))
            place = found.end()
        parts.append(_OBEYED.sub(_spelt, text[place:]))
        return "".join(parts).encode()

    def _is_colour(self, parameters: str) -> bool:
        """Whether an SGR sequence leaves text visible; remembers whether one is left on."""
        numbers = [int(word) if word else 0 for word in re.split("[;:]", parameters)]
        place = 0
        while place < len(numbers):
            number = numbers[place]
            if number == _CONCEAL:
                return False
            if number in _COLOURS_FOLLOW and place + 1 < len(numbers):
                place += 1 + _COLOURS_FOLLOW[number].get(numbers[place + 1], 0)
            place += 1
        self._is_coloured = numbers[-1] != 0
        return True


def _spelt(found: re.Match[str]) -> str:
    letter = found[0]
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"  # a byte that is no UTF-8
    return ascii(letter)[1:-1]


class HarmlessOutput:
    """Both streams of a command as they go to ours: made harmless where ours is a terminal, else byte for byte."""

    def __init__(self, *, raw: bool) -> None:
        """``raw`` shows a terminal every byte, too."""
        self._makers = {
            name: HarmlessText()
            for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
            if not raw and stream.isatty()
        }

    def shown(self, stream: str, data: bytes) -> bytes:
        """Return what is to be written to our stream of the same name."""
        maker = self._makers.get(stream)
        return data if maker is None else maker.feed(data)

    def write(self, stream: str, data: bytes) -> None:
        """Write output to our own stream of the same name at once."""
        _write(_OURS[stream](), self.shown(stream, data))

    def finish(self) -> None:
        """Write what waited for its rest."""
        for name, maker in self._makers.items():
            _write(_OURS[name](), maker.finish())


_OURS: Final = {"stdout": lambda: sys.stdout, "stderr": lambda: sys.stderr}


def _write(target: TextIO, data: bytes) -> None:
    if data:
        target.buffer.write(data)
        target.flush()


def plain_lines(text: object) -> str:
    """Return words of a command's making, or about it, with nothing in them that a terminal would obey."""
    return "\n".join(plain_text(line) for line in str(text).split("\n"))
