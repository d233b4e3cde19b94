"""What the operator says about the identity provider: one frozen value, checked before anything is served.

Knows nothing of the provider's own answers (`guardhouse.hub.oidc.provider`). Runs in the hub, at start.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from guardhouse.errors import SetupError

__all__ = ["ClaimMap", "OidcSettings", "is_allowed_url", "parse_claim_map", "parse_oidc"]

SECRET_MAX_BYTES: Final = 4_096
_DOMAIN: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
DEFAULT_SCOPES: Final = ("openid", "email", "profile")


@dataclass(frozen=True)
class ClaimMap:
    """What a value of the groups claim gives: role ``admin``, or the team of this name or id."""

    value: str
    admin: bool
    team: str | None


@dataclass(frozen=True, kw_only=True)
class OidcSettings:
    """One identity provider.

    Attributes:
        issuer: exactly as its tokens say it.
        client_id, client_secret: this hub's registration there; without a secret PKCE alone proves who asks.
        scopes: asked for at sign-in; ``openid`` is among them.
        domains: e-mail domains whose people may be let in; empty: all that the provider knows.
        provision: ``member`` makes unknown people members at their first sign-in; ``off`` refuses them.
        groups_claim: the claim of the ID token or of userinfo whose values ``maps`` speaks of.
        access_tokens: whether JWT access tokens of this provider are taken at the API and at ``/mcp``.
        ca_file: the CA that signed the provider's certificate; None: the system's.
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    domains: tuple[str, ...] = ()
    provision: Literal["off", "member"] = "off"
    groups_claim: str = "groups"
    maps: tuple[ClaimMap, ...] = ()
    access_tokens: bool = False
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if not is_allowed_url(self.issuer) or len(self.issuer) > 512:
            raise SetupError(
                f"--oidc-issuer {self.issuer!r} must be an https:// address without user, query and fragment"
                " (http:// on loopback only)"
            )
        if not self.client_id or len(self.client_id) > 256 or not self.client_id.isprintable():
            raise SetupError(f"--oidc-client-id {self.client_id!r} is no client id; the provider shows it")
        for scope in self.scopes:
            if not _SCOPE.fullmatch(scope):
                raise SetupError(f"--oidc-scope {scope!r} is no OAuth scope; give one word for each")
        if "openid" not in self.scopes:
            raise SetupError("--oidc-scope: 'openid' must be among the scopes, or no ID token comes")
        for domain in self.domains:
            if not _DOMAIN.fullmatch(domain):
                raise SetupError(f"--oidc-domain {domain!r} is no domain like example.com, in lower case")


def is_allowed_url(url: str) -> bool:
    """Return whether the hub may send something secret to ``url``: https, or plain http to a loopback address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or "?" in url or "#" in url:
        return False
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_claim_map(text: str) -> ClaimMap:
    """Return ``VALUE=admin`` or ``VALUE=team:NAME`` as a map.

    Raises:
        SetupError: it is neither. An owner is made by owners only, never by a claim.
    """
    value, equals, wanted = text.rpartition("=")
    team = wanted.removeprefix("team:") if wanted.startswith("team:") else None
    if not equals or not value or not (wanted == "admin" or team):
        raise SetupError(f"--oidc-map {text!r} is not VALUE=admin or VALUE=team:NAME")
    return ClaimMap(value, admin=wanted == "admin", team=team)


def parse_oidc(
    issuer: str,
    client_id: str | None,
    secret_file: Path | None,
    *,
    scopes: Iterable[str],
    domains: Iterable[str],
    provision: Literal["off", "member"],
    groups_claim: str,
    maps: Iterable[str],
    access_tokens: bool,
    ca_file: Path | None,
) -> OidcSettings:
    """Return the settings that flags and environment name.

    Raises:
        SetupError: one cannot be used, or the secret's file cannot be read or is open to others.
    """
    if client_id is None:
        raise SetupError("--oidc-issuer needs --oidc-client-id: how the provider knows this hub")
    return OidcSettings(
        issuer=issuer,
        client_id=client_id,
        client_secret=None if secret_file is None else _read_secret(secret_file),
        scopes=tuple(dict.fromkeys(scopes)) or DEFAULT_SCOPES,
        domains=tuple(domain.lower() for domain in domains),
        provision=provision,
        groups_claim=groups_claim,
        maps=tuple(parse_claim_map(text) for text in maps),
        access_tokens=access_tokens,
        ca_file=ca_file,
    )


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if path.stat().st_mode & 0o007:
                raise SetupError(f"--oidc-client-secret-file {str(path)!r} is open to everybody; run: chmod 0600 on it")
            content = file.read(SECRET_MAX_BYTES + 1).strip()
    except OSError as error:
        raise SetupError(f"--oidc-client-secret-file {str(path)!r} cannot be read: {error.strerror}") from error
    if not content or len(content) > SECRET_MAX_BYTES or not content.isascii():
        raise SetupError(f"--oidc-client-secret-file {str(path)!r} holds no secret of printable characters")
    return content.decode("ascii")
