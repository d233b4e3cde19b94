"""The runner of each managed sandbox as a child of the hub: started, frozen, thawed, ended.

What is to be done with which is `guardhouse.hub.managed.host`'s. Runs in the hub.
"""

from functools import partial
from typing import Final

import structlog
import trio

from guardhouse.errors import SetupError
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.managed.directory import SandboxDirectory
from guardhouse.hub.managed.freezer import Freezer, find_freezer
from guardhouse.hub.managed.process import RunnerChild, end_leftover
from guardhouse.hub.managed.profile import policy_text, profile_text
from guardhouse.hub.managed.refusals import unavailable
from guardhouse.hub.managed.settings import Domain, ManagedSettings

__all__ = ["SandboxRunners"]

_log = structlog.get_logger("guardhouse.hub.managed")

# The connection of a runner that was frozen is given up at once; it makes another when it is thawed.
LET_GO_S: Final = 10.0


class SandboxRunners:
    """The children. `open` before any is started."""

    def __init__(self, settings: ManagedSettings, links: Links) -> None:
        self.settings = settings
        self._links = links
        self._children: dict[str, RunnerChild] = {}
        self._nursery: trio.Nursery | None = None
        self._url = ""
        self._starting = 0
        self._starts = 0
        self._freezer: Freezer | None = None
        self.no_freezer = "the hub is starting"

    async def open(self, nursery: trio.Nursery, *, url: str) -> None:
        """Look for the kernel's freezer; ``url`` is where runners dial, on loopback."""
        self._nursery, self._url = nursery, url
        find = partial(find_freezer, self.settings.directory)
        self._freezer, self.no_freezer = await trio.to_thread.run_sync(find)
        if self._freezer is None:
            _log.info("managed_sandboxes_without_freezer", reason=self.no_freezer)

    async def end_left_over(self, environment_id: str) -> None:
        """End the runner that an earlier hub left of a sandbox."""
        if await trio.to_thread.run_sync(end_leftover, self._directory(environment_id)):
            _log.warning("managed_runner_left_over", environment_id=environment_id)

    async def sweep(self) -> None:
        """Remove the groups that an earlier hub left."""
        if self._freezer is not None:
            await trio.to_thread.run_sync(self._freezer.sweep)

    def _directory(self, environment_id: str) -> SandboxDirectory:
        return SandboxDirectory(self.settings.directory, environment_id)

    # Looking.

    def find(self, environment_id: str) -> RunnerChild | None:
        """Return a sandbox's runner, or None."""
        return self._children.get(environment_id)

    @property
    def running(self) -> int:
        """How many run or start."""
        return sum(not child.is_frozen for child in self._children.values()) + self._starting

    @property
    def frozen(self) -> int:
        """How many sandboxes are frozen in memory."""
        return sum(child.is_frozen for child in self._children.values())

    @property
    def freezer(self) -> str | None:
        """What sandboxes are frozen with; None where their runners are ended instead, and `no_freezer` says why."""
        return None if self._freezer is None else f"cgroup v{self._freezer.version}"

    def takes_tasks(self, environment_id: str) -> bool:
        """Whether the sandbox's runner is connected and takes tasks."""
        link = self._links.find(environment_id)
        return link is not None and link.is_ready and link.instance.last_heartbeat_ms is not None

    # Started and ended.

    async def start(self, environment_id: str, secret: str, *, domains: tuple[Domain, ...]) -> None:
        """Start a runner and wait until it takes tasks.

        Raises:
            ApiError: it did not come.
        """
        directory = self._directory(environment_id)
        nursery = self._nursery
        if nursery is None:
            raise unavailable("the hub is starting")
        self._starting += 1
        self._starts += 1
        group = self._freezer.group(f"{environment_id}.{self._starts}") if self._freezer is not None else None
        try:
            await trio.to_thread.run_sync(
                partial(
                    directory.lay_out,
                    policy=policy_text(domains),
                    profile=profile_text(domains),
                    token=secret,
                )
            )
            child = await RunnerChild.start(
                environment_id, directory, self.settings, url=self._url, domains=domains, group=group
            )
        except (OSError, SetupError) as error:
            directory.forget_token()
            raise unavailable(f"its runner cannot be started: {error}") from error
        finally:
            self._starting -= 1
        self._children[environment_id] = child
        nursery.start_soon(self._watch, child)
        is_ready = await self.until_ready(child)
        directory.forget_token()
        if not is_ready:
            await self.end(environment_id)
            _log.error("managed_runner_not_started", environment_id=environment_id, last_words=child.last_words)
            raise unavailable(f"its runner did not start: {child.last_words}")

    async def until_ready(self, child: RunnerChild) -> bool:
        """Wait until a runner takes tasks; return False when it ended or did not come in time."""
        with trio.move_on_after(self.settings.start_s):
            # Of a runner's first heartbeat nothing tells.
            while child.is_running and not self.takes_tasks(child.environment_id):  # noqa: ASYNC110 - two owners, no event
                await trio.sleep(0.05)
        return child.is_running and self.takes_tasks(child.environment_id)

    async def _watch(self, child: RunnerChild) -> None:
        try:
            await child.watch()
        finally:
            if self._children.get(child.environment_id) is child:
                del self._children[child.environment_id]

    async def end(self, environment_id: str) -> None:
        """End a sandbox's runner, if it has one."""
        child = self._children.get(environment_id)
        if child is not None:
            await child.end()
            if self._children.get(environment_id) is child:
                del self._children[environment_id]

    async def end_all(self) -> None:
        """End every runner."""
        async with trio.open_nursery() as nursery:
            for environment_id in list(self._children):
                nursery.start_soon(self.end, environment_id)

    async def tidy(self) -> None:
        """Remove the groups of runners that have ended, after `end_all` and everything that it waited for."""
        if self._freezer is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._freezer.close)

    # Frozen and thawed.

    async def freeze(self, environment_id: str, *, domains: tuple[Domain, ...]) -> bool:
        """Stop a runner where it is; return False where it was ended instead."""
        child = self._children[environment_id]
        frozen = [one for one in self._children.values() if one.is_frozen]
        if child.can_freeze and child.domains == domains and self.settings.frozen:
            for one in frozen[: max(0, len(frozen) + 1 - self.settings.frozen)]:
                await self.end(one.environment_id)
            try:
                await child.freeze()
            except OSError as error:
                _log.warning("managed_sandbox_not_frozen", environment_id=environment_id, error=str(error))
            else:
                # The last in the order of being frozen.
                self._children[environment_id] = self._children.pop(environment_id)
                await self._let_go(environment_id)
                return True
        await self.end(environment_id)
        return False

    async def thaw(self, child: RunnerChild) -> bool:
        """Let a frozen runner go on; return False where another must be started."""
        try:
            await child.thaw()
        except OSError as error:
            _log.warning("managed_sandbox_not_thawed", environment_id=child.environment_id, error=str(error))
            return False
        return await self.until_ready(child)

    async def _let_go(self, environment_id: str) -> None:
        """Give up the connection of a frozen runner, which answers nothing."""
        self._links.close(environment_id, reason="its sandbox is frozen")
        with trio.move_on_after(LET_GO_S):
            # Of a link's end nothing tells.
            while self._links.find(environment_id) is not None:  # noqa: ASYNC110 - no event for it
                await trio.sleep(0.02)
