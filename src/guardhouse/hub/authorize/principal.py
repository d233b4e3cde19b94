"""Who asks, and whether they may: the check before every route, and the one before every new token. Runs in the hub."""

from dataclasses import dataclass

from guardhouse.errors import Refusal
from guardhouse.hub.authorize.scopes import WHOLE_ACCOUNT_SCOPES, Access, Role, Scope
from guardhouse.hub.store.people import PersonRecord

__all__ = ["AccessDenied", "AuthenticationFailed", "Principal", "TooManyGuesses", "check_access", "check_grant"]


class AuthenticationFailed(Refusal):
    """No token, or one that is unknown, expired or revoked. The text does not say which."""


class TooManyGuesses(Refusal):
    """The source has presented too many wrong tokens; this one was not looked at."""


class AccessDenied(Refusal):
    """A known caller lacks the scope."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who asks. ``id`` is what `created_by` and the audit log store.

    Attributes:
        scopes: what they may do at most; a token of a person has no more than that person's role.
        person: whose token or sign-in it is; None for a token of the account.
        teams: of the person.
        environments, tags: what a narrowed token is for: environments named by id, or with one of the tags.
        sign_in_id: of the browser's sign-in, None for a token.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    expires_ms: int | None = None
    person: PersonRecord | None = None
    teams: frozenset[str] = frozenset()
    environments: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    sign_in_id: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether they may change everything in the account, within a narrowed token's limits."""
        return Scope.ADMIN in self.scopes

    @property
    def is_owner(self) -> bool:
        """Whether they may change owners: an owner, or the account's own token of scope ``admin``."""
        return self.is_admin and (self.person is None or self.person.role == Role.OWNER)

    @property
    def is_narrowed(self) -> bool:
        """Whether it is a token for some environments only."""
        return self.environments is not None or self.tags is not None


def check_access(principal: Principal | None, access: Scope | Access) -> None:
    """Refuse unless ``principal`` may use a route that asks for ``access``.

    Raises:
        AuthenticationFailed: nobody asks, and the route is not public.
        AccessDenied: the scope is missing, or a narrowed token asks for what is the whole account's.
    """
    if access is Access.PUBLIC:
        return
    if principal is None or access is Access.RUNNER:
        raise AuthenticationFailed("this needs an API token: send 'Authorization: Bearer ght_…', or sign in")
    if access in WHOLE_ACCOUNT_SCOPES and principal.is_narrowed:
        raise AccessDenied(f"{principal.name!r} is a token for some environments only, and this is the whole account's")
    if access is Access.AUTHENTICATED or Scope.ADMIN in principal.scopes or access in principal.scopes:
        return
    raise AccessDenied(f"{principal.name!r} lacks the scope {access.value!r}")


def check_grant(principal: Principal, scopes: frozenset[Scope]) -> None:
    """Refuse unless ``principal`` may hand ``scopes`` to a new token: nobody gives what they do not have.

    Raises:
        AccessDenied: a scope is not the principal's own.
    """
    if Scope.ADMIN in principal.scopes:
        return
    missing = sorted(scopes - principal.scopes)
    if missing:
        raise AccessDenied(f"{principal.name!r} cannot grant what it lacks: {', '.join(missing)}")
