"""Every question of a runner from its arrival to its one answer.

The store first, then the runner: an answer that was given holds over cuts and restarts of either side, and a runner
that asks again gets the same one. Knows connections only as `Asker`. Runs in the hub.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import structlog
import trio
from sqlalchemy import Connection

from guardhouse.hub.approvals.grants import answering_grants
from guardhouse.hub.approvals.question import EXPIRY_GRACE_MS, new_record
from guardhouse.hub.approvals.rules import (
    Decided,
    Decider,
    Rules,
    agreed,
    already_answered,
    check_may_decide,
    is_same_voter,
    may_cover,
    still_stands,
)
from guardhouse.hub.approvals.writes import (
    GRANT_DEFAULT_S,
    NOBODY,
    close_question,
    record_vote,
    store_decision,
    store_question,
)
from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals as store
from guardhouse.hub.store.approvals import ApprovalRecord, GrantRecord, Vote
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.values import Verdict
from guardhouse.wire.messages_v1 import ApprovalDecision, ApprovalRequest, ApprovalScope

__all__ = ["ApprovalDesk"]

_log = structlog.get_logger("guardhouse.hub.approvals")


class Asker(Protocol):
    """A runner's connection, as the desk sees it."""

    def tell(self, decision: ApprovalDecision) -> None:
        """Queue an answer."""


class Askers(Protocol):
    """Who is connected."""

    def find(self, environment_id: str) -> Any:
        """Return the environment's connection, or None."""


class ApprovalDesk:
    """The questions of one hub."""

    def __init__(
        self,
        database: Database,
        askers: Askers,
        *,
        rules: Rules,
        owner_of: Callable[[str], str | None],
        lineage_of: Callable[[str], frozenset[str]],
        stands: Callable[[str], bool],
        notify: Callable[[Connection, ApprovalRecord], None],
    ) -> None:
        """Make the desk.

        Args:
            owner_of: returns the id of the person whose API token it is, or was, or None.
            lineage_of: returns the ids of a token and of the tokens that it comes from.
            stands: whether the person or token with this id may still do something.
            notify: puts messages to people on their way, in the transaction that stores the question.
        """
        self._database = database
        self._askers = askers
        self.rules = rules
        self._owner_of = owner_of
        self._lineage_of = lineage_of
        self._stands = stands
        self._notify = notify
        self._pending: dict[str, ApprovalRecord] = {}
        self._changed = trio.Event()

    async def start(self) -> None:
        """Take up what an earlier hub left open; must be awaited before anything is served."""
        for record in await self._database.read(store.list_pending):
            self._pending[record.id] = record

    @property
    def changed(self) -> trio.Event:
        """An event that the next change sets; take it before looking."""
        return self._changed

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What runners say.

    async def asked(
        self, request: ApprovalRequest, *, environment: EnvironmentRecord, task: TaskRecord, peer_time_ms: int
    ) -> None:
        """Take a question: answer it again, answer it from a grant, or put it before people.

        Args:
            peer_time_ms: the runner's clock when it sent this, against which its ``expires_at_ms`` counts.
        """
        at_ms = now_ms()
        record = new_record(
            request,
            environment=environment,
            task=task,
            votes_needed=2 if self.rules.two_people else 1,
            at_ms=at_ms,
            peer_time_ms=peer_time_ms,
        )

        def take(connection: Connection) -> ApprovalRecord:
            known = store.find_question(connection, environment_id=environment.id, question_id=record.question_id)
            if known is not None:
                # The first wording stands: nobody approves one command and lets another run by asking again.
                return known
            store_question(connection, record, at_ms=at_ms)
            return self._answer_from_grants(connection, record, at_ms=at_ms)

        try:
            found = await self._database.write(take)
        except StoreUnavailable as error:
            # Not answered: the runner asks again on its next connection, or its time runs out there.
            _log.error("question_not_stored", error=str(error))
            return
        if found.state == "pending":
            self._pending[found.id] = found
        else:
            self._tell(found)
        self._wake()

    def _answer_from_grants(self, connection: Connection, record: ApprovalRecord, *, at_ms: int) -> ApprovalRecord:
        """Return ``record`` as it stands: answered by what people said before, or open, with messages on their way."""
        current = store.find_approval(connection, record.id) or record
        if current.state != "pending":
            return current
        grants = store.list_grants(connection, now_ms=at_ms, environment_id=record.environment_id)
        may = partial(may_cover, record=record, rules=self.rules, owner_of=self._owner_of)
        answering = answering_grants(record, [grant for grant in grants if may(grant) and self.stands(grant)])
        if answering:
            first = answering[0]
            names = " and ".join(dict.fromkeys(grant.decided_by_name for grant in answering))[:256]
            close_question(
                connection,
                record,
                state="approved" if first.verdict == "allow" else "denied",
                at_ms=at_ms,
                actor=NOBODY,
                note=f"as {names} said for this {first.scope}",
                scope=first.scope,
                valid_until_ms=min(grant.valid_until_ms for grant in answering),
                decided_by_name=names,
                grant=" ".join(grant.id for grant in answering),
            )
            return store.find_approval(connection, record.id) or record
        self._notify(connection, record)
        return record

    def stands(self, grant: GrantRecord) -> bool:
        """Whether everybody who gave a grant is still somebody; one of others answers nothing."""
        return still_stands(grant, self._stands)

    async def withdrawn(self, question_id: str, *, environment_id: str, reason: str) -> None:
        """End a question that its runner takes back."""
        found = next(
            (
                one
                for one in self._pending.values()
                if one.environment_id == environment_id and one.question_id == question_id
            ),
            None,
        )
        if found is not None:
            state = "expired" if now_ms() >= found.expires_ms - EXPIRY_GRACE_MS else "withdrawn"
            await self._end(found, state=state, note=reason[:1_024] or "the runner took it back", tell=False)

    def task_ended(self, task_id: str) -> None:
        """End, in the order of writes, every open question of a task that has its result."""
        for record in [one for one in self._pending.values() if one.task_id == task_id]:
            self._pending.pop(record.id, None)
            close = partial(
                close_question,
                record=record,
                state="withdrawn",
                at_ms=now_ms(),
                actor=NOBODY,
                note="the task has ended",
            )
            try:
                self._database.write_soon(close)
            except StoreUnavailable as error:
                # The hub stops; the next one finds it open and ends it at its time.
                _log.warning("end_not_stored", approval=record.id, error=str(error))
            self._wake()

    # What people say.

    async def find(self, approval_id: str) -> ApprovalRecord | None:
        """Return a question as it stands."""
        return self._pending.get(approval_id) or await self._database.read(
            partial(store.find_approval, approval_id=approval_id)
        )

    async def decide(self, record: ApprovalRecord, said: Decided, by: Decider) -> ApprovalRecord:
        """Take one person's word; with the last yes that is needed, or any no, the question is answered.

        Raises:
            ApiError: 403 the rules say that this one may not; 409 it has its answer.
        """
        check_may_decide(record, said, by, rules=self.rules, owner_of=self._owner_of, lineage_of=self._lineage_of)
        at_ms = now_ms()
        vote = Vote(
            by=by.id,
            person=by.person,
            name=by.name,
            at_ms=at_ms,
            note=said.note,
            scope=said.scope.value,
            for_s=said.for_s,
        )

        def store_word(connection: Connection) -> ApprovalRecord:
            current = store.find_approval(connection, record.id)
            if current is None or current.state != "pending":
                raise already_answered(current or record)
            if at_ms >= current.expires_ms:
                close_question(connection, current, state="expired", at_ms=at_ms, actor=NOBODY, note="nobody decided")
                return store.find_approval(connection, current.id) or current
            # Who has been disabled since does not agree any more.
            votes = [
                one for one in current.given if not is_same_voter(one, vote) and self._stands(one.person or one.by)
            ]
            if said.allow and len(votes) + 1 < current.votes_needed:
                store.store_votes(connection, current.id, [*votes, vote])
                record_vote(connection, current, said, by, at_ms=at_ms)
                return store.find_approval(connection, current.id) or current
            word = agreed(said, votes, default_s=GRANT_DEFAULT_S) if said.allow else said
            store_decision(connection, current, word, by, [*votes, vote], at_ms=at_ms)
            return store.find_approval(connection, current.id) or current

        found = await self._database.write(store_word)
        if found.state == "pending":
            self._pending[found.id] = found
        else:
            self._pending.pop(found.id, None)
            self._tell(found)
        self._wake()
        if found.state == "expired":
            raise already_answered(found)
        return found

    # Time.

    async def run(self) -> None:
        """End, for ever, what nobody decides in time."""
        while True:
            at_ms = now_ms()
            due = [record for record in self._pending.values() if at_ms >= record.expires_ms]
            for record in due:
                await self._end(record, state="expired", note="nobody decided in time", tell=True)
            changed = self.changed
            first_ms = min((record.expires_ms for record in self._pending.values()), default=at_ms + 3_600_000)
            with trio.move_on_after(max(0.05, min(60.0, (first_ms - at_ms) / 1000))):
                await changed.wait()

    async def _end(self, record: ApprovalRecord, *, state: str, note: str, tell: bool) -> None:
        try:
            await self._database.write(
                partial(close_question, record=record, state=state, at_ms=now_ms(), actor=NOBODY, note=note)
            )
        except StoreUnavailable as error:
            _log.error("end_not_stored", approval=record.id, error=str(error))
            await trio.sleep(1)
            return
        self._pending.pop(record.id, None)
        if tell:
            ended = await self._database.read(partial(store.find_approval, approval_id=record.id))
            self._tell(ended or record)
        self._wake()

    # Telling.

    def _tell(self, record: ApprovalRecord) -> None:
        """Answer the runner where it is connected; one that is away asks again."""
        asker = self._askers.find(record.environment_id)
        if asker is None or record.state in {"pending", "withdrawn"}:
            return
        approved = record.state == "approved"
        asker.tell(
            ApprovalDecision(
                approval_id=record.question_id,
                verdict=Verdict.ALLOW if approved else Verdict.DENY,
                scope=ApprovalScope(record.scope or "once"),
                valid_until_ms=record.valid_until_ms,
                decided_by=(record.decided_by_name or record.decided_by or NOBODY)[:256],
                note=record.note or ("" if approved else "denied"),
            )
        )
