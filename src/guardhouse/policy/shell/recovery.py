"""Where a simple command that cannot be read ends, so that what stands behind it is still seen.

What cannot be read leaves a text undecided whatever follows; this only lets a command that is literally there be named,
and denied. It steps over quotes, escapes and plain expansions, whose ends every shell finds alike, and gives up at
anything that may hold a command or a line of its own: parentheses, backquotes, here-documents, comments. Pure.
"""

import re
from typing import Final

__all__ = ["end_of_simple"]

_UNIT: Final = re.compile(
    r"""[^\x00-\x20;&|<>()`$'"\\#\x7f]+                   # as it stands
    | [ \t]+
    | \\[\s\S]                                            # an escaped character, or a line continuation
    | '[^']*'
    | "(?: [^"\\`$] | \\[\s\S] | \$\{[^{}`'"$\\()\n]*\} | \$(?![({\['"]) )*"
    | \$\{[^{}`'"$\\()\n]*\}
    | \$(?![({\['"])
    | &>>? | >>?[&|]?(?!\() | <[>&]?(?![<(])
    | (?<=[^\s;&|<>()])\#                                 # no comment, since it stands in a word
    """,
    re.VERBOSE,
)


def end_of_simple(text: str, start: int) -> int | None:
    """Return where the simple command that begins at ``start`` certainly ends: at an operator, a newline or the end.

    None where that is not certain.
    """
    end = start
    while (unit := _UNIT.match(text, end)) is not None:
        end = unit.end()
    return end if end >= len(text) or text[end] in ";&|\n)" else None
