"""The arguments and the result of `webfetch`: a page by its address. Runs wherever `wire` does."""

from typing import Annotated, Final

from msgspec import Meta, field

from guardhouse import limits
from guardhouse.wire.operations.base import Args, Notes, Result, Timeout
from guardhouse.wire.scalars import Count, Text

__all__ = ["WEBFETCH_TIMEOUT_MAX_S", "WebfetchArgs", "WebfetchResult"]

WEBFETCH_TIMEOUT_DEFAULT_S: Final = 30.0
WEBFETCH_TIMEOUT_MAX_S: Final = 120.0


class WebfetchArgs(Args, frozen=True, kw_only=True):
    """Fetch a page; ``format`` is ``markdown`` (also when absent or empty), ``text`` or ``html``."""

    url: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_TEXT_MAX_CHARS)]
    format: Annotated[str, Meta(pattern=r"\A(|markdown|text|html)\Z")] = ""
    timeout: Timeout | None = None

    @property
    def output_format(self) -> str:
        """The format, the default filled in."""
        return self.format or "markdown"

    @property
    def timeout_s(self) -> float:
        """The time limit in seconds: the default filled in, and 120 at most (WIRE_PROTOCOL "Operations")."""
        return min(self.timeout or WEBFETCH_TIMEOUT_DEFAULT_S, WEBFETCH_TIMEOUT_MAX_S)


class WebfetchResult(Result, frozen=True, kw_only=True):
    """The page and the address where it was found after redirects. ``status`` is of ours."""

    content: str = field(default_factory=str)
    url: Text = field(default_factory=str)
    truncated: bool = False
    file_path: Text | None = None
    total_size: Count | None = None
    status: Count | None = None
    notes: Notes = ()
