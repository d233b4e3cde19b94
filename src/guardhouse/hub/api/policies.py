"""Routes of an environment's policy: what the hub asks its runner to take away from its own. Runs in the hub."""

import json
from typing import Final

import trio
from sqlalchemy import Connection

from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.schemas_policy import EnvironmentPolicyView, PolicyPut
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.store import audit, policies
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.policy import Policy, PolicyError, dump_policy, load_policy

__all__ = ["put_policy", "show_policy", "withdraw_policy"]

_NAME: Final = "hub policy"


def _environment(call: Call) -> EnvironmentRecord:
    if call.environment is None:
        raise environment_not_found(call.path["environment"])
    return call.environment


async def show_policy(call: Call) -> Reply:
    """Answer the environment's policy."""
    found = _environment(call)
    policy = await call.services.database.read(lambda c: policies.find_policy(c, found.id))
    if policy is None:
        raise _no_policy(found)
    return Reply(_view(call, policy))


def _no_policy(environment: EnvironmentRecord) -> ApiError:
    return ApiError(
        404, "policy_not_found", f"{environment.shown_name!r} has no policy of the hub's", hint="its runner's own holds"
    )


async def put_policy(call: Call) -> Reply:
    """Store a policy and send it to the runner, where one is connected."""
    body: PolicyPut = call.body
    found = _environment(call)
    policy = await trio.to_thread.run_sync(_load, body.document)
    record = policies.EnvironmentPolicy(
        environment_id=found.id,
        policy_id=mint_id("pol"),
        document=body.document,
        dumped=json.dumps(dump_policy(policy), separators=(",", ":")),
        digest=policy.digest,
        set_ms=now_ms(),
        set_by=call.actor.id,
    )

    def store(connection: Connection) -> None:
        policies.store_policy(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=record.set_ms,
            actor=call.actor.id,
            action="environment.policy.set",
            target=found.id,
            address=call.address,
            policy_id=record.policy_id,
            digest=record.digest,
        )

    await call.services.database.write(store)
    call.services.links.send_policy(found.id, record)
    return Reply(_view(call, record))


def _load(document: str) -> Policy:
    try:
        return load_policy(document, name=_NAME)
    except PolicyError as error:
        raise ApiError(
            400, "invalid_policy", str(error), hint="'guardhouse policy check FILE' says the same of a file"
        ) from None


async def withdraw_policy(call: Call) -> Reply:
    """Remove the policy and have the runner withdraw it."""
    found = _environment(call)
    at_ms = now_ms()

    def remove(connection: Connection) -> bool:
        if not policies.remove_policy(connection, found.id):
            return False
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="environment.policy.withdraw",
            target=found.id,
            address=call.address,
        )
        return True

    if not await call.services.database.write(remove):
        raise _no_policy(found)
    call.services.links.send_policy(found.id, None)
    return Reply(None, status=204)


def _view(call: Call, policy: policies.EnvironmentPolicy) -> EnvironmentPolicyView:
    return EnvironmentPolicyView(
        policy_id=policy.policy_id,
        document=policy.document,
        digest=policy.digest,
        state=policy.state,
        error=policy.error,
        set_at=iso_time(policy.set_ms) or "",
        set_by=policy.set_by,
        answered_at=iso_time(policy.answered_ms) if policy.answered_ms is not None else None,
        reported_digest=call.services.links.reported_policy(policy.environment_id),
    )
