"""Messages and descriptors over a real socket pair."""

import os
import socket

import pytest

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.launcher import channel


@pytest.fixture
def pair():
    ours, theirs = channel.make_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    "size", [0, 1, limits.LAUNCH_DATAGRAM_MAX_BYTES - 1, limits.LAUNCH_DATAGRAM_MAX_BYTES, 1_000_000]
)
def test_any_size(pair, size):
    """A body of any size arrives whole, inline or in memory."""
    channel.send(pair[0], b"x" * size)
    received = channel.receive(pair[1])
    assert received.body == b"x" * size
    assert received.descriptors == []


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_descriptors_come_along(pair, size):
    """Descriptors arrive in order, close-on-exec, beside a body of either form."""
    read_fd, write_fd = os.pipe2(0)
    channel.send(pair[0], b"x" * size, (read_fd, write_fd))
    os.close(read_fd)
    os.close(write_fd)
    received = channel.receive(pair[1])
    got_read, got_write = received.descriptors
    assert not os.get_inheritable(got_read)
    os.write(got_write, b"through")
    assert os.read(got_read, 10) == b"through"
    received.close()
    assert received.descriptors == []


def test_closed(pair):
    """The other side's close is None, not an error."""
    pair[0].close()
    assert channel.receive(pair[1]) is None


def count_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("payload", "descriptors"),
    [
        pytest.param(b"?x", 0, id="unknown form"),
        pytest.param(b"M", 0, id="memory promised and not brought"),
        pytest.param(b"M", 1, id="a pipe instead of memory"),
        pytest.param(b"J" + b"x" * 100_000, 0, id="too long"),
        pytest.param(b"Jx", 20, id="too many descriptors"),
    ],
)
def test_bad_datagrams(pair, payload, descriptors):
    """A datagram that is not of our form raises PeerError and leaves no descriptor open."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    before = count_descriptors()
    socket.send_fds(pair[0], [payload], [read_fd] * descriptors) if descriptors else pair[0].send(payload)
    with pytest.raises(PeerError):
        channel.receive(pair[1])
    assert count_descriptors() == before
    os.close(read_fd)
    os.close(write_fd)


def test_memory_that_can_change(pair):
    """A memory file that its sender could still change is refused."""
    memory = os.memfd_create("changing", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memory, b"{}")
    socket.send_fds(pair[0], [b"M"], [memory])
    with pytest.raises(PeerError, match="not a sealed memory file"):
        channel.receive(pair[1])
    os.close(memory)


def test_sealed_memory_above_the_limit(pair):
    """A sealed body above the limit is refused without being read."""
    channel.send(pair[0], b"x" * (limits.LAUNCH_BODY_MAX_BYTES + 1))
    with pytest.raises(PeerError, match="limit"):
        channel.receive(pair[1])
