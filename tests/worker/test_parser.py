"""The parser process: it answers, it is confined, it dies of a text that hangs, and another takes its place."""

# ruff: noqa: E501 - tables of attempts are read as rows

import os
import signal
import socket
import subprocess
import sys

import pytest
import trio

from guardhouse.errors import PeerError
from guardhouse.policy.shell import read_command
from guardhouse.worker import parser_protocol as protocol
from guardhouse.worker.parser_client import ParserClient

HANGS = "a'${'"


def spawn(started: list[subprocess.Popen], *, before: str = "pass") -> socket.socket:
    ours, theirs = socket.socketpair()
    script = f"import sys; from guardhouse.worker import parser; {before}; sys.exit(parser.main({theirs.fileno()}, timeout_s=0.7))"
    process = subprocess.Popen([sys.executable, "-c", script], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    theirs.close()
    started.append(process)
    return ours


@pytest.fixture
def started():
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def client(started: list[subprocess.Popen], **options) -> ParserClient:
    async def start() -> socket.socket:
        return await trio.to_thread.run_sync(spawn, started)

    return ParserClient(start, **({"bashlex": True, "timeout_s": 20} | options))


async def test_answers(started) -> None:
    """Both readers answer over the socket, in characters."""
    async with client(started) as parser:
        starts = await parser.ask("é 'x'; ls $(id)")
        assert starts == protocol.Starts(tree_sitter=(0, 7, 12), bashlex=(0, 7, 12))
        assert len(started) == 1


async def test_opinion(started) -> None:
    """What the process saw becomes a second reader for that text."""
    async with client(started, bashlex=False) as parser:
        text = "ls 'a' | cat"
        assert read_command(text, second=await parser.second_opinion(text)).is_understood


async def test_hang_is_killed_and_replaced(started) -> None:
    """A text on which bashlex loops for ever kills the process; the next question finds a new one."""
    async with client(started) as parser:
        await parser.ask("ls 'a'")
        assert await parser.ask(HANGS) == protocol.Starts()
        assert started[0].wait(5) == -signal.SIGALRM
        assert (await parser.ask("id 'b'")).tree_sitter == (0,)
        assert parser.restarts >= 1


async def test_no_answer_is_undecided(started) -> None:
    """Where the process gives no answer the text is undecided, not allowed."""
    async with client(started) as parser:
        assert read_command(HANGS, second=None).is_understood
        assert read_command(HANGS, second=await parser.second_opinion(HANGS)).undecided


async def test_limit_of_the_client(started) -> None:
    """A stopped process costs the client its own time limit and no more."""
    async with client(started, timeout_s=1.0) as parser:
        parser._timeout_s = 20
        await parser.ask("ls 'a'")
        parser._timeout_s = 0.3
        os.kill(started[0].pid, signal.SIGSTOP)
        with trio.fail_after(15):
            assert await parser.ask("id 'a'") is not None


@pytest.mark.parametrize(
    "attempt",
    ["open('/etc/hostname')", "__import__('os').fork()", "__import__('socket').socket()", "__import__('os').kill(1, 0)",
     "__import__('os').execv('/bin/true', ['true'])"],
)  # fmt: skip
def test_confined(started, attempt: str) -> None:
    """Whatever the process tries beyond reading its socket kills it; its twin, which answers, lives."""
    before = f"old = parser.serve; parser.serve = lambda *a, **k: ({attempt}, old(*a, **k))[1]"
    with spawn(started, before=before) as sock:
        assert sock.recv(1) == b""
    assert started[-1].wait(10) == -signal.SIGSYS
    with spawn(started) as sock:
        sock.sendall(protocol.render(protocol.Ask("ls 'a'")))
        assert len(sock.recv(4)) == 4


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"text": 1}', b'{"text": "a", "more": 1}', b'{"text": "\\ud800"}', b"\xff"]
)
def test_malformed(started, body: bytes) -> None:
    """A request that is not of the protocol's form ends the process with status 1."""
    with pytest.raises(PeerError):
        protocol.parse_ask(body)
    with spawn(started) as sock:
        sock.sendall(len(body).to_bytes(4, "big") + body)
        assert sock.recv(1) == b""
    assert started[-1].wait(10) == 1


def test_oversized() -> None:
    """A frame longer than any message of ours is refused before it is read."""
    with pytest.raises(PeerError, match="at most"):
        protocol.parse_length(b"\xff\xff\xff\xff")
