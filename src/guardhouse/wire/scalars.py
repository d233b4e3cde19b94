"""The bounded texts and numbers that messages are made of: one name for each kind of field.

Knows lengths and allowed characters. Knows no message. Runs in the runner and in the hub.
"""

from typing import Annotated

from msgspec import Meta

from guardhouse import limits

__all__ = [
    "Count",
    "ExitCode",
    "Identifier",
    "Labels",
    "Name",
    "Path",
    "Percent",
    "Seconds",
    "Text",
    "WholeNumber",
    "empty",
]

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
_MAX_EXACT = 2**53 - 1

# An id is printed in logs and terminals, so it has no control characters.
Identifier = Annotated[str, Meta(min_length=1, max_length=limits.WIRE_ID_MAX_CHARS, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
Name = Annotated[str, Meta(max_length=limits.WIRE_NAME_MAX_CHARS)]
Text = Annotated[str, Meta(max_length=limits.WIRE_TEXT_MAX_CHARS)]
# No system call can take a NUL inside a path; refused here it never turns into a shorter path.
Path = Annotated[str, Meta(max_length=limits.WIRE_PATH_MAX_CHARS, pattern=r"\A[^\x00]*\Z")]
Labels = Annotated[tuple[Name, ...], Meta(max_length=limits.WIRE_LABELS_MAX)]

Count = Annotated[int, Meta(ge=0, le=_MAX_EXACT)]
WholeNumber = Annotated[int, Meta(ge=-_MAX_EXACT, le=_MAX_EXACT)]
ExitCode = Annotated[int, Meta(ge=-(2**31), le=2**32 - 1)]
Percent = Annotated[float, Meta(ge=0, le=100_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


def empty() -> tuple[()]:
    """Make the default of a sequence that is always written, even when it is empty.

    msgspec leaves out a field that equals its plain default; one with a factory of ours is always written.
    """
    return ()
