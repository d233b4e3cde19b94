"""What the routes of device sign-ins take and give. Runs in the hub."""

from typing import Annotated, Final

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Name, Output, ScopeName
from guardhouse.hub.api.schemas_people import Email, Password

__all__ = [
    "DeviceCollect",
    "DevicePending",
    "DeviceSignInBegin",
    "DeviceSignInBegun",
    "DeviceSignInShown",
    "PasswordLogin",
]

TOKEN_LIFE_DEFAULT_S: Final = 7 * 86_400
TOKEN_LIFE_MAX_S: Final = 90 * 86_400


class DeviceSignInBegin(Input, frozen=True):
    """A terminal that somebody wants to sign in: what its token is called, may do, and how long it works.

    Without ``scopes`` it may do all that the person may.
    """

    name: Name
    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=9)] | None = None
    expires_in_s: Annotated[int, Meta(ge=60, le=TOKEN_LIFE_MAX_S)] = TOKEN_LIFE_DEFAULT_S


class PasswordLogin(Input, frozen=True):
    """The same by address and password, for a terminal without a browser."""

    email: Email
    password: Password
    name: Name
    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=9)] | None = None
    expires_in_s: Annotated[int, Meta(ge=60, le=TOKEN_LIFE_MAX_S)] = TOKEN_LIFE_DEFAULT_S


class DeviceSignInBegun(Output, frozen=True):
    """What the person opens and types, and what the terminal asks with, every ``interval_s``."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in_s: int
    interval_s: int


class DeviceCollect(Input, frozen=True):
    """The terminal's own secret (``ghd_…``)."""

    device_code: Annotated[str, Meta(min_length=1, max_length=128)]


class DevicePending(Output, frozen=True):
    """Nobody has answered yet; ask again in ``interval_s``."""

    interval_s: int


class DeviceSignInShown(Output, frozen=True):
    """A terminal that waits: check that it is yours. ``scopes`` null asks for all that you may do."""

    user_code: str
    name: str
    address: str | None
    scopes: list[ScopeName] | None
    token_life_s: int
    asked_at: str
    expires_at: str
