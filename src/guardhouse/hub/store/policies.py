"""The hub's policies, which narrow what runners' own allow: of the account, of a team, of an environment.

Beside them what each runner said of each. Runs in store threads.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, or_, select, update

from guardhouse.hub.schema import environments, hub_policies, hub_policy_answers
from guardhouse.wire.messages_v1 import PolicyLayer

__all__ = [
    "HubPolicyRecord",
    "PolicyAnswerRecord",
    "PolicyOwner",
    "concerned_environments",
    "find_policy",
    "list_answers",
    "list_policies_for",
    "record_policy_answer",
    "remove_policy",
    "store_policy",
]


class PolicyOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a policy is for: an environment, a team with all its environments, or with neither the account."""

    environment_id: str | None = None
    team_id: str | None = None

    @property
    def layer(self) -> PolicyLayer:
        """Which layer that is."""
        if self.environment_id is not None:
            return PolicyLayer.ENVIRONMENT
        return PolicyLayer.ACCOUNT if self.team_id is None else PolicyLayer.TEAM


class HubPolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``document`` is as a person wrote it, ``dumped`` JSON text of `guardhouse.policy.dump_policy`."""

    policy_id: str
    layer: PolicyLayer
    environment_id: str | None
    team_id: str | None
    document: str
    dumped: str
    digest: str
    set_ms: int
    set_by: str


class PolicyAnswerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment's runner said of a policy last. No row: it has not answered."""

    environment_id: str
    policy_id: str
    state: Literal["in_force", "refused"]
    answered_ms: int
    error: str | None = None


_COLUMNS = [hub_policies.c[name] for name in HubPolicyRecord.__struct_fields__]
_ANSWER_COLUMNS = [hub_policy_answers.c[name] for name in PolicyAnswerRecord.__struct_fields__]


def _record(row: RowMapping) -> HubPolicyRecord:
    return HubPolicyRecord(**{**row, "layer": PolicyLayer(row["layer"])})


def _is_of(owner: PolicyOwner) -> ColumnElement[bool]:
    columns = hub_policies.c
    match owner.layer:
        case PolicyLayer.ENVIRONMENT:
            return columns.environment_id == owner.environment_id
        case PolicyLayer.TEAM:
            return columns.team_id == owner.team_id
        case PolicyLayer.ACCOUNT:
            return columns.layer == PolicyLayer.ACCOUNT.value


def find_policy(connection: Connection, owner: PolicyOwner) -> HubPolicyRecord | None:
    """Return the owner's policy, or None."""
    row = connection.execute(select(*_COLUMNS).where(_is_of(owner))).mappings().first()
    return _record(row) if row is not None else None


def list_policies_for(connection: Connection, *, environment_id: str, team_id: str | None) -> list[HubPolicyRecord]:
    """Return every policy that an environment's runner is to hold, the widest layer first."""
    columns = hub_policies.c
    wanted = [columns.layer == PolicyLayer.ACCOUNT.value, columns.environment_id == environment_id]
    if team_id is not None:
        wanted.append(columns.team_id == team_id)
    rows = connection.execute(select(*_COLUMNS).where(or_(*wanted))).mappings()
    order = list(PolicyLayer)
    return sorted((_record(row) for row in rows), key=lambda record: order.index(record.layer))


def store_policy(connection: Connection, policy: HubPolicyRecord) -> None:
    """Store a policy in the place of the one before."""
    remove_policy(connection, PolicyOwner(environment_id=policy.environment_id, team_id=policy.team_id))
    values = {**msgspec.structs.asdict(policy), "layer": policy.layer.value}
    connection.execute(insert(hub_policies).values(**values))


def remove_policy(connection: Connection, owner: PolicyOwner) -> bool:
    """Remove the owner's policy with all that was answered to it; return whether there was one."""
    found = find_policy(connection, owner)
    if found is None:
        return False
    connection.execute(delete(hub_policy_answers).where(hub_policy_answers.c.policy_id == found.policy_id))
    connection.execute(delete(hub_policies).where(hub_policies.c.policy_id == found.policy_id))
    return True


def concerned_environments(connection: Connection, owner: PolicyOwner) -> list[str]:
    """Return the ids of the environments whose runners are to hold the owner's policy."""
    query = select(environments.c.id)
    if owner.environment_id is not None:
        query = query.where(environments.c.id == owner.environment_id)
    elif owner.team_id is not None:
        query = query.where(environments.c.team_id == owner.team_id)
    return list(connection.execute(query.order_by(environments.c.id)).scalars())


def list_answers(
    connection: Connection, *, policy_ids: Sequence[str], environment_id: str | None = None
) -> list[PolicyAnswerRecord]:
    """Return what runners said of these policies, of one environment or of all."""
    columns = hub_policy_answers.c
    query = select(*_ANSWER_COLUMNS).where(columns.policy_id.in_(policy_ids))
    if environment_id is not None:
        query = query.where(columns.environment_id == environment_id)
    rows = connection.execute(query.order_by(columns.environment_id)).mappings()
    return [PolicyAnswerRecord(**row) for row in rows]


def record_policy_answer(connection: Connection, answer: PolicyAnswerRecord, *, team_id: str | None) -> bool:
    """Store what a runner said of a policy; False where that is known already, or it is none of its policies.

    ``team_id`` is that of the answer's environment.
    """
    columns = hub_policy_answers.c
    wanted = list_policies_for(connection, environment_id=answer.environment_id, team_id=team_id)
    if all(one.policy_id != answer.policy_id for one in wanted):
        return False
    here = and_(columns.environment_id == answer.environment_id, columns.policy_id == answer.policy_id)
    known = connection.execute(select(columns.state, columns.error).where(here)).first()
    if known is None:
        connection.execute(insert(hub_policy_answers).values(**msgspec.structs.asdict(answer)))
        return True
    if tuple(known) == (answer.state, answer.error):
        return False
    values = {"state": answer.state, "error": answer.error, "answered_ms": answer.answered_ms}
    connection.execute(update(hub_policy_answers).where(here).values(**values))
    return True
