"""Who asks, and whether they may: API tokens and sign-ins to principals, and the one check that every route passes.

The table itself is `guardhouse.hub.api.routes`: each row names the access that it needs, and what it is about
(`guardhouse.hub.concerns`). Knows nothing of HTTP. Runs in the hub.
"""

from guardhouse.hub.authorize.credentials import SIGN_IN_ABSOLUTE_MS, Credentials
from guardhouse.hub.authorize.principal import (
    AccessDenied,
    AuthenticationFailed,
    Principal,
    TooManyGuesses,
    check_access,
    check_grant,
)
from guardhouse.hub.authorize.scopes import ALL_SCOPES, ROLE_SCOPES, WHOLE_ACCOUNT_SCOPES, Access, Role, Scope

__all__ = [
    "ALL_SCOPES",
    "ROLE_SCOPES",
    "SIGN_IN_ABSOLUTE_MS",
    "WHOLE_ACCOUNT_SCOPES",
    "Access",
    "AccessDenied",
    "AuthenticationFailed",
    "Credentials",
    "Principal",
    "Role",
    "Scope",
    "TooManyGuesses",
    "check_access",
    "check_grant",
]
