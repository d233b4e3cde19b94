"""A process of its own that counts what many commands through the real runner leave over: `test_thousand_commands.py`.

Whatever is below this process is of these commands: in the process of the tests there would be the runners and hubs of
other tests too, some only about to end. Prints the counts before and after; an assertion that fails ends it.
"""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from guardhouse.runner.reconnect import STEADY_AFTER_S
from tests.support.census import Census, Process, below, subreaper
from tests.support.platform_stub import Peer, PlatformStub, open_stub
from tests.support.runner_process import RunnerProcess, make_directory, remove_directory, start_runner
from tests.support.turns import take_turns

TOKEN = "wnt_census"
ROUNDS_MAX = 10
# Pages that the monitor shares with the launcher become its own one by one, fewer each time. A single object of 60
# bytes kept for each program would be 290 KiB a round of the long form, for ever.
SETTLED_KIB = 128
EXECS = 5000 if "GUARDHOUSE_LEAK_COMMANDS" in os.environ else 600
COMMANDS = int(os.environ.get("GUARDHOUSE_LEAK_COMMANDS", "100"))
TIMES_EACH = int(os.environ.get("GUARDHOUSE_LEAK_TIMES", "3"))
LIMIT_S = 60.0

# Takes hold of everything that a command can leave behind, ignores SIGTERM and scatters its processes.
HOARD = r"""
import ctypes, os, select, signal, socket, tempfile, time
libc = ctypes.CDLL(None, use_errno=True)
for n in range(3):
    libc.shmget(0x67680000 + n, 4096, 0o1600)
    libc.msgget(0x67680000 + n, 0o1600)
    libc.semget(0x67680000 + n, 1, 0o1600)
held = [libc.mq_open(b"/census-left", os.O_CREAT | os.O_RDWR, 0o600, None)]
for place in ("/tmp", "/var/tmp", "/dev/shm"):
    open(place + "/census-left", "w").write("x" * 100000)
    os.mkfifo(place + "/census-left-pipe")
for name in ("/tmp/census-left-socket", "\0census-left-" + os.urandom(6).hex()):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].bind(name)
    held[-1].listen()
held += [os.memfd_create("census-left"), os.eventfd(0), select.epoll(), *os.openpty(), *os.pipe()]
held.append(libc.inotify_init1(0))
try:
    held.append(socket.create_server(("127.0.0.1", 0)))
except OSError:
    pass  # a profile without network
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("begun", flush=True)
        time.sleep(712)
time.sleep(712)
"""
TREE = f"""
setsid sleep 712.5 & (sleep 712.5 & sleep 712.5) & ( (sleep 712.5 &) & )
/usr/bin/python3 -I -c '{HOARD}'
sleep 712.5"""
# Only SIGKILL ends it, after the grace of 10 s.
STUBBORN = f"trap '' TERM\n{TREE}"
PLAIN = (
    "true",
    "ls /usr | head -2 | wc -l",
    "echo x > /tmp/census-left; mkfifo /dev/shm/census-left; sleep 300 & setsid sleep 300 & exit 3",
    "no-such-program-here",
    "for i in 1 2 3 4 5; do /bin/true; done; kill -9 $$",
    "seq 1 30000",
    "/usr/bin/python3 -I -c 'import ctypes; ctypes.CDLL(None).shmget(7, 4096, 0o1600); print(1)'",
)


@dataclass
class Bench:
    """The runner under test, started again whenever it was killed, and the connection to it."""

    stub: PlatformStub
    directory: Path
    census: Census
    account: str | None
    runner: RunnerProcess = field(init=False)
    peer: Peer = field(init=False)
    connected_at_s: float = field(init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run a runner of its own over the same state until the block ends, however it ends."""
        arguments = () if self.account is None else ("--run-as", self.account)
        async with start_runner(self.stub.url, token=TOKEN, directory=self.directory, arguments=arguments) as runner:
            self.runner = runner
            await self.connect()
            self.census.note_launchers()
            yield

    async def connect(self) -> None:
        """Take the runner's next connection."""
        self.peer = await self.stub.peer(timeout_s=LIMIT_S)
        self.connected_at_s = time.monotonic()

    async def run(self, command: str, **arguments: object) -> dict:
        return await self.peer.result_of(
            await self.peer.ask("bash", {"command": command, **arguments}),
            timeout_s=LIMIT_S + float(str(arguments.get("timeout", 0))),
        )

    async def begin_tree(self, command: str = TREE, **arguments: object) -> str:
        """Start a command that holds on to everything; return its task's id once all of it is there."""
        task_id = await self.peer.ask("bash", {"command": command, **arguments})
        await self.peer.output_with(task_id, "begun", timeout_s=LIMIT_S)
        self.census.note_launchers()
        return task_id

    async def settle(self, wanted: dict[str, object] | None = None) -> dict[str, object]:
        """Return the counts of a runner at rest with one idle slot: ``wanted``, or those after some time without it."""
        # Every worker that is started when it is first needed, then the slot.
        for command in ("seq 1 30000", "true", "true", "true"):
            await self.run(command)
        shutil.rmtree(self.runner.workspace / ".work")
        found: dict[str, object] = {}
        same = 0
        with trio.move_on_after(LIMIT_S):
            while found != wanted if wanted is not None else same < 5:
                self.census.reap(self.runner.process.pid)
                now = self.census.take()
                at_rest = now == found and now["processes"].get("guardhouse-monitor", 0) == 1
                same, found = (same + 1 if at_rest else 0), now
                await trio.sleep(0.1)
        return found


def one_of(title: str, *, parent: int | None = None) -> Process:
    """Return our one process with ``title`` in its role."""
    found = [p for p in below(os.getpid()).values() if title in p.role and parent in (None, p.parent)]
    assert found, (title, below(os.getpid()))
    return found[0]


def of_the_command() -> list[Process]:
    """Return the processes of the tree: sleepers and hoarders in a slot, not what another test left to this process."""
    everybody = below(os.getpid())
    found = [p for p in everybody.values() if p.role.startswith(("sleep N", "pythonN -I -c"))]
    return [process for process in found if _slot_of(process, everybody) is not None]


def _slot_of(process: Process, everybody: dict[int, Process]) -> Process | None:
    """Return pid 1 of the slot that a process is in."""
    while process.role != "guardhouse-init":
        if process.parent not in everybody:
            return None
        process = everybody[process.parent]
    return process


def init_pid() -> int:
    """Return pid 1 of the command's slot; a former slot may still be about to end."""
    slot = _slot_of(of_the_command()[0], below(os.getpid()))
    assert slot is not None
    return slot.pid


def monitor_pid() -> int:
    """Return who traces the command: the exec gate's monitor."""
    status = Path(f"/proc/{of_the_command()[0].pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("TracerPid:")).split()[1])


async def ended_with(bench: Bench, task_id: str, words: str) -> None:
    """The task's result comes and says ``words`` somewhere."""
    result = await bench.peer.result_of(task_id, timeout_s=LIMIT_S)
    assert words in json.dumps(result), result


async def by_time_limit(bench: Bench) -> None:
    """Of however much of the tree is there by then: nobody can say that a busy host starts all of it in time."""
    task_id = await bench.peer.ask("bash", {"command": TREE, "timeout": 1})
    await ended_with(bench, task_id, '"timed_out": true')
    bench.census.note_launchers()


async def by_cancel(bench: Bench) -> None:
    task_id = await bench.begin_tree()
    await bench.peer.say("task.cancel", {"task_id": task_id})
    await ended_with(bench, task_id, '"cancelled": true')


async def by_cancel_of_a_stubborn_one(bench: Bench) -> None:
    """It ignores SIGTERM, so only the end of its grace ends it."""
    task_id = await bench.begin_tree(STUBBORN)
    await bench.peer.say("task.cancel", {"task_id": task_id})
    await ended_with(bench, task_id, '"cancelled": true')


async def by_kill_of_the_command(bench: Bench) -> None:
    task_id = await bench.begin_tree()
    # The shell above the hoarder; what it leaves behind is for pid 1 to end.
    os.kill(next(p.parent for p in of_the_command() if "python" in p.role), signal.SIGKILL)
    await bench.peer.result_of(task_id, timeout_s=LIMIT_S)


async def by_kill_of_init(bench: Bench) -> None:
    task_id = await bench.begin_tree()
    os.kill(init_pid(), signal.SIGKILL)
    await bench.peer.result_of(task_id, timeout_s=LIMIT_S)


async def by_kill_of_the_monitor(bench: Bench) -> None:
    task_id = await bench.begin_tree()
    os.kill(monitor_pid(), signal.SIGKILL)
    await bench.peer.result_of(task_id, timeout_s=LIMIT_S)


async def by_kill_of_the_slot(bench: Bench) -> None:
    """Both processes of a slot at once: nobody of it can tidy up."""
    task_id = await bench.begin_tree()
    for pid in (monitor_pid(), init_pid()):
        # The end of either is the end of the other, which may have come already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await bench.peer.result_of(task_id, timeout_s=LIMIT_S)


async def by_cut(bench: Bench) -> None:
    """The connection breaks in the middle; the command goes on, is cancelled over the next one, and is answered."""
    task_id = await bench.begin_tree()
    # A connection that did not hold would make the runner wait longer after each: up to five minutes.
    await trio.sleep(max(0.0, STEADY_AFTER_S + 0.5 - (time.monotonic() - bench.connected_at_s)))
    await bench.peer.cut()
    await bench.connect()
    await bench.peer.say("task.cancel", {"task_id": task_id})
    await ended_with(bench, task_id, '"cancelled": true')


def launcher() -> Process:
    return one_of("__main__", parent=one_of("guardhouse run").pid)


async def by_kill_of_the_launcher(bench: Bench) -> None:
    await bench.begin_tree()
    await bench.peer.ask("bash", {"command": "sleep 712.5"})
    os.kill(launcher().pid, signal.SIGKILL)
    assert await bench.runner.ended(timeout_s=LIMIT_S) == 125


async def by_kill_of_launcher_and_sweeper(bench: Bench) -> None:
    """Who would tidy up for the launcher is gone too: the next launcher does it at its start."""
    await bench.begin_tree()
    doomed = [launcher().pid, *(p.pid for p in below(os.getpid()).values() if "guardhouse-sweeper" in p.role)]
    for pid in doomed:
        os.kill(pid, signal.SIGSTOP)
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    assert await bench.runner.ended(timeout_s=LIMIT_S) == 125


async def by_kill_of_the_runner(bench: Bench) -> None:
    await bench.begin_tree()
    await bench.peer.ask("bash", {"command": "sleep 712.5"})
    bench.runner.process.kill()
    await bench.runner.ended(timeout_s=LIMIT_S)


async def by_kill_of_everything_of_ours(bench: Bench) -> None:
    """Runner, launcher, keeper, sweeper and monitors at one moment, commands left to the kernel."""
    await bench.begin_tree()
    ours = [p.pid for p in below(os.getpid()).values() if not p.role.startswith(("sleep", "bash", "pythonN -I -c"))]
    for pid in sorted(ours):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await bench.runner.ended(timeout_s=LIMIT_S)


WAYS = (
    by_time_limit,
    by_cancel,
    by_kill_of_the_command,
    by_kill_of_init,
    by_kill_of_the_monitor,
    by_kill_of_the_slot,
    by_cut,
)
FATAL_WAYS = (
    by_kill_of_the_launcher,
    by_kill_of_launcher_and_sweeper,
    by_kill_of_the_runner,
    by_kill_of_everything_of_ours,
)


@contextmanager
def own_directory() -> Iterator[Path]:
    """Make a runner's directory, with what anybody of ours makes as a temporary file inside it."""
    place = make_directory()
    scratch = place / "scratch"
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    yield place
    remove_directory(place)


def account_of_nobody_else(directory: Path) -> tuple[str | None, int]:
    """Return the account for the commands: where root runs this, one that no other test has."""
    if os.geteuid() != 0:
        return None, os.getuid()
    entry = next(e for name in ("uucp", "irc", "games") for e in pwd.getpwall() if e.pw_name == name)
    os.chown(directory.with_name(directory.name + "-workspace"), entry.pw_uid, entry.pw_gid)
    return entry.pw_name, entry.pw_uid


async def check_nothing_is_left_over(directory: Path) -> None:
    """Counts by kind are the same before and after, with a runner at rest, and without one nothing is there at all."""
    account, uid = account_of_nobody_else(directory)
    workspace = directory.with_name(directory.name + "-workspace")
    mark = "census-left" if account is None else ""
    census = Census((directory / "scratch", directory / "state", workspace), uid, mark)
    each = max(TIMES_EACH, -(-COMMANDS // 10 // len(WAYS + FATAL_WAYS)))
    killed = each * len(WAYS + FATAL_WAYS)
    plain = [PLAIN[n % len(PLAIN)] for n in range(max(len(PLAIN), COMMANDS - killed))]
    share = len(plain) // (each * len(FATAL_WAYS) + 1)
    stubborn = 5 if COMMANDS >= 1000 else 0
    before: dict[str, object] | None = None
    began_s = time.monotonic()
    with subreaper():
        async with open_stub(TOKEN) as stub:
            bench = Bench(stub, directory, census, account)
            nothing = census.take()
            for fatal in [way for _ in range(each) for way in FATAL_WAYS]:
                async with bench.running():
                    before = before or await bench.settle()
                    for _ in range(share):
                        await bench.run(plain.pop())
                    await fatal(bench)
                    census.reap()
            async with bench.running():
                while plain:
                    await bench.run(plain.pop())
                for way in [*([by_cancel_of_a_stubborn_one] * stubborn), *(way for _ in range(each) for way in WAYS)]:
                    await way(bench)
                check_saved_outputs(workspace)
                after = await bench.settle(before)
                tell(f"{COMMANDS} commands, {killed + stubborn} killed, {time.monotonic() - began_s:.0f} s")
                tell(f"before {json.dumps(before)}\nafter  {json.dumps(after)}")
                assert after == before
                bench.runner.terminate()
                await bench.runner.ended(timeout_s=LIMIT_S)
            for path in (directory / "state", workspace):
                shutil.rmtree(path)
            left = nothing
            with trio.move_on_after(LIMIT_S):
                while comparable(left := census.take()) != comparable(nothing):
                    census.reap()
                    await trio.sleep(0.1)
    tell(f"with no runner {json.dumps(left)}")
    assert comparable(left) == comparable(nothing)


async def check_many_programs_in_one_command_leave_nothing_in_the_monitor(directory: Path) -> None:
    """The exec gate's monitor has the same descriptors after them, and its memory stops growing with more of them."""
    account, uid = account_of_nobody_else(directory)
    with subreaper():
        async with open_stub(TOKEN) as stub:
            bench = Bench(stub, directory, Census((directory,), uid), account)
            async with bench.running():
                await bench.settle()
                monitor = one_of("guardhouse-monitor", parent=launcher().pid).pid
                text = f"for ((n = 0; n < {EXECS}; n++)); do /bin/true; done; echo $n"
                seen = [figures_of(monitor)]
                while len(seen) < 3 or (seen[-1][1] > seen[-2][1] + SETTLED_KIB and len(seen) < ROUNDS_MAX):
                    assert (await bench.run(text, timeout=300))["result"]["stdout"] == f"{EXECS}\n"
                    await bench.run("true")
                    seen.append(figures_of(monitor))
            bench.census.reap()
    tell(f"{EXECS} programs a command, monitor's (descriptors, KiB): {seen}")
    assert len({descriptors for descriptors, _ in seen}) == 1
    assert seen[-1][1] <= seen[-2][1] + SETTLED_KIB, seen


def figures_of(pid: int) -> tuple[int, int]:
    """Return open descriptors and private memory in KiB; 0 for what an ordinary user cannot look into."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return len(os.listdir(f"/proc/{pid}/fd")), sum(int(x.split()[1]) for x in lines if x.startswith("Private_"))
    except PermissionError:
        return 0, 0


def check_saved_outputs(workspace: Path) -> None:
    """What long outputs were saved is there under its final name and nothing else; then it is taken away."""
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert re.fullmatch(r"\.work/outputs/bash_[a-z2-7]{8}_[0-9]+\.txt", str(path.relative_to(workspace))), path
    shutil.rmtree(workspace / ".work")


def comparable(counts: dict) -> dict[str, object]:
    """The counts without what is this test's own: its directories, which it removes, and its end of connections."""
    public = {
        place: names for place, names in counts["files"].items() if place.startswith(("/tmp", "/var", "/dev", "/run"))
    }
    return {**counts, "files": public, "own descriptors": 0}


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")


CHECKS = {
    "everything": check_nothing_is_left_over,
    "monitor": check_many_programs_in_one_command_leave_nothing_in_the_monitor,
}

if __name__ == "__main__":
    with take_turns("census"), own_directory() as own:
        trio.run(CHECKS[sys.argv[1]], own)
