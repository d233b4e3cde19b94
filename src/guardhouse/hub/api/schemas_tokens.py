"""What the routes of API tokens take and give, and who asks. Runs in the hub."""

from typing import Annotated, Literal

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Name, Output, Reference, ScopeName, Tag

__all__ = [
    "Self",
    "Token",
    "TokenCreate",
    "TokenCreated",
    "TokenList",
    "TokenRevoke",
]


class TokenCreate(Input, frozen=True):
    """A new API token; its scopes are some of the asker's own.

    With ``environments`` (ids or names) or ``tags`` it is for those environments only that are named or have one of the
    tags. A narrowed token makes tokens that are narrowed alike.
    """

    name: Name
    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=9)]
    expires_in_s: Annotated[int, Meta(ge=60, le=10 * 366 * 86_400)] | None = None
    environments: Annotated[list[Reference], Meta(min_length=1, max_length=100)] | None = None
    tags: Annotated[list[Tag], Meta(min_length=1, max_length=64)] | None = None


class TokenRevoke(Input, frozen=True):
    """Whether what was made with the token ends with it: API tokens and join tokens, and what those made."""

    made: bool = False


class Token(Output, frozen=True):
    """An API token without its secret; ``hint`` is its prefix and last four digits."""

    id: str
    name: str
    hint: str
    scopes: list[ScopeName]
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    valid: bool
    last_used_at: str | None
    person_id: str | None
    environments: list[str] | None
    tags: list[str] | None


class TokenCreated(Output, frozen=True):
    """A new API token with its secret, which is shown this once."""

    token: Token
    secret: str


class TokenList(Output, frozen=True):
    """Every API token that the caller may see, oldest first, those revoked too."""

    tokens: list[Token]


class Self(Output, frozen=True):
    """Who asks, and whom. ``email``, ``role`` and ``teams`` (ids) are of the person whose token or sign-in it is."""

    id: str
    name: str
    kind: Literal["token", "person"]
    email: str | None
    role: Literal["owner", "admin", "member"] | None
    teams: list[str]
    scopes: list[ScopeName]
    expires_at: str | None
    hub_version: str
