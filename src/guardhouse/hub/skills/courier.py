"""Brings skills to the runners that lack them and takes away what nobody wants there any more.

A push is a task of the hub's own, operation `sync_skill`, on the way that every task takes: one start, the runner's
policy, the audit log. Its archive is filled in as it leaves and stored nowhere else. What a runner answered is kept, so
that it is sent only what it lacks; under ``guardhouse.v1`` the runner's own word counts more and is asked for once a
connection. Runs in the hub.
"""

from collections import Counter
from functools import partial
from typing import Any, Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from guardhouse.errors import GuardhouseError, InvariantError, Refusal
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.file_calls import ConnectionLost
from guardhouse.hub.gateway.links import Link, Links
from guardhouse.hub.skills.decide import SkillStep, decide_steps, skill_directory
from guardhouse.hub.skills.registry import Skills
from guardhouse.hub.store import environments, skill_copies
from guardhouse.hub.store import skills as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.skill_copies import SkillCopyRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.request import TaskRequested
from guardhouse.wire.messages_files import FileRead

__all__ = ["SkillCourier", "SkillNotAtHand"]

_log = structlog.get_logger("guardhouse.hub.skills")

# How often every connected runner is looked at again: what was drained, busy or failed is tried then.
LOOK_S: Final = 60.0
# Archives on their way at a time (a frame of up to 31 MB each), and how long one keeps its turn.
SENDING_MAX: Final = 4
SENDING_TURN_S: Final = 30.0
ERROR_MAX_CHARS: Final = 2_048
_CHECKSUM_READ_BYTES: Final = 128
_ACTOR: Final = "hub"


class SkillNotAtHand(Refusal):
    """A push was put in line by an earlier hub; this one has not read its archive."""


class SkillCourier:
    """Keeps what runners hold what the registry says it should be."""

    def __init__(self, database: Database, links: Links, board: TaskBoard, skills: Skills) -> None:
        self._database = database
        self._links = links
        self._board = board
        self._skills = skills
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._news = trio.Event()
        self._turns = trio.CapacityLimiter(SENDING_MAX)
        # Archives of versions that are on their way, and how many pushes need each.
        self._archives: dict[str, bytes] = {}
        self._users: Counter[str] = Counter()
        # The connection on which a runner was asked what it has, by environment: when that connection began.
        self._asked: dict[str, int] = {}

    def nudge(self, environment_id: str) -> None:
        """Look at one environment soon."""
        if self._skills.may_concern(environment_id):
            self._waiting.add(environment_id)
            self._news.set()

    def nudge_all(self) -> None:
        """Look at every connected environment soon: a skill was changed."""
        for environment_id, _ in self._links.all():
            self.nudge(environment_id)

    def try_again(self, environment_id: str) -> None:
        """Look at one environment soon, as if nothing had been asked or tried there yet."""
        self._asked.pop(environment_id, None)
        for copy in self._skills.copies(environment_id).values():
            if copy.state != "held":
                self._skills.put_copy(msgspec.structs.replace(copy, changed_ms=0))
        self.nudge(environment_id)

    def fill(self, record: TaskRecord) -> bytes:
        """Return a task's arguments as the runner needs them: those of a push with its archive.

        Raises:
            SkillNotAtHand: it is a push of an earlier hub.
        """
        if record.operation != "sync_skill" or record.created_by != _ACTOR or record.origin is None:
            return record.args
        archive = self._archives.get(record.origin)
        if archive is None:
            raise SkillNotAtHand("the hub was started anew before this skill was sent; it is sent again by itself")
        return msgspec.json.encode({**msgspec.json.decode(record.args, type=dict[str, Any]), "zip_data": archive})

    async def run(self) -> None:
        """Bring and take away, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(LOOK_S) as pause:
                    await self._news.wait()
                if pause.cancelled_caught:
                    self.nudge_all()
                self._news = trio.Event()
                for environment_id in self._waiting - self._busy:
                    self._waiting.discard(environment_id)
                    self._busy.add(environment_id)
                    nursery.start_soon(self._look, environment_id)

    async def _look(self, environment_id: str) -> None:
        try:
            await self._bring(environment_id)
        except InvariantError:
            raise
        except GuardhouseError as error:
            _log.warning("skills_not_brought", environment_id=environment_id, error=str(error))
        finally:
            self._busy.discard(environment_id)
            if environment_id in self._waiting:
                self._news.set()

    async def _bring(self, environment_id: str) -> None:
        """Do one step after the other, each decided anew, until there is none or the runner takes no more."""
        while True:
            environment = await self._links.lookup(environment_id)
            link = self._links.find(environment_id)
            if environment is None or link is None or not link.is_ready or environment_id in self._links.drained:
                return
            place = link.place
            if place is None:
                return  # its first heartbeat nudges
            await self._ask(environment, link, place)
            report = link.policies.report
            steps = decide_steps(
                self._skills.wanted(environment),
                self._skills.copies(environment_id),
                place=place,
                policy_digest=report.policy_digest if report is not None else "",
                now_ms=now_ms(),
            )
            if not steps:
                return
            step = steps[0]
            task = await (self._push if step.version is not None else self._remove)(environment, step)
            await self._note(environment, step, task, place, report.policy_digest if report is not None else "")

    async def _push(self, environment: EnvironmentRecord, step: SkillStep) -> TaskRecord:
        version = step.version
        if version is None:
            raise InvariantError("a push needs a version")
        args = {
            "skill_name": step.name,
            "skill_dir": skill_directory(step.name),
            "checksum": version.checksum,
            "zip_data": "",
        }
        self._users[version.id] += 1
        try:
            async with self._turns:
                if version.id not in self._archives:
                    archive = await self._database.read(partial(store.read_skill_archive, version_id=version.id))
                    if archive is None:
                        raise SkillNotAtHand(f"version {version.number} of skill {step.name!r} was removed meanwhile")
                    self._archives[version.id] = archive
                task = await self._create(environment, "sync_skill", args, origin=version.id)
                task = await self._wait(task, within_s=SENDING_TURN_S)
            # A rule may ask people first: that takes as long as it takes, and holds up nobody else.
            return await self._wait(task, within_s=None)
        finally:
            self._done_with(version.id)

    def _done_with(self, version_id: str) -> None:
        self._users[version_id] -= 1
        if self._users[version_id] <= 0:
            del self._users[version_id]
            self._archives.pop(version_id, None)

    async def _remove(self, environment: EnvironmentRecord, step: SkillStep) -> TaskRecord:
        args = {"path": skill_directory(step.name), "recursive": True}
        return await self._wait(await self._create(environment, "remove", args, origin=None), within_s=None)

    async def _create(
        self, environment: EnvironmentRecord, operation: str, args: dict[str, Any], *, origin: str | None
    ) -> TaskRecord:
        return await self._board.create(
            TaskRequested(
                environment=environment,
                operation=operation,
                args=args,
                idempotency_key=None,
                queue_s=0,
                profile=None,
                created_by=_ACTOR,
                requested_by=_ACTOR,
                address=None,
                origin=origin,
            )
        )

    async def _wait(self, task: TaskRecord, *, within_s: float | None) -> TaskRecord:
        """Return the task as it stands at its end, or after ``within_s``; the board gives every task an end."""
        live = self._board.find(task.id)
        if live is None:
            return await self._board.record(task.id) or task
        with trio.move_on_after(float("inf") if within_s is None else within_s):
            await live.finished.wait()
        return live.record

    async def _note(
        self, environment: EnvironmentRecord, step: SkillStep, task: TaskRecord, place: str, policy_digest: str
    ) -> None:
        """Keep what became of a step."""
        version, before = step.version, self._skills.copies(environment.id).get(step.name)
        is_done = task.success is True or (version is None and task.error_code == "not_found")
        if is_done and version is None:
            await self._store(environment.id, step.name, None)
            return
        held, number = ("", None) if before is None or before.place != place else (before.checksum, before.version)
        record = SkillCopyRecord(
            environment_id=environment.id,
            name=step.name,
            checksum=version.checksum if is_done and version is not None else held,
            version=version.number if is_done and version is not None else number,
            place=place,
            state="held" if is_done else "failed" if task.success is None else "refused",
            error=None if is_done else (task.error or "the runner gave no reason")[:ERROR_MAX_CHARS],
            tried_checksum="" if version is None else version.checksum,
            policy_digest=policy_digest,
            changed_ms=now_ms(),
        )
        await self._store(environment.id, step.name, record)
        if not is_done:
            _log.warning(
                "skill_not_brought" if version is not None else "skill_not_removed",
                environment_id=environment.id,
                skill=step.name,
                task_id=task.id,
                error=record.error,
            )

    async def _ask(self, environment: EnvironmentRecord, link: Link, place: str) -> None:
        """Ask a v1 runner, once a connection, what it has of what matters; one that does not say is believed as before.

        A workspace may have been emptied, restored or changed by hand since.
        """
        since_ms = link.instance.connected_ms
        if link.protocol != "guardhouse.v1" or self._asked.get(environment.id) == since_ms:
            return
        wanted, copies = self._skills.wanted(environment), self._skills.copies(environment.id)
        for name in sorted(wanted.keys() | copies.keys()):
            try:
                found = await self._read_checksum(link, name)
            except ConnectionLost:
                break  # it does not say; what was answered before counts
            copy, version = copies.get(name), wanted.get(name)
            if found is None or (found == "" and copy is None):
                continue
            if copy is not None and copy.place == place and copy.checksum == found:
                continue
            is_wanted = version is not None and version.checksum == found
            record = SkillCopyRecord(
                environment_id=environment.id,
                name=name,
                checksum=found,
                version=version.number if is_wanted and version is not None else None,
                place=place,
                state="held",
                error=None,
                tried_checksum="",
                policy_digest="",
                changed_ms=now_ms(),
            )
            if copy is not None and copy.state != "held" and not is_wanted:
                record = msgspec.structs.replace(copy, checksum=found, version=None)
            await self._store(environment.id, name, record if found or version is not None else None)
        self._asked[environment.id] = since_ms

    async def _read_checksum(self, link: Link, name: str) -> str | None:
        """Return the checksum that lies in the skill's directory, "" where there is none, None where it is not told."""
        call_id = mint_id("call")
        path = f"{skill_directory(name)}/.checksum"
        answer = await link.ask_file(
            FileRead(call_id=call_id, transfer_id=mint_id("file"), path=path, limit=_CHECKSUM_READ_BYTES)
        )
        if not answer.success:
            return "" if answer.error_code == "not_found" else None
        text = answer.content.decode("ascii", "replace").strip()
        is_checksum = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
        return text if is_checksum else None

    async def _store(self, environment_id: str, name: str, record: SkillCopyRecord | None) -> None:
        """Keep what is known of a skill in an environment; None forgets it."""

        def write(connection: Connection) -> bool:
            if record is None:
                skill_copies.delete_skill_copy(connection, environment_id, name)
                return True
            if environments.find_environment(connection, environment_id) is None:
                return False
            skill_copies.store_skill_copy(connection, record)
            return True

        try:
            is_there = await self._database.write(write, durable=False)
        except StoreUnavailable as error:
            # In memory it counts all the same; after a restart the runner is asked, or is sent it once more.
            _log.warning("skill_copy_not_stored", environment_id=environment_id, skill=name, error=str(error))
            is_there = True
        if record is None or not is_there:
            self._skills.drop_copy(environment_id, name)
        else:
            self._skills.put_copy(record)
