"""What ``$'…'`` stands for, exactly as bash 5.2 decodes it, or nothing where that depends on the locale.

Knows only the text between the quotes. Pure; runs wherever a text is read.
"""

import re
from typing import Final

__all__ = ["decode_ansi_c"]

_SIMPLE: Final = {
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "E": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "?": "?",
}
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9a-fA-F]{1,2})|u(?P<u4>[0-9a-fA-F]{1,4})|U(?P<u8>[0-9a-fA-F]{1,8})"
    r"|(?P<simple>[abeEfnrtv\\'\"?])|(?P<other>.))",
    re.DOTALL,
)
_ASCII_END: Final = 0x80


def decode_ansi_c(body: str) -> str | None:
    r"""Return the value of ``$'body'``, or None when it is not the same in every locale.

    ``\x80`` and above are bytes, not characters, and ``\u`` above ASCII follows the locale's character set, so both
    give None. So do ``\c`` and ``\x{``, whose results changed between releases, and any escape that yields NUL, CTLESC
    (``\x01``) or DEL (``\x7f``), which bash treats specially inside.

    Source: bash 5.2, lib/sh/strtrans.c, ``ansicstr`` with flags 2.
    """
    if "\\" not in body:
        return body
    pieces: list[str] = []
    position = 0
    for match in _ESCAPE.finditer(body):
        pieces.append(body[position : match.start()])
        position = match.end()
        if (simple := match["simple"]) is not None:
            pieces.append(_SIMPLE[simple])
            continue
        if (other := match["other"]) is not None:
            if other in "cxuU":
                return None
            pieces.append("\\" + other)
            continue
        digits, base = (
            (match["octal"], 8) if match["octal"] is not None else (match["hex"] or match["u4"] or match["u8"], 16)
        )
        code = int(digits, base) & 0xFF if base == 8 else int(digits, base)
        if code >= _ASCII_END or code in (0, 1, 0x7F):
            return None
        pieces.append(chr(code))
    pieces.append(body[position:])
    return "".join(pieces)
