"""One connection's part in the environment's policy: sent when it is set, sent again when the runner reports another.

Knows the session's messages and the store; knows no frames. Runs in the hub.
"""

from functools import partial

import structlog
from sqlalchemy import Connection

from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import audit, policies
from guardhouse.hub.store.policies import EnvironmentPolicy
from guardhouse.wire.messages_v1 import PolicyAnswer, PolicyReport, PolicySet
from guardhouse.wire.session import HubSession

__all__ = ["PolicyCourier"]

_log = structlog.get_logger("guardhouse.hub.gateway")


class PolicyCourier:
    """Keeps one runner's narrowing policy what the store says it should be."""

    def __init__(self, session: HubSession, database: Database, *, environment_id: str) -> None:
        self._session = session
        self._database = database
        self._environment_id = environment_id
        self.report: PolicyReport | None = None

    def send(self, policy: EnvironmentPolicy | None) -> bool:
        """Queue the policy, or its withdrawal; False where the runner cannot be told now."""
        if policy is None:
            return self._session.set_policy(PolicySet(policy_id=mint_id("pol")))
        return self._session.set_policy(
            PolicySet(policy_id=policy.policy_id, policy=policy.dumped, digest=policy.digest)
        )

    async def on_report(self, report: PolicyReport) -> None:
        """Send what should be in force where the runner says that something else is."""
        self.report = report
        try:
            wanted = await self._database.read(partial(policies.find_policy, environment_id=self._environment_id))
        except StoreUnavailable as error:
            _log.warning("policy_not_read", environment_id=self._environment_id, error=str(error))
            return
        if wanted is None:
            if report.narrowing_id:
                self.send(None)
        elif wanted.policy_id != report.narrowing_id and wanted.state != "refused":
            self.send(wanted)

    async def on_answer(self, answer: PolicyAnswer) -> None:
        """Write down what the runner said."""
        at_ms = now_ms()

        def record(connection: Connection) -> None:
            policies.record_policy_answer(
                connection,
                self._environment_id,
                answer.policy_id,
                accepted=answer.accepted,
                error=answer.error,
                at_ms=at_ms,
            )
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor="runner",
                action="environment.policy.taken" if answer.accepted else "environment.policy.refused",
                target=self._environment_id,
                address=None,
                policy_id=answer.policy_id,
                error=answer.error,
            )

        try:
            await self._database.write(record)
        except StoreUnavailable as error:
            _log.warning("policy_answer_not_written", environment_id=self._environment_id, error=str(error))
