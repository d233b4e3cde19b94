"""Gives a session's tasks to its environment, and binds it by the first.

What is decided is decided in `guardhouse.hub.sessions.choice`; this module gathers what that needs and acts on it. The
binding is stored in the transaction that stores the first task: a task that was refused binds nothing, and of two
first tasks one binds and the other follows. Runs in the hub.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio
from sqlalchemy import Connection

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Principal
from guardhouse.hub.clock import now_ms
from guardhouse.hub.concerns import NotVisible, check_runs, reach_of
from guardhouse.hub.database import Database
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.presence import Presence, decide_presence, live_status
from guardhouse.hub.sessions.choice import (
    Candidate,
    NothingToChoose,
    Picked,
    decide_environment,
    environment_gone,
    explain_unavailable,
)
from guardhouse.hub.sessions.missing import session_not_found
from guardhouse.hub.store import audit
from guardhouse.hub.store import sessions as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.sessions import SessionRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.request import TaskRequested

__all__ = ["ManagedSandboxes", "SessionDesk", "Standing", "Started"]

NO_MANAGED = "this hub was started without --managed-sandbox"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a managed sandbox stands: whether it is frozen, with its runner in memory or ended; what was lost of it."""

    is_frozen: bool
    is_in_memory: bool
    loss: str | None


class ManagedSandboxes(Protocol):
    """The managed sandboxes of a hub, as sessions need them."""

    def refusal(self, actor: Principal) -> str | None:
        """Return why ``actor`` can have no new one now; None when it can."""

    async def provide(self, session: SessionRecord, actor: Principal) -> EnvironmentRecord:
        """Return a new one for ``session``, once its runner takes tasks.

        Raises:
            ApiError: it could not be started.
        """
        ...

    async def discard(self, environment_id: str) -> None:
        """Remove one that was provided and not bound."""

    async def share(self, session: SessionRecord) -> None:
        """Let whoever sees ``session`` see its sandbox."""

    def standing(self, environment_id: str) -> Standing | None:
        """Return how one stands; None for what is no managed sandbox."""

    async def wake(self, environment_id: str) -> str | None:
        """Have a frozen one run again; return what its user must be told, such as the loss of its files.

        Raises:
            ApiError: it could not be started.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Started:
    """A task of a session, and what its asker should know of where it runs."""

    task: TaskRecord
    notice: str | None = None


class SessionDesk:
    """The sessions of one hub."""

    def __init__(
        self,
        database: Database,
        links: Links,
        board: TaskBoard,
        *,
        started_ms: int,
        managed: ManagedSandboxes | None = None,
    ) -> None:
        self._database = database
        self._links = links
        self._board = board
        self._started_ms = started_ms
        self.managed = managed
        self._locks: dict[str, trio.Lock] = {}

    async def find(self, session_id: str) -> SessionRecord | None:
        """Return a session as it is stored, or None."""
        return await self._database.read(partial(store.find_session, session_id=session_id))

    async def environment(self, session: SessionRecord) -> EnvironmentRecord | None:
        """Return what a session is bound to; None before, and when that is deleted."""
        if session.bound_environment_id is None:
            return None
        return await self._links.lookup(session.bound_environment_id)

    def presence(self, environment: EnvironmentRecord) -> Presence:
        """Return an environment's status now."""
        instance = self._links.instance(environment.id)
        return decide_presence(environment, instance, now_ms=now_ms(), hub_started_ms=self._started_ms)

    def standing(self, session: SessionRecord) -> Standing | None:
        """Return how a session's managed sandbox stands; None where it is bound to none."""
        if session.bound_environment_id is None or self.managed is None:
            return None
        return self.managed.standing(session.bound_environment_id)

    async def changed(self, session: SessionRecord) -> None:
        """Have what belongs to a session follow who sees it."""
        if self.managed is not None:
            await self.managed.share(session)

    async def deleted(self, session: SessionRecord) -> None:
        """Remove what belonged to a session that is deleted."""
        if self.managed is not None and self.standing(session) is not None and session.bound_environment_id is not None:
            await self.managed.discard(session.bound_environment_id)

    def managed_refusal(self, actor: Principal) -> str | None:
        """Return why ``actor`` can have no managed sandbox now; None when it can."""
        if self.managed is None:
            return NO_MANAGED
        if actor.is_narrowed:
            return "the token is for some environments only"
        return self.managed.refusal(actor)

    async def pick(self, session: SessionRecord, actor: Principal) -> Picked:
        """Return where ``session`` would be bound if its first task came now.

        Raises:
            NothingToChoose: nowhere.
        """
        named = None
        if session.choice == "named":
            named = await self._named(session, actor)
        candidates: list[Candidate] = []
        if session.choice == "auto" or (session.choice == "named" and named is None):
            candidates = await self._candidates(session.choice_tags, actor)
        return decide_environment(
            session, named=named, candidates=candidates, managed_refusal=self.managed_refusal(actor)
        )

    async def _named(self, session: SessionRecord, actor: Principal) -> Candidate | None:
        environment = await self._links.lookup(session.choice_environment_id or "")
        if environment is None:
            return None
        try:
            check_runs(actor, environment)
        except NotVisible as error:
            raise NothingToChoose(
                f"{actor.name!r} is not for the environment that was chosen for this session"
            ) from error
        found = self.presence(environment)
        return Candidate(
            id=environment.id,
            name=environment.shown_name,
            status=found.status,
            status_reason=found.reason,
            takes_tasks=self._takes_tasks(environment.id),
        )

    def _takes_tasks(self, environment_id: str) -> bool:
        link = self._links.find(environment_id)
        return link is not None and link.is_ready and environment_id not in self._links.drained

    async def _candidates(self, tags: tuple[str, ...], actor: Principal) -> list[Candidate]:
        """Return what Auto may choose among: connected, with all tags, and seen by the caller.

        A runner that the caller does not see (another team's) can be named, and is never chosen for them: they could
        not look at what their session is bound to.
        """
        known = await self._database.read(partial(store.list_candidates, tags=tags, reach=reach_of(actor)))
        at_ms = now_ms()
        return [
            Candidate(
                id=environment_id,
                name=known[environment_id],
                status=live_status(link.instance, now_ms=at_ms),
                status_reason="connected",
                takes_tasks=self._takes_tasks(environment_id),
                busy=self._board.load(environment_id),
            )
            for environment_id, link in self._links.all()
            if environment_id in known
        ]

    @asynccontextmanager
    async def _alone(self, session_id: str) -> AsyncIterator[None]:
        """Hold a session against other first tasks, thaws and its end."""
        lock = self._locks.setdefault(session_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(session_id, None)

    async def start(
        self,
        session_id: str,
        actor: Principal,
        *,
        environment_id: str | None,
        ask: Callable[[EnvironmentRecord, Callable[[Connection], None]], TaskRequested],
    ) -> Started:
        """Start a task in a session's environment, binding the session where it is not bound.

        Args:
            environment_id: that the request names; None leaves it to the session.
            ask: makes the request, of the environment and of what is stored with it.

        Raises:
            ApiError: 404 the session is gone; 409 its environment is another, gone or not available, or none is.
            PeerError, ApiError: as `TaskBoard.create`.
        """
        async with self._alone(session_id):
            session = await self.find(session_id)
            if session is None:
                raise session_not_found(session_id)
            if session.is_bound:
                return await self._go_on(session, environment_id, ask)
            return await self._begin(session, actor, environment_id, ask)

    async def _go_on(
        self,
        session: SessionRecord,
        environment_id: str | None,
        ask: Callable[[EnvironmentRecord, Callable[[Connection], None]], TaskRequested],
    ) -> Started:
        if environment_id not in (None, session.bound_environment_id):
            raise ApiError(
                409,
                "session_locked",
                f"session {session.id} is bound to environment {session.bound_environment_name!r}"
                f" ({session.bound_environment_id}), not to {environment_id!r}",
                hint="leave environment_id out, or start a new session for another environment",
            )
        environment = await self.environment(session)
        if environment is None:
            raise ApiError(
                409, "session_environment_gone", environment_gone(session), hint="start a new session elsewhere"
            )
        notice = None
        if environment.kind == "cloud":
            if self.managed is None:
                raise ApiError(
                    409,
                    "environment_unavailable",
                    explain_unavailable(session, why=f"it is a managed sandbox, and {NO_MANAGED}"),
                    hint="start the hub with it again, or start a new session elsewhere",
                )
            notice = await self.managed.wake(environment.id)
        at_ms = now_ms()

        def touch(connection: Connection) -> None:
            if not store.touch_session(connection, session.id, at_ms=at_ms):
                raise session_not_found(session.id)

        try:
            task = await self._board.create(ask(environment, touch))
        except ApiError as error:
            if error.body.error.code != "environment_unavailable":
                raise
            raise ApiError(
                409,
                "environment_unavailable",
                explain_unavailable(session, why=self.presence(environment).reason),
                hint=(
                    "reconnect its runner ('guardhouse env show' says since when it is away), let the task wait for it"
                    " with queue_s, or start a new session elsewhere"
                ),
                retryable=True,
            ) from error
        return Started(task=task, notice=notice)

    async def _begin(
        self,
        session: SessionRecord,
        actor: Principal,
        environment_id: str | None,
        ask: Callable[[EnvironmentRecord, Callable[[Connection], None]], TaskRequested],
    ) -> Started:
        if environment_id is not None and environment_id != session.choice_environment_id:
            raise ApiError(
                409,
                "session_environment",
                f"session {session.id} chose {_choice(session)}, not environment {environment_id!r}",
                hint="leave environment_id out; before its first task PATCH of the session changes the choice",
            )
        try:
            picked = await self.pick(session, actor)
        except NothingToChoose as error:
            raise ApiError(
                409,
                "environment_unavailable",
                str(error),
                hint="'guardhouse env list' shows what is online; nothing was bound, so the choice may be changed",
                retryable=True,
            ) from error
        if picked.environment_id is not None:
            environment = await self._links.lookup(picked.environment_id)
            if environment is None:
                raise ApiError(
                    409,
                    "environment_unavailable",
                    "the environment was deleted just now",
                    hint="ask again",
                    retryable=True,
                )
            return await self._bind(session, actor, environment, picked.warning, ask)
        if self.managed is None:
            raise ApiError(409, "environment_unavailable", f"the managed sandbox cannot be had: {NO_MANAGED}")
        environment = await self.managed.provide(session, actor)
        try:
            return await self._bind(session, actor, environment, picked.warning, ask)
        except BaseException:  # cancelled too: a sandbox that no session is bound to is not kept
            with trio.CancelScope(shield=True):
                after = await self.find(session.id)
                if after is None or after.bound_environment_id != environment.id:
                    await self.managed.discard(environment.id)
            raise

    async def _bind(
        self,
        session: SessionRecord,
        actor: Principal,
        environment: EnvironmentRecord,
        warning: str | None,
        ask: Callable[[EnvironmentRecord, Callable[[Connection], None]], TaskRequested],
    ) -> Started:
        at_ms = now_ms()

        def bind(connection: Connection) -> None:
            bound = store.bind_session(
                connection,
                session.id,
                environment_id=environment.id,
                environment_name=environment.shown_name,
                kind=environment.kind,
                warning=warning,
                at_ms=at_ms,
            )
            if not bound:
                raise session_not_found(session.id)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=actor.id,
                action="session.bind",
                target=session.id,
                address=None,
                environment=environment.id,
                choice=session.choice,
                tags=session.choice_tags,
                kind=environment.kind,
                warning=warning,
            )

        return Started(task=await self._board.create(ask(environment, bind)), notice=warning)


def _choice(session: SessionRecord) -> str:
    if session.choice == "named":
        return f"environment {session.choice_environment_name!r} ({session.choice_environment_id})"
    return "the managed sandbox" if session.choice == "managed" else "Auto"
