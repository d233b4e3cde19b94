"""Whether somebody who asked for tasks to be started later, or many of them, still may. Runs in the hub."""

from guardhouse.hub.authorize import Credentials, Principal, Scope, check_access
from guardhouse.hub.concerns import check_runs
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = ["check_still_may"]


def check_still_may(
    credentials: Credentials, actor_id: str, environment: EnvironmentRecord, *, now_ms: int
) -> Principal:
    """Return who asked, as they are now, when they still may run in ``environment``.

    Raises:
        AuthenticationFailed: the token was revoked or is over, or the person was disabled.
        AccessDenied: it lost the scope.
        NotVisible: it is narrowed to other environments.
    """
    principal = credentials.standing(actor_id, now_ms=now_ms)
    check_access(principal, Scope.TASKS_RUN)
    check_runs(principal, environment)
    return principal
