"""What the arguments and results of every operation share. Knows no operation. Runs wherever `wire` does."""

from typing import Annotated

from msgspec import Meta, Struct

from guardhouse import limits
from guardhouse.wire.scalars import Text

__all__ = ["Args", "Digest", "Notes", "Pattern", "Patterns", "Result", "Timeout"]

Pattern = Annotated[str, Meta(min_length=1, max_length=8_192, pattern=r"\A[^\x00]*\Z")]
Patterns = Annotated[tuple[Pattern, ...], Meta(max_length=1_024)]
# Seconds; 0 means the default, as an absent number does in Go.
Timeout = Annotated[float, Meta(ge=0, le=limits.BASH_TIMEOUT_MAX_S)]
Digest = Annotated[str, Meta(max_length=256, pattern=r"\A[0-9A-Za-z:+/=_.-]*\Z")]
Notes = Annotated[tuple[Text, ...], Meta(max_length=1_024)]


class Args(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every operation's arguments."""


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every operation's result."""
