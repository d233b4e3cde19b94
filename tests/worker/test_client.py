"""FilesClient over the worker's real main: results, refusals, cancelling, dying, and a worker that talks nonsense."""

import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from guardhouse.errors import PeerError
from guardhouse.wire import operations as wire
from guardhouse.worker import files, protocol
from guardhouse.worker.client import FilesClient, WorkerDied
from guardhouse.worker.settings import FilesSettings
from guardhouse.workspace import Code, PathEscapesWorkspace, WorkspaceRefusal


class Forked:
    """A forked worker and the runner's end of its socket."""

    def __init__(self, root: Path, settings: FilesSettings | None = None) -> None:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.sock, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                self.sock.close()
                status = files.main(root_fd, theirs.detach(), settings or FilesSettings(root_path=str(root)))
            finally:
                os._exit(status)
        os.close(root_fd)
        theirs.close()

    def ended(self, *, within_s: float) -> int:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return status
            time.sleep(0.01)
        raise AssertionError("the worker goes on")


@pytest.fixture
def fork(tmp_path: Path) -> Iterator[Callable[[], Forked]]:
    made: list[Forked] = []

    def start(settings: FilesSettings | None = None) -> Forked:
        made.append(Forked(tmp_path, settings))
        return made[-1]

    yield start
    for worker in made:
        worker.sock.close()
        if worker.pid:
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)


async def test_every_operation_has_its_typed_result(fork: Callable[[], Forked], tmp_path: Path) -> None:
    """Typed arguments in, the wire's typed result out, content as bytes."""
    async with FilesClient(fork().sock) as client:
        written = await client.request("write", wire.WriteArgs(path="a/b.txt", content=b"one\ntwo\n"))
        assert isinstance(written, wire.SuccessResult)
        read = await client.request("read", wire.ReadArgs(path="a/b.txt", offset=4))
        checksum = f"sha256:{hashlib.sha256(b'one' + bytes([10]) + read.content).hexdigest()}"
        assert read == wire.ReadResult(content=b"two\n", total_size=8, checksum=checksum)
        assert written.checksum == checksum
        edited = await client.request("edit", wire.EditArgs(path="a/b.txt", old="two", new="2"))
        assert edited.replacements == 1
        listed = await client.request("list", wire.ListArgs(path="a"))
        assert [entry.path for entry in listed.entries] == ["a/b.txt"]
        assert (await client.request("glob", wire.GlobArgs(pattern="**/*.txt"))).matches == ("a/b.txt",)
        found = await client.request("grep", wire.GrepArgs(pattern="ONE", case="insensitive"))
        assert found.content == "a/b.txt:1:one\n"
        assert (await client.request("stat", wire.StatArgs(path="a"))).kind == "directory"
        await client.request("move", wire.MoveArgs(path="a/b.txt", target="c.txt"))
        await client.request("remove", wire.RemoveArgs(path="c.txt"))
        assert os.listdir(tmp_path / "a") == []


async def test_refusals_come_back_as_what_they_are(fork: Callable[[], Forked]) -> None:
    """The class, the code and the text of a refusal cross the socket; the connection goes on."""
    async with FilesClient(fork().sock) as client:
        with pytest.raises(PathEscapesWorkspace, match=r"path escapes workspace: '\.\./x' leaves it at '\.\.'"):
            await client.request("read", wire.ReadArgs(path="../x"))
        with pytest.raises(WorkspaceRefusal) as refused:
            await client.request("read", wire.ReadArgs(path="x"))
        assert refused.value.code is Code.NOT_FOUND
        with pytest.raises(PeerError, match="unknown operation: fly"):
            await client.request("fly", wire.ReadArgs(path="x"))
        with pytest.raises(PeerError, match="invalid read args"):
            await client.ask("read", wire.GlobArgs(pattern="x"), wire.ReadResult)
        assert client.is_alive


async def test_large_bodies_travel_whole(fork: Callable[[], Forked]) -> None:
    """Ten megabytes go both ways unchanged."""
    content = os.urandom(10 << 20)
    async with FilesClient(fork().sock) as client:
        await client.request("write", wire.WriteArgs(path="big", content=content))
        assert (await client.request("read", wire.ReadArgs(path="big"))).content == content


async def test_requests_wait_for_each_other(fork: Callable[[], Forked]) -> None:
    """Many tasks may ask at once; each gets its own answer."""
    async with FilesClient(fork().sock) as client, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            await client.request("write", wire.WriteArgs(path=f"f{number}", content=b"%d" % number))
            assert (await client.request("read", wire.ReadArgs(path=f"f{number}"))).content == b"%d" % number

        for number in range(20):
            nursery.start_soon(ask, number)


def make_slow(tmp_path: Path) -> None:
    """Fill a directory so that searching it takes seconds."""
    with open(tmp_path / "slow", "wb") as slow:
        slow.write(b"abcdefghij\n" * (2 << 20))


async def test_a_cancelled_request_stops_and_the_worker_lives(fork: Callable[[], Forked], tmp_path: Path) -> None:
    """Cancelling in the middle of a search ends the search; the next request is answered by the same worker."""
    make_slow(tmp_path)
    async with FilesClient(fork().sock) as client:
        with trio.move_on_after(0.1) as scope:
            await client.request("grep", wire.GrepArgs(pattern="b.*d"))
        assert scope.cancelled_caught
        assert client.is_alive
        with trio.fail_after(30):
            await client.request("write", wire.WriteArgs(path="x", content=b"x"))


async def test_a_request_that_takes_too_long_is_stopped(fork: Callable[[], Forked], tmp_path: Path) -> None:
    """Its own time limit ends a request with a refusal; the worker, which stopped when told to, lives."""
    make_slow(tmp_path)
    async with FilesClient(fork().sock) as client:
        with pytest.raises(WorkspaceRefusal) as refused:
            await client.request("grep", wire.GrepArgs(pattern="b.*d"), timeout_s=0.1)
        assert refused.value.code is Code.TIMED_OUT
        assert client.is_alive


async def test_a_worker_that_does_not_answer_in_time_is_given_up(fork: Callable[[], Forked], tmp_path: Path) -> None:
    """A late answer is no answer: the request fails, the client is dead, and the worker ends by itself."""
    worker = fork()
    os.kill(worker.pid, signal.SIGSTOP)
    client = FilesClient(worker.sock)
    with pytest.raises(WorkerDied, match="did not answer read within"):
        await client.request("read", wire.ReadArgs(path="x"), timeout_s=0.1)
    assert not client.is_alive
    with pytest.raises(WorkerDied):
        await client.request("read", wire.ReadArgs(path="x"))
    os.kill(worker.pid, signal.SIGCONT)
    worker.ended(within_s=30)


async def test_a_killed_worker_is_told_apart(fork: Callable[[], Forked]) -> None:
    """A worker that dies fails the request with WorkerDied, and every one after it."""
    worker = fork()
    client = FilesClient(worker.sock)
    await client.request("write", wire.WriteArgs(path="x", content=b"x"))
    os.kill(worker.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(WorkerDied):
            await client.request("read", wire.ReadArgs(path="x"))


async def test_closing_the_client_ends_the_worker(fork: Callable[[], Forked]) -> None:
    """The socket is the worker's life: it exits with 0 when the client closes it."""
    worker = fork()
    async with FilesClient(worker.sock) as client:
        await client.request("write", wire.WriteArgs(path="x", content=b"x"))
    assert worker.ended(within_s=30) == 0


def test_the_kernel_ends_a_request_that_hangs(fork: Callable[[], Forked], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker stuck in one request is ended by its own alarm even when nobody listens any more."""
    monkeypatch.setattr(files, "_ALARM_MARGIN_S", 0.2)

    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(files, "serve", hang)
    worker = fork()
    args = msgspec.Raw(b'{"path":"x"}')
    worker.sock.sendall(protocol.render(protocol.Request(id=1, operation="read", deadline_s=0.1, args=args)))
    assert os.WTERMSIG(worker.ended(within_s=30)) == signal.SIGALRM


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 8,
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0\x02\0\0\0\0{}",
        protocol.render(protocol.Reply(id=99, result=msgspec.Raw(b"{}"))),
        protocol.render(protocol.Reply(id=1)),
        b"\0\0\0\x01\0\0\0\0{",
    ],
)
async def test_a_worker_that_talks_nonsense_is_given_up(answer: bytes) -> None:
    """A broken frame, another id or no outcome is a PeerError, and the client asks that worker no more."""
    ours, theirs = socket.socketpair()
    with theirs:
        client = FilesClient(ours)
        theirs.sendall(answer)
        with pytest.raises(PeerError):
            await client.request("read", wire.ReadArgs(path="x"))
        assert not client.is_alive


@pytest.mark.parametrize(
    "sent", [b"\xff" * 8, b"\0\0\0\0\0\0\0\0", b"\0\0\0\x01\0\0\0\0{", b"\0\0\0\x02\0\0\0\0{}", b"\0\0\0\x05\0\0\0\0"]
)
def test_a_client_that_talks_nonsense_ends_the_worker(sent: bytes, fork: Callable[[], Forked]) -> None:
    """A worker that cannot tell what it is asked ends; it never guesses."""
    worker = fork()
    worker.sock.sendall(sent)
    worker.sock.shutdown(socket.SHUT_WR)
    assert os.waitstatus_to_exitcode(worker.ended(within_s=30)) in (0, 1)


async def test_large_text_is_answered_as_its_beginning(fork: Callable[[], Forked], tmp_path: Path) -> None:
    """Text over the bound comes back short, with the file that has the whole."""
    async with FilesClient(fork().sock) as client:
        text, result = await client.bound_text(b"line\n" * 20_000, operation="bash")
        assert result.file_path is not None
        assert result.total_size == 100_000
        assert len(text) <= 8_000
        assert (tmp_path / result.file_path).read_bytes() == b"line\n" * 20_000
        assert (await client.usage()).work_size_bytes >= 100_000
        assert (await client.clean(protocol.CleanArgs(max_bytes=1))).files == 1
