"""What a caller may be granted: scopes, the roles of people with theirs, and what a route asks for. Runs in the hub."""

from enum import StrEnum
from typing import Final

__all__ = ["ALL_SCOPES", "ROLE_SCOPES", "WHOLE_ACCOUNT_SCOPES", "Access", "Role", "Scope"]


class Scope(StrEnum):
    """What an API token may do. ``admin`` contains the others and grants what it has not itself."""

    ENV_READ = "env:read"
    ENV_WRITE = "env:write"
    TASKS_READ = "tasks:read"
    TASKS_RUN = "tasks:run"
    TOKENS_WRITE = "tokens:write"
    APPROVALS_READ = "approvals:read"
    APPROVALS_DECIDE = "approvals:decide"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


ALL_SCOPES: Final = frozenset(Scope)
# What is about the whole account: for no member, and for no token that is narrowed to some environments.
WHOLE_ACCOUNT_SCOPES: Final = frozenset({Scope.ADMIN, Scope.METRICS_READ})


class Role(StrEnum):
    """What a person is in the account. Only an owner makes, changes or disables owners."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


# A member's share is narrowed further by what a route is about (`guardhouse.hub.concerns`).
ROLE_SCOPES: Final[dict[Role, frozenset[Scope]]] = {
    Role.OWNER: ALL_SCOPES,
    Role.ADMIN: ALL_SCOPES,
    Role.MEMBER: ALL_SCOPES - WHOLE_ACCOUNT_SCOPES,
}


class Access(StrEnum):
    """What a route asks for where it is not a scope."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"
    RUNNER = "runner"
