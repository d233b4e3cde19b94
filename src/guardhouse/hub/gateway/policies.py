"""One connection's part in the hub's policies: sent when they are set, sent again when the runner reports others.

Knows the session's messages and the store; knows no frames. Runs in the hub.
"""

from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import Connection

from guardhouse.hub.audit.policies import policies_of_report
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import audit, policies
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.policies import HubPolicyRecord, PolicyAnswerRecord
from guardhouse.wire.messages_v1 import HubPolicyHeld, PolicyAnswer, PolicyLayer, PolicyReport, PolicySet
from guardhouse.wire.session import HubSession

__all__ = ["PolicyCourier"]

_log = structlog.get_logger("guardhouse.hub.gateway")

# Withdrawals whose answer is waited for; a runner that answers none must not fill the memory.
_WITHDRAWALS_MAX: Final = 64
_TOO_OLD: Final = "this runner knows no policies for an account or a team; bring it to this hub's version"


class PolicyCourier:
    """Keeps what one runner holds of the hub's policies what the store says it should be."""

    def __init__(self, session: HubSession, database: Database, *, environment: EnvironmentRecord) -> None:
        self._session = session
        self._database = database
        self._environment_id = environment.id
        self._team_id = environment.team_id
        self.report: PolicyReport | None = None
        self._withdrawals: dict[str, PolicyLayer] = {}

    def send(self, layer: PolicyLayer, policy: HubPolicyRecord | None) -> bool:
        """Queue a layer's policy, or its withdrawal; False where the runner cannot be told now."""
        if layer is not PolicyLayer.ENVIRONMENT and not self._knows_layers:
            return False
        if policy is None:
            withdrawal = PolicySet(policy_id=mint_id("pol"), layer=layer)
            self._withdrawals[withdrawal.policy_id] = layer
            while len(self._withdrawals) > _WITHDRAWALS_MAX:
                del self._withdrawals[next(iter(self._withdrawals))]
            return self._session.set_policy(withdrawal)
        return self._session.set_policy(
            PolicySet(policy_id=policy.policy_id, policy=policy.dumped, digest=policy.digest, layer=layer)
        )

    @property
    def _knows_layers(self) -> bool:
        return self.report is not None and self.report.hub_policies is not None

    async def on_report(self, report: PolicyReport) -> None:
        """Send what should be in force where the runner says that something else is, and write down what it proved."""
        before, self.report = self.report, report
        # Where its own policy has changed, what it refused before may narrow that one.
        asks_anew = before is not None and before.policy_digest != report.policy_digest

        def read(connection: Connection) -> tuple[list[HubPolicyRecord], set[str]]:
            wanted = policies.list_policies_for(connection, environment_id=self._environment_id, team_id=self._team_id)
            answers = policies.list_answers(
                connection, policy_ids=[one.policy_id for one in wanted], environment_id=self._environment_id
            )
            return wanted, {one.policy_id for one in answers if one.state == "refused"}

        try:
            found, refused = await self._database.read(read)
        except StoreUnavailable as error:
            _log.warning("policy_not_read", environment_id=self._environment_id, error=str(error))
            return
        wanted = {one.layer: one for one in found}
        held = _held(report)
        for layer in PolicyLayer:
            policy, here = wanted.get(layer), held.get(layer)
            if policy is None:
                if here is not None:
                    self.send(layer, None)
            elif here is not None and here.policy_id == policy.policy_id:
                if report.hub_policies is not None:
                    await self._record(
                        PolicyAnswer(
                            policy_id=here.policy_id, accepted=not here.unproved, error=here.unproved, layer=layer
                        ),
                        held=True,
                    )
            elif layer is not PolicyLayer.ENVIRONMENT and not self._knows_layers:
                await self._record(
                    PolicyAnswer(policy_id=policy.policy_id, accepted=False, error=_TOO_OLD, layer=layer), held=False
                )
            elif policy.policy_id not in refused or asks_anew:
                self.send(layer, policy)

    async def on_answer(self, answer: PolicyAnswer) -> None:
        """Write down what the runner said."""
        if answer.policy_id in self._withdrawals:
            layer = self._withdrawals.pop(answer.policy_id)
            await self._write(
                lambda connection: self._note(connection, answer, "withdrawn", layer=layer, held=not answer.accepted)
            )
        else:
            await self._record(answer, held=answer.accepted)

    async def _record(self, answer: PolicyAnswer, *, held: bool) -> None:
        record = PolicyAnswerRecord(
            environment_id=self._environment_id,
            policy_id=answer.policy_id,
            state="in_force" if answer.accepted else "refused",
            answered_ms=now_ms(),
            error=None if answer.accepted else answer.error,
        )

        def write(connection: Connection) -> None:
            if policies.record_policy_answer(connection, record, team_id=self._team_id):
                verb = "taken" if answer.accepted else "refused"
                self._note(connection, answer, verb, layer=answer.layer, held=held)

        await self._write(write)

    def _note(self, connection: Connection, answer: PolicyAnswer, verb: str, *, layer: PolicyLayer, held: bool) -> None:
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor="runner",
            action=f"environment.policy.{verb}",
            target=self._environment_id,
            environment=self._environment_id,
            address=None,
            policy_id=answer.policy_id,
            layer=layer.value,
            held=held,
            error=answer.error,
            policies=policies_of_report(self.report),
        )

    async def _write(self, write: Callable[[Connection], None]) -> None:
        try:
            await self._database.write(write)
        except StoreUnavailable as error:
            _log.warning("policy_answer_not_written", environment_id=self._environment_id, error=str(error))


def _held(report: PolicyReport) -> dict[PolicyLayer, HubPolicyHeld]:
    """Return what a runner says it holds; one that knows no layers holds at most one, the environment's."""
    if report.hub_policies is not None:
        return {one.layer: one for one in report.hub_policies}
    if not report.narrowing_id:
        return {}
    layer = PolicyLayer.ENVIRONMENT
    held = HubPolicyHeld(layer=layer, policy_id=report.narrowing_id, digest=report.narrowing_digest)
    return {layer: held}
