"""What only browsers send: the sign-in's cookie, and where a request was made from.

A cookie travels with requests that another site's page makes, so a request that changes something counts only when the
browser says that our own page made it (Fetch Metadata, or the Origin header). Runs in the hub.
"""

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import SIGN_IN_ABSOLUTE_MS
from guardhouse.hub.credentials import SIGN_IN_PREFIX
from guardhouse.hub.oidc.flow import FLOW_VALID_MS

__all__ = [
    "check_same_site",
    "clear_cookie",
    "clear_flow_cookie",
    "cookie_name",
    "flow_cookie",
    "flow_cookie_name",
    "sign_in_cookie",
    "sign_in_secret",
]

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


def cookie_name(public_url: str) -> str:
    """Return the cookie's name; over TLS its prefix keeps other hosts and plain HTTP from setting it (RFC 6265bis)."""
    return "__Host-guardhouse" if public_url.startswith("https:") else "guardhouse"


def sign_in_cookie(public_url: str, secret: str) -> str:
    """Return the value of Set-Cookie for a sign-in."""
    secure = "; Secure" if public_url.startswith("https:") else ""
    age_s = SIGN_IN_ABSOLUTE_MS // 1000
    return f"{cookie_name(public_url)}={secret}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}"


def clear_cookie(public_url: str) -> str:
    """Return the value of Set-Cookie that ends a sign-in in the browser."""
    secure = "; Secure" if public_url.startswith("https:") else ""
    return f"{cookie_name(public_url)}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{secure}"


def flow_cookie_name(public_url: str) -> str:
    """Return the name of the cookie that carries a sign-in on its way through the identity provider."""
    return f"{cookie_name(public_url)}-flow"


def flow_cookie(public_url: str, value: str, *, age_s: int = FLOW_VALID_MS // 1000) -> str:
    """Return the value of Set-Cookie for it; Lax, because the provider sends the browser back from its own site."""
    secure = "; Secure" if public_url.startswith("https:") else ""
    return f"{flow_cookie_name(public_url)}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}"


def clear_flow_cookie(public_url: str) -> str:
    """Return the value of Set-Cookie that ends it."""
    return flow_cookie(public_url, "", age_s=0)


def sign_in_secret(request: Request, public_url: str) -> str | None:
    """Return the cookie's value, or None when none that could be ours came."""
    value = request.cookies.get(cookie_name(public_url))
    return value if value is not None and value.startswith(SIGN_IN_PREFIX) else None


def check_same_site(request: Request, public_url: str, *, has_cookie: bool) -> None:
    """Refuse a changing request that another site's page made, or, with the cookie, that may have been.

    Raises:
        ApiError: 403.
    """
    if request.method in SAFE_METHODS:
        return
    made_from = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    ours = "{0.scheme}://{0.netloc}".format(urlsplit(public_url))
    if made_from is not None:
        allowed = made_from == "same-origin" or (made_from == "none" and not has_cookie)
    elif origin is not None:
        allowed = origin == ours
    else:
        allowed = not has_cookie
    if not allowed:
        raise ApiError(
            403,
            "cross_site",
            f"this request was not made by a page of this hub ({origin or made_from or 'no origin'})",
            hint=f"open {ours}; programs send an API token instead of the cookie",
        )
