"""One runner that the hub started itself: its process, the end of its log, how it is frozen and how it is ended.

The token is in a file that only the hub's user reads; nothing secret is in the arguments, and of the hub's environment
the runner gets the path and the language alone. Runs in the hub.
"""

import os
import re
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Final

import structlog
import trio

from guardhouse.hub.managed.directory import SandboxDirectory
from guardhouse.hub.managed.freezer import FreezerGroup, thaw_process
from guardhouse.hub.managed.settings import Domain, ManagedSettings

__all__ = ["RunnerChild", "end_leftover"]

_log = structlog.get_logger("guardhouse.hub.managed")

LOG_LINES: Final = 40
LINE_MAX_BYTES: Final = 8_192
# A runner without tasks ends within a second or two of SIGTERM; after this it is killed.
END_S: Final = 20.0
# The whole tree dies with it within a moment; its group can be removed then.
REMOVE_TRIES: Final = 30
REMOVE_EVERY_S: Final = 0.1
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV")


class RunnerChild:
    """A runner process.

    Attributes:
        domains: the allow-list that it was started with.
        is_frozen: every process of its tree is stopped in the kernel's freezer.
    """

    def __init__(
        self,
        environment_id: str,
        process: trio.Process,
        *,
        group: FreezerGroup | None = None,
        domains: tuple[Domain, ...] = (),
    ) -> None:
        self.environment_id = environment_id
        self.domains = domains
        self.is_frozen = False
        self._group = group
        self._process = process
        self._tail: deque[str] = deque(maxlen=LOG_LINES)
        self.ended = trio.Event()

    @classmethod
    async def start(
        cls,
        environment_id: str,
        directory: SandboxDirectory,
        settings: ManagedSettings,
        *,
        url: str,
        domains: tuple[Domain, ...],
        group: FreezerGroup | None,
    ) -> "RunnerChild":
        """Start a runner over a laid-out directory; `watch` must run in a nursery from then on.

        Args:
            domains: what the directory's profile allows.
            group: where it and all that it starts belong, so that they can be frozen; None where they cannot.

        Raises:
            OSError: the program cannot be started.
        """
        side_by_side = max(1, settings.tasks // 4)
        words = [
            sys.executable, "-m", "guardhouse", "run",
            "--url", url, "--protocol", "v1", "--token-file", str(directory.token),
            "--state-dir", str(directory.state), "--policy", str(directory.policy), "--profile", str(directory.profile),
            "--workspace-quota", str(settings.size_bytes), "--workspace-quota-files", str(settings.files),
            "--max-tasks", str(side_by_side), "--drain-timeout", "5", "--log-level", "warn",
            *(("--run-as", settings.run_as) if settings.run_as is not None else ()),
        ]  # fmt: skip
        if group is not None:
            await trio.to_thread.run_sync(group.make)
            # It enters by itself, before it is a runner: nothing of its tree can be left outside.
            words = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.procs_file), *words]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        # A session of its own: Ctrl-C at the hub's terminal is the hub's, which then ends its runners in order.
        process = await trio.lowlevel.open_process(
            words, stdin=-3, stdout=-3, stderr=-1, env=environment, cwd="/", start_new_session=True
        )
        directory.pid.write_text(f"{process.pid}\n", encoding="ascii")
        return cls(environment_id, process, group=group, domains=domains)

    async def watch(self) -> None:
        """Keep the end of its log until it has ended; cancelling this kills it."""
        try:
            if self._process.stderr is not None:
                pending = b""
                async for chunk in self._process.stderr:
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        self._tail.append(line.decode("utf-8", "replace"))
                    pending = pending[-LINE_MAX_BYTES:]
            await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                with trio.CancelScope(shield=True):
                    await self.thaw()
                    await self._process.wait()
            self.ended.set()
            with trio.CancelScope(shield=True):
                await self._remove_group()
            _log.info("managed_runner_ended", environment_id=self.environment_id, status=self._process.returncode)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def last_words(self) -> str:
        """The last line of its log, for whoever asks why it ended."""
        return self._tail[-1][-1_024:] if self._tail else "it said nothing"

    @property
    def can_freeze(self) -> bool:
        """Whether there is a freezer for it."""
        return self._group is not None

    async def freeze(self) -> None:
        """Stop every process of its tree where it is.

        Raises:
            OSError: there is no freezer, or the kernel refuses; then all of it goes on.
        """
        if self._group is None:
            raise OSError("this runner was started without a freezer")
        await trio.to_thread.run_sync(self._group.freeze)
        self.is_frozen = True

    async def thaw(self) -> None:
        """Let its tree go on, if it is frozen."""
        if self._group is not None and self.is_frozen:
            await trio.to_thread.run_sync(self._group.thaw)
            self.is_frozen = False

    async def _remove_group(self) -> None:
        for _ in range(REMOVE_TRIES):
            if self._group is None or await trio.to_thread.run_sync(self._group.remove):
                return
            await trio.sleep(REMOVE_EVERY_S)
        _log.warning("managed_group_left", environment_id=self.environment_id)

    async def end(self) -> None:
        """Ask it to drain and wait until it has ended; kill it when it does not."""
        if self.is_running:
            # What is frozen hears no signal, not even the last one (cgroup v1).
            await self.thaw()
            self._process.send_signal(signal.SIGTERM)
            with trio.move_on_after(END_S):
                await self.ended.wait()
                return
            _log.warning("managed_runner_killed", environment_id=self.environment_id)
            self._process.kill()
        await self.ended.wait()


def end_leftover(directory: SandboxDirectory) -> bool:
    """Kill the runner of a hub that was itself killed, if it is still there; return whether it was.

    A number alone is not believed: the process must be a runner that was started over this very directory.
    """
    try:
        text = directory.pid.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return False
    if not re.fullmatch(r"[0-9]{1,10}", text):
        return False
    try:
        words = Path(f"/proc/{text}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(directory.state) not in words:
            return False
        os.kill(int(text), signal.SIGKILL)
        thaw_process(int(text), name=directory.path.name)
    except OSError:
        return False
    return True
