"""What the routes of signing in through an identity provider take and give. Runs in the hub."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from guardhouse.hub.api.schemas import Input, Output

__all__ = ["LinkBegun", "OidcBegin", "OidcCallback", "SignInMethods"]

_Text = Annotated[str, Meta(max_length=2_048)]


class OidcBegin(Input, frozen=True):
    """Which page of the hub the browser goes to once it is signed in; without it, the first one."""

    to: Literal["device"] | None = None


class OidcCallback(Struct, frozen=True, kw_only=True):
    """What a provider sends a browser back with; members that are not known here are its own business."""

    state: Annotated[str, Meta(max_length=512)] = ""
    code: _Text | None = None
    iss: _Text | None = None
    error: _Text | None = None
    error_description: _Text | None = None


class SignInMethods(Output, frozen=True):
    """How people sign in: ``oidc_issuer`` is there where ``GET /api/v1/sign-in/oidc`` leads to a provider."""

    password: bool
    oidc_issuer: str | None


class LinkBegun(Output, frozen=True):
    """Where one's own browser goes next."""

    url: str
