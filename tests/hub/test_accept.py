"""Connections that come faster than they can be served."""

import errno
import socket
from functools import partial

import pytest
import trio

from guardhouse.hub.transport import AcceptQueue, accept, accept_queue
from guardhouse.hub.transport.accept import accept_for_ever


def port(hub) -> int:
    return int(hub.url.rsplit(":", 1)[1])


class Listening(socket.socket):
    """A listening socket whose first ``accept`` fails with an error of our choice."""

    failure: int | None = None

    def accept(self):
        if self.failure is not None:
            number, self.failure = self.failure, None
            raise OSError(number, "as the test wants it")
        return super().accept()


def listening() -> Listening:
    sock = Listening(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    sock.setblocking(False)
    return sock


async def greet(accepted: socket.socket) -> None:
    async with trio.SocketStream(trio.socket.from_stdlib_socket(accepted)) as stream:
        await stream.send_all(b"hello")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM])
async def test_a_failing_accept_ends_nothing(number):
    """Who waits is served when there is room again; a connection that was aborted costs no other one."""
    sock = listening()
    address = sock.getsockname()
    sock.failure = number
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(accept_for_ever, sock, AcceptQueue(), greet, is_tls=False, connections=nursery))
        client = await trio.open_tcp_stream(*address)
        with trio.fail_after(30):
            assert await client.receive_some() == b"hello"
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert sock.fileno() == -1


async def test_a_broken_listening_socket_is_an_error():
    """What is wrong with the listening socket itself is raised, not tried for ever."""
    sock = listening()
    address = sock.getsockname()
    sock.failure = errno.EINVAL
    with socket.create_connection(address), trio.fail_after(30), pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await accept_for_ever(sock, AcceptQueue(), greet, is_tls=False, connections=nursery)
    assert caught.group_contains(OSError)


async def test_stopping_closes_who_waits(monkeypatch):
    """Connections that were accepted and not begun are closed with the listening socket."""
    monkeypatch.setattr(accept, "places", lambda turn_s: 0)
    sock, queue = listening(), AcceptQueue()
    clients = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(accept_for_ever, sock, queue, greet, is_tls=False, connections=nursery))
        clients = [await trio.open_tcp_stream(*sock.getsockname()) for _ in range(5)]
        with trio.fail_after(30):
            while len(queue) < 5:  # noqa: ASYNC110 - the code under test has no event for it
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    for client in clients:
        async with client:
            with trio.fail_after(30):
                assert await client.receive_some() == b""
    assert len(queue) == 0


@pytest.mark.parametrize("tls", [pytest.param(False, id="plain"), pytest.param(True, id="tls")])
async def test_a_crowd_of_one_network_holds_up_no_other(start_hub, monkeypatch, tls):
    """With 600 silent connections of one address at the door, a request from another is answered before they are."""
    monkeypatch.setattr(accept_queue, "PLACES_MAX", 2)
    async with start_hub(tls=tls) as hub:
        queue = hub.hub.services.accept_queue
        crowd = []
        for _ in range(600):
            sock = socket.socket()
            sock.bind(("127.0.0.2", 0))
            sock.setblocking(False)
            assert sock.connect_ex(("127.0.0.1", port(hub))) in {0, errno.EINPROGRESS}
            crowd.append(sock)
        # No turn of the event loop yet, which the hub shares: all of them are before the request.
        with trio.fail_after(60):
            assert (await hub.http.get("/healthz")).status_code == 200
            waiting = len(queue)
            text = (await hub.http.get("/metrics")).text
        for sock in crowd:
            sock.close()
    assert waiting > 300
    assert "guardhouse_connections_waiting " in text
    assert 'guardhouse_connections_dropped_total{reason="expired"} 0.0' in text


async def test_who_waits_too_long_is_dropped_and_told_of(start_hub, monkeypatch, capsys):
    """A connection whose turn never comes is closed unread; the log and the figures say so."""
    monkeypatch.setattr(accept_queue, "WAIT_MAX_S", 0.2)
    async with start_hub() as hub:
        assert (await hub.http.get("/healthz")).status_code == 200
        monkeypatch.setattr(accept, "places", lambda turn_s: 0)
        stream = await trio.open_tcp_stream("127.0.0.1", port(hub))
        async with stream:
            with trio.fail_after(30):
                assert await stream.receive_some() == b""
        text = (await hub.http.get("/metrics")).text
    assert 'guardhouse_connections_dropped_total{reason="expired"} 1.0' in text
    assert "connections_dropped" in capsys.readouterr().out
