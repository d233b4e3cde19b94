"""What every schema of the REST interface is made of: the bases of what comes and goes, names, references, pages.

The schemas themselves are in `schemas_*`, one module an area: checked on the way in, documented by OpenAPI. Times are
ISO 8601 in UTC. They know nothing of the store's rows beyond what `guardhouse.hub.api.views` copies from them. Runs in
the hub.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "END",
    "Input",
    "Key",
    "Name",
    "NoQuery",
    "Offset",
    "Output",
    "Page",
    "Reference",
    "ScopeName",
    "Tag",
    "Tags",
    "Text",
]

# `$` of Python also matches before a last newline, `\Z` is unknown to OpenAPI's regular expressions: this is the end.
END = r"$(?![\s\S])"
# A name is shown in terminals and tables: no control characters, no blanks at its ends.
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=rf"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?{END}",
    ),
]
Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.:/-]*{END}")]
Tags = Annotated[list[Tag], Meta(max_length=64)]
Reference = Annotated[str, Meta(min_length=1, max_length=128, description="an id or a name")]
Key = Annotated[str, Meta(min_length=1, max_length=128, pattern=rf"^[\x21-\x7e]+{END}")]
Text = Annotated[str, Meta(max_length=256)]
Offset = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Page = Annotated[int, Meta(ge=1, le=500)]
ScopeName = Literal[
    "env:read",
    "env:write",
    "tasks:read",
    "tasks:run",
    "tokens:write",
    "approvals:read",
    "approvals:decide",
    "metrics:read",
    "admin",
]


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what comes in: an unknown member is an error, since it is most often a misspelt one."""


class Output(Struct, frozen=True, kw_only=True):
    """The base of what goes out."""


class NoQuery(Input, frozen=True):
    """A route without query parameters."""
