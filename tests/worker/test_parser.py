"""The parser's protocol and its client, with the worker's own code in a process that nothing confines.

The process behind its profile, and the attacks on it, are in tests/launcher/test_parser_worker.py.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from guardhouse.errors import PeerError, SetupError
from guardhouse.policy.shell import read_command
from guardhouse.worker import parser_protocol as protocol
from guardhouse.worker.parser_client import ParserClient

HANGS = "a'${'"
SCRIPT = "import sys; from guardhouse.worker import parser; parser.load(); sys.exit(parser.main(int(sys.argv[1]), 0.7))"


def spawn(started: list[subprocess.Popen]) -> socket.socket:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL
    )
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


@pytest.fixture
def parser(started):
    client = ParserClient(lambda: spawn(started), bashlex=True, timeout_s=30)
    yield client
    client.close()


def reasons(reading) -> str:
    return "; ".join(one.because for one in reading.undecided)


def test_opinion_of_both(parser, started) -> None:
    """A text that all readers agree on is understood, and one process serves many texts."""
    assert parser.read("ls 'a' | cat").is_understood
    assert parser.read("é 'x'; ls $(id)").commands == read_command("é 'x'; ls $(id)").commands
    assert len(started) == 1


def test_plain_words_stay_here(parser, started) -> None:
    """Plain words, and what the first reader leaves undecided, start no process; other text does."""
    assert parser.read("ls -l /tmp").is_understood
    assert parser.read("echo $(").undecided
    assert not started
    parser.read("ls 'a'")
    assert len(started) == 1


def test_hang_is_killed_and_replaced(parser, started) -> None:
    """A text on which bashlex loops for ever kills the process once, is undecided, and the next finds a new one."""
    parser.warm()
    assert "gave no answer" in reasons(parser.read(HANGS))
    assert started[0].wait(30) == -signal.SIGALRM
    assert parser.read("id 'b'").is_understood
    assert parser.restarts == 1


def test_hang_twin(started) -> None:
    """The same text without bashlex is read at once."""
    client = ParserClient(lambda: spawn(started), timeout_s=30)
    assert client.read(HANGS).is_understood
    assert client.restarts == 0
    client.close()


def test_death_between_questions(parser, started) -> None:
    """A process that died between two questions costs nothing but a new start."""
    parser.warm()
    started[0].kill()
    started[0].wait()
    assert parser.read("ls 'a'").is_understood
    assert len(started) == 2


def test_death_over_a_question(parser, started) -> None:
    """A process killed while it works leaves the text undecided, and the next text gets an answer."""
    parser.warm()
    os.kill(started[0].pid, signal.SIGSTOP)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(parser.read("ls 'a'")))
    asking.start()
    started[0].kill()
    asking.join(60)
    # Killed at once, so a fresh process was asked the same.
    assert answers[0].is_understood
    assert parser.read("ls 'b'").is_understood


def test_stopped_process(started) -> None:
    """A stopped process costs the client its own time limit and no more; then the text is undecided."""
    client = ParserClient(lambda: spawn(started), timeout_s=0.5)
    client._timeout_s = 30
    client.warm()
    client._timeout_s = 0.5
    os.kill(started[0].pid, signal.SIGSTOP)
    assert "gave no answer" in reasons(client.read("ls 'a'"))
    client.close()


def test_cannot_be_started() -> None:
    """Where no process can be started every text that is not plain words is undecided, with the reason."""

    def refuse() -> socket.socket:
        raise SetupError("namespaces: not permitted")

    client = ParserClient(refuse)
    assert reasons(client.read("ls 'a'")) == "the second reader cannot be started: namespaces: not permitted"
    assert client.read("ls -l").is_understood


@pytest.mark.parametrize(("limit_s", "is_answered"), [(60.0, True), (0.2, False)])
def test_slow_start_has_a_limit_of_its_own(limit_s: float, is_answered: bool) -> None:
    """A process that needs longer to load than one text may take is waited for, up to the start's own limit."""
    ours, theirs = socket.socketpair()
    answer = protocol.render(protocol.Starts(tree_sitter=(0,), bashlex=None))

    def load_and_answer() -> None:
        with theirs:
            theirs.recv(1)
            if not is_answered:
                assert len(theirs.recv(1_000)) > 1
                assert theirs.recv(1_000) == b""
                return
            time.sleep(3)
            theirs.recv(1_000)
            theirs.sendall(answer)
            while theirs.recv(1_000):
                theirs.sendall(answer)

    loading = threading.Thread(target=load_and_answer)
    loading.start()
    client = ParserClient(lambda: ours, timeout_s=2.0, start_timeout_s=limit_s)
    assert client.read("ls 'a'").is_understood == is_answered
    client.close()
    loading.join(30)


def test_closed(started) -> None:
    """A closed client starts no process any more."""
    client = ParserClient(lambda: spawn(started))
    client.close()
    assert "replaced" in reasons(client.read("ls 'a'"))
    assert not started


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
    assert started[-1].wait(30) == 1


@pytest.mark.parametrize("answer", [b'{"tree_sitter": ["a"]}', b"[]", b"\xff\xff"])
def test_a_parser_that_lies(answer: bytes) -> None:
    """An answer that is not of the protocol's form is no answer: the text is undecided."""
    sockets = []

    def start() -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.sendall(len(answer).to_bytes(4, "big") + answer)
        sockets.append(theirs)
        return ours

    assert "gave no answer" in reasons(ParserClient(start).read("ls 'a'"))
    for sock in sockets:
        sock.close()


def test_oversized() -> None:
    """A frame longer than any message of ours is refused before it is read."""
    with pytest.raises(PeerError, match="at most"):
        protocol.parse_length(b"\xff\xff\xff\xff")
