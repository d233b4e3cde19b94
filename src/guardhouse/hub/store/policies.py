"""The policy that narrows what an environment's own allows, and what its runner said of it. Runs in store threads."""

from typing import Literal

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from guardhouse.hub.schema import environment_policies

__all__ = ["EnvironmentPolicy", "find_policy", "record_policy_answer", "remove_policy", "store_policy"]


class EnvironmentPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``document`` is as a person wrote it, ``dumped`` JSON text of `guardhouse.policy.dump_policy`."""

    environment_id: str
    policy_id: str
    document: str
    dumped: str
    digest: str
    set_ms: int
    set_by: str
    state: Literal["pending", "in_force", "refused"] = "pending"
    answered_ms: int | None = None
    error: str | None = None


_COLUMNS = [environment_policies.c[name] for name in EnvironmentPolicy.__struct_fields__]


def find_policy(connection: Connection, environment_id: str) -> EnvironmentPolicy | None:
    """Return the environment's policy, or None."""
    query = select(*_COLUMNS).where(environment_policies.c.environment_id == environment_id)
    row = connection.execute(query).mappings().first()
    return EnvironmentPolicy(**row) if row is not None else None


def store_policy(connection: Connection, policy: EnvironmentPolicy) -> None:
    """Store a policy in the place of the one before."""
    remove_policy(connection, policy.environment_id)
    connection.execute(insert(environment_policies).values(**msgspec.structs.asdict(policy)))


def remove_policy(connection: Connection, environment_id: str) -> bool:
    """Remove the environment's policy; return whether there was one."""
    here = environment_policies.c.environment_id == environment_id
    return bool(connection.execute(delete(environment_policies).where(here)).rowcount)


def record_policy_answer(
    connection: Connection, environment_id: str, policy_id: str, *, accepted: bool, error: str, at_ms: int
) -> None:
    """Store what the runner said of a policy, unless another has taken its place since."""
    connection.execute(
        update(environment_policies)
        .where(
            environment_policies.c.environment_id == environment_id,
            environment_policies.c.policy_id == policy_id,
        )
        .values(state="in_force" if accepted else "refused", answered_ms=at_ms, error=None if accepted else error)
    )
