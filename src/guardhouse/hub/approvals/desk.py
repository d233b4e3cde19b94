"""Every question of a runner from its arrival to its one answer.

The store first, then the runner: an answer that was given holds over cuts and restarts of either side, and a runner
that asks again gets the same one. Knows connections only as `Asker`. Runs in the hub.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from guardhouse import limits
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.approvals.grants import answering_grants
from guardhouse.hub.audit.policies import policies_of_decision, policies_of_explanation
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals as store
from guardhouse.hub.store import audit
from guardhouse.hub.store.approvals import ApprovalRecord, GrantRecord, Vote
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.values import Verdict
from guardhouse.wire.messages_v1 import ApprovalDecision, ApprovalRequest, ApprovalScope

__all__ = ["ApprovalDesk", "Decided", "Decider", "Rules"]

_log = structlog.get_logger("guardhouse.hub.approvals")

# What is kept of a question's larger parts; what is cut is said where people decide.
ARGV_MAX_BYTES: Final = 256 * 1024
EXPLANATION_MAX_BYTES: Final = 256 * 1024
# Beyond the runner's own end, so that its "withdrawn" is seen first where the two clocks agree.
EXPIRY_GRACE_MS: Final = 2_000
SESSION_GRANT_MS: Final = 12 * 3_600_000
# How a runner is told of an end that no person gave.
_NOBODY: Final = "hub"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the account wants it.

    Attributes:
        two_people: two different people must say yes.
        own_requests: a person may say yes to what they, or a token of theirs, asked for.
    """

    two_people: bool = False
    own_requests: bool = True


@dataclass(frozen=True, kw_only=True)
class Decider:
    """Who decides: the id of the token or person, whose it is, what to call them, and whether an admin."""

    id: str
    person: str | None
    name: str
    is_admin: bool
    is_browser: bool
    address: str | None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What somebody said. ``for_s`` is how long it holds, for ``session`` and ``rule``."""

    allow: bool
    scope: ApprovalScope
    for_s: int | None
    note: str


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
        notify: Callable[[Connection, ApprovalRecord], None],
    ) -> None:
        """Make the desk.

        Args:
            owner_of: returns the id of the person whose API token it is, or None.
            notify: puts messages to people on their way, in the transaction that stores the question.
        """
        self._database = database
        self._askers = askers
        self.rules = rules
        self._owner_of = owner_of
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
        record = _record(request, environment=environment, task=task, at_ms=at_ms, peer_time_ms=peer_time_ms)
        record = msgspec.structs.replace(record, votes_needed=2 if self.rules.two_people else 1)

        def take(connection: Connection) -> ApprovalRecord:
            known = store.find_question(connection, environment_id=environment.id, question_id=record.question_id)
            if known is not None:
                # The first wording stands: nobody approves one command and lets another run by asking again.
                return known
            self._ask(connection, record, at_ms=at_ms)
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

    def _ask(self, connection: Connection, record: ApprovalRecord, *, at_ms: int) -> None:
        crowded = store.count_pending(connection, record.environment_id) >= limits.APPROVALS_OPEN_MAX
        store.insert_approval(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor="runner",
            action="approval.ask",
            target=record.id,
            address=None,
            environment=record.environment_id,
            task=record.task_id,
            command=record.command,
            executed=None if record.words is None else audit.executed_text([record.words]),
            **_facts(record),
        )
        if crowded:
            self._close(
                connection,
                record,
                state="denied",
                at_ms=at_ms,
                actor=_NOBODY,
                note=f"{limits.APPROVALS_OPEN_MAX} questions of this environment are open already",
            )

    def _answer_from_grants(self, connection: Connection, record: ApprovalRecord, *, at_ms: int) -> ApprovalRecord:
        """Return ``record`` as it stands: answered by what people said before, or open, with messages on their way."""
        current = store.find_approval(connection, record.id) or record
        if current.state != "pending":
            return current
        grants = store.list_grants(connection, now_ms=at_ms, environment_id=record.environment_id)
        answering = answering_grants(record, [grant for grant in grants if self._may_cover(grant, record)])
        if answering:
            first = answering[0]
            names = " and ".join(dict.fromkeys(grant.decided_by_name for grant in answering))
            self._close(
                connection,
                record,
                state="approved" if first.verdict == "allow" else "denied",
                at_ms=at_ms,
                actor=_NOBODY,
                note=f"as {names} said for this {first.scope}",
                scope=first.scope,
                valid_until_ms=min(grant.valid_until_ms for grant in answering),
                decided_by_name=names,
                grant=" ".join(grant.id for grant in answering),
            )
            return store.find_approval(connection, record.id) or record
        self._notify(connection, record)
        return record

    def _may_cover(self, grant: GrantRecord, record: ApprovalRecord) -> bool:
        """Whether the rules of today let a grant answer: not one's own where unwanted, and of two where two must."""
        deciders = set(msgspec.json.decode(grant.deciders, type=list[str]))
        if grant.verdict != "allow":
            return True
        if not self.rules.own_requests and deciders & {record.requester, self._owner_of(record.requester)}:
            return False
        return not self.rules.two_people or len(deciders) > 1

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
                self._close_if_open,
                record=record,
                state="withdrawn",
                at_ms=now_ms(),
                actor=_NOBODY,
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
        self._check_may(record, said, by)
        at_ms = now_ms()
        vote = Vote(by=by.id, person=by.person, name=by.name, at_ms=at_ms, note=said.note)

        def store_word(connection: Connection) -> ApprovalRecord:
            current = store.find_approval(connection, record.id)
            if current is None or current.state != "pending":
                raise _answered(current or record)
            if at_ms >= current.expires_ms:
                self._close(connection, current, state="expired", at_ms=at_ms, actor=_NOBODY, note="nobody decided")
                return store.find_approval(connection, current.id) or current
            votes = [one for one in current.given if not _is_same(one, vote)]
            if said.allow and len(votes) + 1 < current.votes_needed:
                store.store_votes(connection, current.id, [*votes, vote])
                self._record_word(connection, current, said, by, action="approval.vote", at_ms=at_ms)
                return store.find_approval(connection, current.id) or current
            self._decide(connection, current, said, by, [*votes, vote], at_ms=at_ms)
            return store.find_approval(connection, current.id) or current

        found = await self._database.write(store_word)
        if found.state == "pending":
            self._pending[found.id] = found
        else:
            self._pending.pop(found.id, None)
            self._tell(found)
        self._wake()
        if found.state == "expired":
            raise _answered(found)
        return found

    def _decide(
        self,
        connection: Connection,
        current: ApprovalRecord,
        said: Decided,
        by: Decider,
        votes: list[Vote],
        *,
        at_ms: int,
    ) -> None:
        until_ms = None
        if said.scope is not ApprovalScope.ONCE:
            until_ms = at_ms + (SESSION_GRANT_MS if said.for_s is None else said.for_s * 1000)
        names = " and ".join(dict.fromkeys(vote.name for vote in votes)) if said.allow else by.name
        store.store_votes(connection, current.id, votes)
        self._close(
            connection,
            current,
            state="approved" if said.allow else "denied",
            at_ms=at_ms,
            actor=by.id,
            note=said.note,
            scope=said.scope.value,
            valid_until_ms=until_ms,
            decided_by_name=names,
            address=by.address,
        )
        if until_ms is not None:
            deciders = {vote.person or vote.by for vote in votes}
            store.insert_grant(
                connection,
                GrantRecord(
                    id=mint_id("grt"),
                    approval_id=current.id,
                    verdict="allow" if said.allow else "deny",
                    scope=said.scope.value,
                    environment_id=current.environment_id,
                    session_key=current.session_key,
                    gate=current.gate,
                    rule=current.rule,
                    place=current.place,
                    deciders=msgspec.json.encode(sorted(deciders)).decode(),
                    decided_by_name=names,
                    created_ms=at_ms,
                    valid_until_ms=until_ms,
                ),
            )

    def _check_may(self, record: ApprovalRecord, said: Decided, by: Decider) -> None:
        if record.state != "pending":
            raise _answered(record)
        if said.scope is ApprovalScope.RULE and not (record.rule or record.place):
            raise ApiError(
                400, "no_rule", "the runner named no rule, so nothing can be said for it", hint="decide once"
            )
        if not said.allow:
            return
        if self.rules.two_people and by.person is None:
            raise ApiError(
                403, "two_people", "two people must approve, and this API token belongs to none", hint="sign in"
            )
        owner = self._owner_of(record.requester)
        mine = by.id == record.requester or (by.person is not None and by.person in {record.requester, owner})
        if mine and not self.rules.own_requests:
            raise ApiError(
                403, "own_request", "this hub does not let people approve what they asked for", hint="ask a colleague"
            )
        if by.id == record.requester and not by.is_browser and not by.is_admin:
            # An agent's token that could approve for itself would need nobody.
            raise ApiError(
                403,
                "own_request",
                "an API token cannot approve what it asked for itself",
                hint="sign in, or use another person's token",
            )

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
                partial(self._close_if_open, record=record, state=state, at_ms=now_ms(), actor=_NOBODY, note=note)
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

    # Storing and telling.

    def _close_if_open(
        self, connection: Connection, *, record: ApprovalRecord, state: str, at_ms: int, actor: str, note: str
    ) -> None:
        self._close(connection, record, state=state, at_ms=at_ms, actor=actor, note=note)

    def _close(
        self,
        connection: Connection,
        record: ApprovalRecord,
        *,
        state: str,
        at_ms: int,
        actor: str,
        note: str,
        scope: str | None = None,
        valid_until_ms: int | None = None,
        decided_by_name: str | None = None,
        address: str | None = None,
        grant: str | None = None,
    ) -> None:
        closed = store.close_approval(
            connection,
            record.id,
            state=state,
            at_ms=at_ms,
            decided_by=actor,
            decided_by_name=decided_by_name,
            scope=scope,
            valid_until_ms=valid_until_ms,
            note=note,
        )
        if not closed:
            return
        verb = {"approved": "approve", "denied": "deny", "expired": "expire", "withdrawn": "withdraw"}[state]
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=actor,
            action=f"approval.{verb}",
            target=record.id,
            address=address,
            environment=record.environment_id,
            task=record.task_id,
            command=record.command,
            decided_by=decided_by_name,
            scope=scope,
            valid_until_ms=valid_until_ms,
            note=note,
            grant=grant,
            **_facts(record),
        )

    def _record_word(
        self, connection: Connection, record: ApprovalRecord, said: Decided, by: Decider, *, action: str, at_ms: int
    ) -> None:
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=by.id,
            action=action,
            target=record.id,
            address=by.address,
            environment=record.environment_id,
            task=record.task_id,
            command=record.command,
            note=said.note,
            **_facts(record),
        )

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
                decided_by=(record.decided_by_name or record.decided_by or _NOBODY)[:256],
                note=record.note or ("" if approved else "denied"),
            )
        )


def _record(
    request: ApprovalRequest, *, environment: EnvironmentRecord, task: TaskRecord, at_ms: int, peer_time_ms: int
) -> ApprovalRecord:
    default_ms = int(limits.APPROVAL_TIMEOUT_DEFAULT_S * 1000)
    left_ms = default_ms if request.expires_at_ms is None else request.expires_at_ms - peer_time_ms
    left_ms = max(0, min(left_ms, int(limits.APPROVAL_TIMEOUT_MAX_S * 1000)))
    argv = None if request.argv is None else _cut_argv(list(request.argv))
    explanation = None if request.explanation is None else msgspec.json.encode(request.explanation)
    if explanation is not None and len(explanation) > EXPLANATION_MAX_BYTES:
        left_out = {"left_out": f"{len(explanation)} bytes: more than the hub keeps"}
        explanation = msgspec.json.encode({**left_out, **(policies_of_decision(request.explanation) or {})})
    return ApprovalRecord(
        id=mint_id("apr"),
        environment_id=environment.id,
        environment_name=environment.name,
        question_id=request.approval_id,
        task_id=task.id,
        # Whoever asks names their sessions themselves, so a session is one of its asker's.
        session_key=f"{task.created_by}/{task.session_id}" if task.session_id else f"task/{task.id}",
        command=request.command,
        gate=request.gate.value,
        argv=argv,
        path=request.path[:4_096],
        started_by=request.started_by[:4_096],
        rule=request.rule[: store.RULE_MAX_CHARS],
        because=request.because[:4_096],
        place=request.place[: store.RULE_MAX_CHARS],
        profile=request.profile,
        workdir=request.workdir[:4_096],
        requested_by=task.requested_by,
        requester=task.created_by,
        explanation=None if explanation is None else explanation.decode(),
        asked_ms=at_ms,
        expires_ms=at_ms + left_ms + EXPIRY_GRACE_MS,
        state="pending",
    )


def _cut_argv(words: list[str]) -> str:
    encoded = msgspec.json.encode(words)
    if len(encoded) > ARGV_MAX_BYTES:
        kept: list[str] = []
        room = ARGV_MAX_BYTES
        for word in words:
            # An escape takes at most six bytes.
            room -= 6 * len(word) + 3
            if room < 0:
                break
            kept.append(word)
        encoded = msgspec.json.encode([*kept, f"[guardhouse: {len(words) - len(kept)} more words are left out]"])
    return encoded.decode()


def _is_same(one: Vote, other: Vote) -> bool:
    """Whether two votes are one person's, or one token's of nobody."""
    return one.by == other.by or (one.person is not None and one.person == other.person)


def _facts(record: ApprovalRecord) -> dict[str, Any]:
    return {
        "gate": record.gate,
        "rule": record.rule,
        "place": record.place,
        "argv": record.words,
        "path": record.path,
        "requester": record.requester,
        "requested_by": record.requested_by,
        "policies": policies_of_explanation(record.explanation),
    }


def _answered(record: ApprovalRecord) -> ApiError:
    return ApiError(
        409,
        "already_decided",
        f"this question is {record.state} already ({record.decided_by_name or record.note or 'no note'})",
        hint="'guardhouse approval show' has the answer",
    )
