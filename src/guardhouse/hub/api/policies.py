"""Routes of the hub's policies: what it asks runners to take away from their own, for the account, a team, one host.

Runs in the hub.
"""

import json
from functools import partial
from typing import Final

import trio
from sqlalchemy import Connection

from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.schemas_policy import (
    EnvironmentPolicyView,
    HeldPolicy,
    HeldPolicyList,
    PolicyPut,
    PolicyRefusal,
    PolicyStates,
    SharedPolicyView,
)
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.schema import ACCOUNT_ID
from guardhouse.hub.store import audit, policies, teams
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.policies import HubPolicyRecord, PolicyAnswerRecord, PolicyOwner
from guardhouse.policy import Policy, PolicyError, dump_policy, load_policy
from guardhouse.wire.messages_v1 import PolicyLayer

__all__ = [
    "list_held_policies",
    "put_account_policy",
    "put_policy",
    "put_team_policy",
    "show_account_policy",
    "show_policy",
    "show_team_policy",
    "withdraw_account_policy",
    "withdraw_policy",
    "withdraw_team_policy",
]

# What places in messages begin with.
_NAMES: Final = {
    PolicyLayer.ACCOUNT: "account policy",
    PolicyLayer.TEAM: "team policy",
    PolicyLayer.ENVIRONMENT: "hub policy",
}
_REFUSALS_SHOWN: Final = 50


def _environment(call: Call) -> EnvironmentRecord:
    if call.environment is None:
        raise environment_not_found(call.path["environment"])
    return call.environment


async def _team(call: Call) -> teams.TeamRecord:
    reference = call.path["team"]
    found = await call.services.database.read(partial(teams.find_team, id_or_name=reference))
    if found is None:
        raise ApiError(404, "team_not_found", f"no team {reference!r}", hint="'guardhouse team list' shows them all")
    return found


# An environment's.


async def show_policy(call: Call) -> Reply:
    """Answer the environment's policy."""
    found = _environment(call)
    owner = PolicyOwner(environment_id=found.id)

    def read(connection: Connection) -> tuple[HubPolicyRecord, list[PolicyAnswerRecord]] | None:
        policy = policies.find_policy(connection, owner)
        if policy is None:
            return None
        return policy, policies.list_answers(connection, policy_ids=[policy.policy_id], environment_id=found.id)

    known = await call.services.database.read(read)
    if known is None:
        raise _no_policy(f"environment {found.shown_name!r}")
    policy, answers = known
    return Reply(_view(call, policy, answers[0] if answers else None))


async def put_policy(call: Call) -> Reply:
    """Store an environment's policy and send it to the runner, where one is connected."""
    record = await _put(call, PolicyOwner(environment_id=_environment(call).id))
    return Reply(_view(call, record, None))


async def withdraw_policy(call: Call) -> Reply:
    """Remove an environment's policy and have the runner withdraw it."""
    found = _environment(call)
    return await _withdraw(call, PolicyOwner(environment_id=found.id), whose=f"environment {found.shown_name!r}")


async def list_held_policies(call: Call) -> Reply:
    """Answer every policy of the hub's that holds for an environment, with what its runner said of each."""
    found = _environment(call)

    def read(connection: Connection) -> tuple[list[HubPolicyRecord], list[PolicyAnswerRecord]]:
        wanted = policies.list_policies_for(connection, environment_id=found.id, team_id=found.team_id)
        ids = [one.policy_id for one in wanted]
        return wanted, policies.list_answers(connection, policy_ids=ids, environment_id=found.id)

    wanted, answers = await call.services.database.read(read)
    said = {one.policy_id: one for one in answers}
    report = call.services.links.reported_policy(found.id)
    held = {one.policy_id for one in report.hub_policies or ()} if report is not None else set()
    return Reply(
        HeldPolicyList(
            policies=[_held_view(one, said.get(one.policy_id), held=one.policy_id in held) for one in wanted],
            policy_name=report.policy_name if report is not None else None,
            policy_digest=report.policy_digest if report is not None else None,
        )
    )


# The account's and a team's.


async def show_account_policy(call: Call) -> Reply:
    """Answer the account's policy."""
    return await _show_shared(call, PolicyOwner(), whose="the account")


async def put_account_policy(call: Call) -> Reply:
    """Store the account's policy and send it to every runner that is connected."""
    return await _put_shared(call, PolicyOwner(), whose="the account")


async def withdraw_account_policy(call: Call) -> Reply:
    """Remove the account's policy and have every runner withdraw it."""
    return await _withdraw(call, PolicyOwner(), whose="the account")


async def show_team_policy(call: Call) -> Reply:
    """Answer a team's policy."""
    team = await _team(call)
    return await _show_shared(call, PolicyOwner(team_id=team.id), whose=f"team {team.name!r}")


async def put_team_policy(call: Call) -> Reply:
    """Store a team's policy and send it to the runners of its environments."""
    team = await _team(call)
    return await _put_shared(call, PolicyOwner(team_id=team.id), whose=f"team {team.name!r}")


async def withdraw_team_policy(call: Call) -> Reply:
    """Remove a team's policy and have the runners of its environments withdraw it."""
    team = await _team(call)
    return await _withdraw(call, PolicyOwner(team_id=team.id), whose=f"team {team.name!r}")


async def _put_shared(call: Call, owner: PolicyOwner, *, whose: str) -> Reply:
    await _put(call, owner)
    return await _show_shared(call, owner, whose=whose)


async def _show_shared(call: Call, owner: PolicyOwner, *, whose: str) -> Reply:
    def read(connection: Connection) -> tuple[HubPolicyRecord, list[PolicyAnswerRecord], int] | None:
        policy = policies.find_policy(connection, owner)
        if policy is None:
            return None
        answers = policies.list_answers(connection, policy_ids=[policy.policy_id])
        return policy, answers, len(policies.concerned_environments(connection, owner))

    known = await call.services.database.read(read)
    if known is None:
        raise _no_policy(whose)
    policy, answers, concerned = known
    refused = [one for one in answers if one.state == "refused"]
    return Reply(
        SharedPolicyView(
            layer="account" if policy.layer is PolicyLayer.ACCOUNT else "team",
            policy_id=policy.policy_id,
            document=policy.document,
            digest=policy.digest,
            set_at=iso_time(policy.set_ms) or "",
            set_by=policy.set_by,
            states=PolicyStates(
                pending=max(0, concerned - len(answers)), in_force=len(answers) - len(refused), refused=len(refused)
            ),
            refusals=[
                PolicyRefusal(environment_id=one.environment_id, error=one.error) for one in refused[:_REFUSALS_SHOWN]
            ],
            refusals_left_out=max(0, len(refused) - _REFUSALS_SHOWN),
        )
    )


# What they share.


async def _put(call: Call, owner: PolicyOwner) -> HubPolicyRecord:
    body: PolicyPut = call.body
    policy = await trio.to_thread.run_sync(_load, body.document, owner.layer)
    record = HubPolicyRecord(
        policy_id=mint_id("pol"),
        layer=owner.layer,
        environment_id=owner.environment_id,
        team_id=owner.team_id,
        document=body.document,
        dumped=json.dumps(dump_policy(policy), separators=(",", ":")),
        digest=policy.digest,
        set_ms=now_ms(),
        set_by=call.actor.id,
    )

    def store(connection: Connection) -> list[str]:
        policies.store_policy(connection, record)
        concerned = policies.concerned_environments(connection, owner)
        audit.record_audit_event(
            connection,
            at_ms=record.set_ms,
            actor=call.actor.id,
            action=f"{owner.layer}.policy.set",
            target=_target(owner),
            environment=owner.environment_id,
            address=call.address,
            policy_id=record.policy_id,
            digest=record.digest,
            environments=len(concerned),
        )
        return concerned

    for environment_id in await call.services.database.write(store):
        call.services.links.send_policy(environment_id, owner.layer, record)
    return record


def _load(document: str, layer: PolicyLayer) -> Policy:
    try:
        return load_policy(document, name=_NAMES[layer])
    except PolicyError as error:
        raise ApiError(
            400, "invalid_policy", str(error), hint="'guardhouse policy check FILE' says the same of a file"
        ) from None


async def _withdraw(call: Call, owner: PolicyOwner, *, whose: str) -> Reply:
    at_ms = now_ms()

    def remove(connection: Connection) -> list[str] | None:
        if not policies.remove_policy(connection, owner):
            return None
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action=f"{owner.layer}.policy.withdraw",
            target=_target(owner),
            environment=owner.environment_id,
            address=call.address,
        )
        return policies.concerned_environments(connection, owner)

    concerned = await call.services.database.write(remove)
    if concerned is None:
        raise _no_policy(whose)
    for environment_id in concerned:
        call.services.links.send_policy(environment_id, owner.layer, None)
    return Reply(None, status=204)


def _target(owner: PolicyOwner) -> str:
    return owner.environment_id or owner.team_id or ACCOUNT_ID


def _no_policy(whose: str) -> ApiError:
    return ApiError(404, "policy_not_found", f"{whose} has no policy of the hub's", hint="the runners' own hold")


def _view(call: Call, policy: HubPolicyRecord, answer: PolicyAnswerRecord | None) -> EnvironmentPolicyView:
    report = call.services.links.reported_policy(policy.environment_id or "")
    return EnvironmentPolicyView(
        policy_id=policy.policy_id,
        document=policy.document,
        digest=policy.digest,
        state=answer.state if answer is not None else "pending",
        error=answer.error if answer is not None else None,
        set_at=iso_time(policy.set_ms) or "",
        set_by=policy.set_by,
        answered_at=iso_time(answer.answered_ms) if answer is not None else None,
        reported_digest=report.narrowing_digest if report is not None else None,
    )


def _held_view(policy: HubPolicyRecord, answer: PolicyAnswerRecord | None, *, held: bool) -> HeldPolicy:
    return HeldPolicy(
        layer=policy.layer.value,
        policy_id=policy.policy_id,
        digest=policy.digest,
        state=answer.state if answer is not None else "pending",
        error=answer.error if answer is not None else None,
        held=held,
        set_at=iso_time(policy.set_ms) or "",
        set_by=policy.set_by,
        answered_at=iso_time(answer.answered_ms) if answer is not None else None,
    )
