"""Access tokens of the identity provider as principals: the hub as an OAuth 2.1 resource server. Runs in the hub.

The hub's REST interface and `/mcp` are one resource server: a token made for either address (RFC 8707) is taken at
both, since every tool of `/mcp` asks the REST interface with the caller's own token. A token never does more than its
person could: scopes of the token, cut by the person's role.
"""

from typing import TYPE_CHECKING, Any, Final

import structlog

from guardhouse.hub.authorize import ROLE_SCOPES, AuthenticationFailed, Principal, Role, Scope
from guardhouse.hub.credentials import token_digest
from guardhouse.hub.oidc.tokens import TokenRefused, check_access_token

if TYPE_CHECKING:
    from guardhouse.hub.services import Services

__all__ = ["access_principal", "read_scopes", "resources_of"]

_log = structlog.get_logger("guardhouse.hub.oidc")

_SCOPES: Final = frozenset(scope.value for scope in Scope)
_REFUSED: Final = "access token not valid here: expired, for another resource, or of nobody known"


def resources_of(public_url: str) -> tuple[str, str]:
    """Return the addresses that an access token may be made for: the hub's, and its MCP server's."""
    return public_url, f"{public_url}/mcp"


def read_scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    """Return the scopes of ours in a token's ``scope`` (RFC 9068) or ``scp``; others are other resources' business."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(one for one in value if isinstance(one, str))
    return frozenset(Scope(one) for one in found & _SCOPES)


async def access_principal(services: "Services", token: str, *, now_ms: int, address: str | None) -> Principal:
    """Return whose access token this is.

    Raises:
        AuthenticationFailed: none that counts here. The log has the reason.
        TooManyGuesses: too many wrong ones came from there; it was not looked at.
        ProviderUnavailable: the provider's keys cannot be had.
    """
    provider, credentials = services.provider, services.credentials
    if provider is None or not provider.settings.access_tokens:
        raise AuthenticationFailed("this hub takes no access tokens of a provider; use an API token (ght_…)")
    digest = token_digest(token)
    source = credentials.check_may_guess(digest, address=address)
    settings = provider.settings
    try:
        claims = await provider.with_keys(
            lambda keys: check_access_token(
                token,
                keys,
                issuer=settings.issuer,
                audiences=resources_of(services.public_url),
                now_s=now_ms / 1000,
            )
        )
        person = credentials.person_by_subject(issuer=settings.issuer, subject=claims["sub"])
        if person is None or person.disabled_ms is not None:
            raise TokenRefused("the token's subject has not signed in here, or is disabled")
    except TokenRefused as error:
        _log.warning("access_token_refused", address=address, reason=str(error))
        credentials.note_guess(source, digest, right=False)
        raise AuthenticationFailed(_REFUSED) from error
    credentials.note_guess(source, digest, right=True)
    own = ROLE_SCOPES[Role(person.role)]
    scopes = read_scopes(claims)
    return Principal(
        id=person.id,
        name=person.name,
        scopes=own if Scope.ADMIN in scopes else scopes & own,
        expires_ms=int(claims["exp"] * 1000),
        person=person,
        teams=credentials.teams_of(person.id),
    )
