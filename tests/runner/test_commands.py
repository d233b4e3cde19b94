"""The command service with a launcher that keeps the real one's promises and starts nothing."""

import os

import pytest
import trio

from guardhouse.errors import PeerError, Refusal
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest, StopReason
from guardhouse.policy import load_policy
from guardhouse.policy.decision import CommandDenied, Decision
from guardhouse.policy.shell import read_command
from guardhouse.runner.admission import NotAdmitted, check_admitted
from guardhouse.runner.command_parts import OutputClosedError, StopSignal
from guardhouse.runner.command_run import CommandRequest
from guardhouse.runner.commands import CommandService
from guardhouse.runner.rules import make_judge
from guardhouse.values import Stream, Verdict

POLICY = load_policy(
    """
permission:
  bash:
    "*": deny
    "echo *": allow
    "ps": allow
    "restart *": ask
""",
    name="test.yaml",
)
ENDED = CommandOutcome(
    exit_code=0, signal=None, timed_out=False, cancelled=False, duration_s=0.1, cpu_user_s=0, cpu_system_s=0,
    peak_memory_bytes=None, oom_killed=False, denied_syscalls={}, killed_descendants=0, notes=(), reason=None,
)  # fmt: skip


class FakeRunning:
    proxy_listener = None

    def __init__(self, write, descriptors) -> None:
        self.stopped: list[StopReason] = []
        self.abandoned = False
        self._write, self._descriptors = write, descriptors
        self.stop_asked = trio.Event()

    async def wait(self) -> CommandOutcome:
        try:
            await trio.to_thread.run_sync(self._write, *self._descriptors, abandon_on_cancel=True)
            if self.stopped is not None and self._write is _until_stopped:
                await self.stop_asked.wait()
        finally:
            for descriptor in self._descriptors:
                os.close(descriptor)
        return ENDED

    async def stop(self, reason: StopReason) -> None:
        self.stopped.append(reason)
        self.stop_asked.set()
        await trio.lowlevel.checkpoint()

    async def abandon(self) -> None:
        self.abandoned = True


def _until_stopped(_out: int, _err: int) -> None:
    return None


class FakeLauncher:
    """Writes what ``write(stdout_fd, stderr_fd)`` writes, as a command would."""

    def __init__(self, write) -> None:
        self._write = write
        self.requests: list[LaunchRequest] = []
        self.running: FakeRunning | None = None

    async def launch(self, request, *, stdin_fd, stdout_fd, stderr_fd) -> FakeRunning:
        assert stdin_fd is None
        self.requests.append(request)
        self.running = FakeRunning(self._write, (os.dup(stdout_fd), os.dup(stderr_fd)))
        await trio.lowlevel.checkpoint()
        return self.running


def service(launcher, *, has_gate: bool = False) -> CommandService:
    return CommandService(
        judge=make_judge(POLICY, reader=read_command),
        launcher=launcher,
        profile="observe",
        profiles=frozenset({"observe"}),
        has_gate=has_gate,
    )


class Gathered:
    def __init__(self) -> None:
        self.chunks: dict[Stream, bytes] = {Stream.STDOUT: b"", Stream.STDERR: b""}

    async def __call__(self, stream: Stream, data: bytes) -> None:
        self.chunks[stream] += data
        await trio.lowlevel.checkpoint()


def write_both(out: int, err: int) -> None:
    os.write(out, b"out \xff\x00")
    os.write(err, b"err")


def write_100_kib(out: int, _err: int) -> None:
    for _ in range(100):
        os.write(out, b"x" * 1024)


async def run(text: str, write, *, sink=None, stop=None, **limits):
    launcher = FakeLauncher(write)
    commands = service(launcher)
    admitted = await commands.admit(CommandRequest(text=text, timeout_s=9))
    return await commands.run(admitted, sink or Gathered(), stop=stop or StopSignal(), **limits), launcher


async def test_bytes_are_exact() -> None:
    """What a command writes reaches sink and capture byte for byte, each stream by itself."""
    sink = Gathered()
    done, launcher = await run("echo hi", write_both, sink=sink)
    assert sink.chunks == {Stream.STDOUT: b"out \xff\x00", Stream.STDERR: b"err"}
    assert (done.stdout.content, done.stderr.content) == (b"out \xff\x00", b"err")
    assert launcher.requests == [
        LaunchRequest(profile="observe", argv=("bash", "-c", "echo hi"), workdir="", timeout_s=9, grace_s=10.0)
    ]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        pytest.param("rm -rf /", Refusal, "command denied: 'rm -rf /' matches '*' (test.yaml:4:5)", id="denied"),
        pytest.param("echo a; rm b", Refusal, "command denied: 'rm b'", id="one part denied"),
        pytest.param("restart nginx", NotAdmitted, "needs a person's approval", id="ask"),
        pytest.param('c=$(ps); "$c"', Refusal, "command denied: ", id="only the exec gate could tell"),
        pytest.param("echo " + "x" * 131_072, PeerError, "invalid bash args: a command of 131077 bytes", id="too long"),
        pytest.param("echo a\0b", PeerError, "invalid bash args: the command holds a NUL byte", id="NUL"),
    ],
)
async def test_not_admitted(text, kind, words) -> None:
    """What gate one does not admit is never handed to the launcher, and the message says why."""
    launcher = FakeLauncher(write_both)
    with pytest.raises(kind) as caught:
        await service(launcher).admit(CommandRequest(text=text, timeout_s=9))
    assert words in str(caught.value)
    assert launcher.requests == []


async def test_a_slow_sink_stops_the_reading() -> None:
    """While the sink does not return, the pipe is not read: the writer blocks once the kernel's buffer is full."""
    open_up = trio.Event()
    taken = 0

    async def sink(_stream: Stream, data: bytes) -> None:
        nonlocal taken
        await open_up.wait()
        taken += len(data)

    def write(out: int, _err: int) -> None:
        for _ in range(1024):
            os.write(out, b"x" * 1024)

    async with trio.open_nursery() as nursery:

        async def command() -> None:
            done, _ = await run("echo hi", write, sink=sink)
            assert done.stdout.kept_bytes == 1024 * 1024

        nursery.start_soon(command)
        await trio.sleep(0.2)
        assert taken == 0
        open_up.set()
    assert taken == 1024 * 1024


async def test_past_the_limit_output_is_read_and_counted() -> None:
    """The command is not held up by the limit; what is beyond it is counted and not sent."""
    sink = Gathered()
    done, _ = await run("echo hi", write_100_kib, sink=sink, capture_limit_bytes=1000)
    assert len(sink.chunks[Stream.STDOUT]) == done.stdout.kept_bytes == 1000
    assert done.stdout.dropped_bytes == 100 * 1024 - 1000


async def test_stop_reaches_the_command() -> None:
    """Setting the signal stops the running command with its reason, once."""
    stop = StopSignal()
    async with trio.open_nursery() as nursery:

        async def command() -> None:
            _, launcher = await run("echo hi", _until_stopped, stop=stop)
            assert launcher.running.stopped == [StopReason.SHUTDOWN]

        nursery.start_soon(command)
        await trio.sleep(0.05)
        stop.set(StopReason.SHUTDOWN)
        stop.set(StopReason.CANCEL)


async def test_a_closed_reader_closes_the_pipe() -> None:
    """When nobody reads any more, the command sees a broken pipe, as in a shell."""

    async def sink(_stream: Stream, _data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise OutputClosedError

    seen = []

    def write(out: int, _err: int) -> None:
        try:
            for _ in range(1000):
                os.write(out, b"x" * 1024)
        except BrokenPipeError:
            seen.append("EPIPE")

    await run("echo hi", write, sink=sink)
    assert seen == ["EPIPE"]


async def test_a_decision_is_for_its_own_text() -> None:
    """A decision cannot admit another text than the one it judged."""
    commands = service(FakeLauncher(write_both))
    decision = await commands.judge("echo hi")
    with pytest.raises(Exception, match="another text"):
        await commands.admit_decided(CommandRequest(text="rm -rf /", timeout_s=9), decision)


async def test_a_judge_that_does_not_end_denies(monkeypatch) -> None:
    """A text that takes too long to read is denied, and the event loop goes on meanwhile."""
    import threading

    release = threading.Event()
    monkeypatch.setattr("guardhouse.runner.commands.JUDGE_TIMEOUT_S", 0.1)
    commands = CommandService(
        judge=lambda _text, _requester: release.wait(),
        launcher=FakeLauncher(write_both),
        profile="p",
        profiles=frozenset({"p"}),
        has_gate=False,
    )
    with pytest.raises(Refusal, match="did not come to a decision"):
        await commands.admit(CommandRequest(text="echo", timeout_s=1))
    release.set()


def judge_listing(text: str, _requester: str | None = None) -> Decision:
    policy = load_policy('permission: {bash: {"*": deny, "ls *": allow}}', name="p")
    return make_judge(policy, reader=read_command)(text)


def test_what_text_cannot_decide_is_left_to_the_exec_gate_where_there_is_one() -> None:
    """Undecided runs behind the gate and is refused without it; a deny is a deny either way."""
    undecided = make_judge(
        load_policy('permission: {bash: {"*": deny, "ls *": allow}}', name="p"), reader=read_command
    )("x=ls; $x")
    assert undecided.verdict is Verdict.UNDECIDED
    check_admitted(undecided, has_gate=True)
    with pytest.raises(NotAdmitted, match="only the exec gate could tell"):
        check_admitted(undecided, has_gate=False)
    denied = make_judge(load_policy('permission: {bash: {"*": deny, "ls *": allow}}', name="p"), reader=read_command)(
        "x=ls; $x; rm f"
    )
    with pytest.raises(CommandDenied):
        check_admitted(denied, has_gate=True)


async def test_without_a_gate_an_open_text_runs_narrowed_where_the_profile_permits_it() -> None:
    """What the text leaves open runs under the plan with listed programs, and says so; what it decides, as ever."""
    commands = CommandService(
        judge=judge_listing,
        launcher=FakeLauncher(write_both),
        profile="observe",
        profiles=frozenset({"observe"}),
        has_gate=False,
        narrowed=frozenset({"observe"}),
    )
    admitted = await commands.admit(CommandRequest(text="x=ls; $x", timeout_s=9))
    assert admitted.launch.profile == "observe.allowed-files"
    assert "any arguments" in admitted.notes[0]
    plain = await commands.admit(CommandRequest(text="ls a", timeout_s=9))
    assert (plain.launch.profile, plain.notes) == ("observe", ())
    with pytest.raises(CommandDenied):
        await commands.admit(CommandRequest(text="x=ls; $x; rm f", timeout_s=9))
