"""Our runner as a real process, with its state and workspace in a directory that other accounts may pass."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from guardhouse.runner.identity import resolve_account

POLICY = 'permission:\n  bash:\n    "*": allow\n    "forbidden *": deny\n'

# RLIMIT_NPROC counts per account, and nobody is the account of many programs of a host: take one that few use.
ACCOUNT = "games" if os.geteuid() == 0 else None


@dataclass
class RunnerProcess:
    process: trio.Process
    directory: Path
    log: bytearray = field(default_factory=bytearray)
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def text(self) -> str:
        return self.log.decode("utf-8", "replace")

    async def _collect(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log += chunk
            self._news.set()
            self._news = trio.Event()

    async def logged(self, words: str, *, timeout_s: float = 30.0) -> None:
        with trio.move_on_after(timeout_s):
            while words not in self.text:
                await self._news.wait()
            return
        raise AssertionError(f"not logged within {timeout_s} s: {words!r}\n{self.text}")

    async def appeared(self, path: Path, *, timeout_s: float = 30.0) -> None:
        """Wait until a command has made a file: nothing but the file tells of it."""
        with trio.fail_after(timeout_s):
            while not path.exists():  # noqa: ASYNC110, ASYNC240 - a file
                await trio.sleep(0.02)

    async def ended(self, *, timeout_s: float = 30.0) -> int:
        with trio.move_on_after(timeout_s):
            status = await self.process.wait()
            await trio.sleep(0.05)
            return status
        raise AssertionError(f"still running after {timeout_s} s\n{self.text}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    @property
    def workspace(self) -> Path:
        return _workspace_of(self.directory)


def make_directory() -> Path:
    """A directory that every account can pass through, unlike pytest's own below a private one."""
    directory = Path(tempfile.mkdtemp(prefix="guardhouse-test-"))
    directory.chmod(0o755)
    (directory / "policy.yaml").write_text(POLICY)
    workspace = _workspace_of(directory)
    workspace.mkdir(mode=0o700)
    if os.geteuid() == 0:
        account = resolve_account(ACCOUNT, effective_uid=0)
        os.chown(workspace, account.uid, account.gid)
    return directory


def remove_directory(directory: Path) -> None:
    for place in (directory, _workspace_of(directory)):
        shutil.rmtree(place, ignore_errors=True)


def _workspace_of(directory: Path) -> Path:
    return directory.with_name(directory.name + "-workspace")


@asynccontextmanager
async def start_runner(
    url: str,
    *,
    token: str,
    directory: Path | None = None,
    arguments: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
) -> AsyncIterator[RunnerProcess]:
    """Run `guardhouse run` towards ``url``; what still runs at the end is killed."""
    own = directory is None
    place = directory or make_directory()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GUARDHOUSE_", "FLASHDUTY_"))
    }
    environment |= {"GUARDHOUSE_TOKEN": token} if environ is None else environ
    command = [
        sys.executable, "-m", "guardhouse", "run", "--url", url, "--state-dir", str(place / "state"),
        "--policy", str(place / "policy.yaml"), "--workspace", str(_workspace_of(place)), "--log-level", "debug",
        *(("--run-as", ACCOUNT) if ACCOUNT is not None else ()), *arguments,
    ]  # fmt: skip
    process = await trio.lowlevel.open_process(command, env=environment, stderr=-1, stdin=-3, stdout=-3)
    runner = RunnerProcess(process, place)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner._collect)
            try:
                yield runner
            except BaseException:  # shown whatever failed, and raised again
                sys.stdout.write(runner.text)
                raise
            finally:
                if process.returncode is None:
                    process.kill()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await process.wait()
        if own:
            remove_directory(place)
