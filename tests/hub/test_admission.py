"""Many runners at once: who waits, who is told to come back later, and what that costs the store."""

import json
import socket
from functools import partial

import pytest
import trio
import trio_websocket
from sqlalchemy import event
from tests.support.runner_stub import connect_plain, connect_v1

from guardhouse.hub.gateway import admission, links
from guardhouse.hub.gateway.admission import RETRY_AFTER_MAX_S, RETRY_AFTER_MIN_S
from guardhouse.hub.store import environments
from guardhouse.hub.transport.websocket import BoundedWebSocket

READS_TOGETHER = 60


@pytest.fixture
def counted_reads(hub, monkeypatch):
    """Each read of the hub's store, in its order."""
    database = hub.hub.services.database
    reads, read = [], database.read

    async def counted(operation):
        reads.append(operation)
        return await read(operation)

    monkeypatch.setattr(database, "read", counted)
    return reads


async def test_beyond_the_bound_a_runner_is_told_when_to_come_back(hub, monkeypatch):
    """503 with Retry-After before anything is read, and in as soon as there is room."""
    created = await hub.environment()
    address = f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws?token={created['token']}"
    monkeypatch.setattr(admission, "UPGRADES_MAX", 0)
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with trio_websocket.open_websocket_url(address):
            pass
    assert caught.value.status_code == 503
    assert json.loads(caught.value.body)["error"]["code"] == "too_many_upgrades"
    assert RETRY_AFTER_MIN_S <= int(dict(caught.value.headers)[b"retry-after"]) <= RETRY_AFTER_MAX_S
    monkeypatch.setattr(admission, "UPGRADES_MAX", 1)
    async with connect_plain(hub.url, created["token"]):
        await hub.until_online()


async def test_those_who_wait_together_share_a_read(hub, counted_reads):
    """Sixty that come while one read is on its way are found by the next one; one that is gone is None."""
    created = (await hub.environment())["environment"]
    found = []

    async def read(environment_id):
        found.append(await hub.hub.services.admission.read(environment_id))

    async with trio.open_nursery() as nursery:
        for number in range(READS_TOGETHER):
            nursery.start_soon(read, "env_gone" if number % 2 else created["id"])
    assert [one for one in found if one is not None and one.name != "web-1"] == []
    assert sum(one is None for one in found) == READS_TOGETHER / 2
    # The first may go alone, before the others have asked.
    assert len(counted_reads) <= 2


async def test_an_environment_is_found_by_index(hub, store_url):
    """Neither by id nor by name are all environments read through, as every request and upgrade does it."""
    explain = "EXPLAIN QUERY PLAN" if store_url is None else "EXPLAIN"
    database, plans = hub.hub.services.database, []

    def explained(connection, reference):
        if store_url is not None:
            # With a handful of rows PostgreSQL reads through them all unless that is made the last resort.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        statements = []
        event.listen(connection, "before_cursor_execute", lambda *given: statements.append(given[2:4]))
        environments.find_environment(connection, reference)
        text, values = statements[0]
        plans.extend(row[-1] for row in connection.exec_driver_sql(f"{explain} {text}", values))

    await database.read(partial(explained, reference="web-1"))
    assert not [step for step in plans if step.startswith(("SCAN environments", "Seq Scan on environments"))], plans


async def test_repeated_heartbeats_are_written_together(start_hub, monkeypatch):
    """What a heartbeat says anew is stored at once; what it repeats waits for the next flush."""
    monkeypatch.setattr(links, "HEARTBEAT_FLUSH_S", 3_600.0)
    async with start_hub() as hub:
        await check_repeated_heartbeats(hub)


async def check_repeated_heartbeats(hub):
    created = (await hub.environment())["environment"]
    services = hub.hub.services

    async def stored():
        return await services.database.read(partial(environments.find_environment, id_or_name=created["id"]))

    token = (await hub.http.get("/api/v1/environments/web-1/token")).json()["token"]
    async with connect_plain(hub.url, token) as runner:
        await hub.until_online()

        async def is_stored():
            return (await stored()).first_seen_ms is not None

        await hub.until(is_stored)
        first = await stored()
        for _ in range(3):
            await runner.heartbeat()

        async def is_heard():
            return services.links.instance(created["id"]).last_heartbeat_ms > first.last_heartbeat_ms

        await hub.until(is_heard)
        assert await stored() == first
        services.links.flush_heartbeats()

        async def is_flushed():
            return (await stored()).last_heartbeat_ms > first.last_heartbeat_ms

        await hub.until(is_flushed)


async def test_a_stopping_hub_spreads_the_return_of_its_runners(hub, monkeypatch):
    """The goodbye says to each runner when to come back, over a time that grows with their number."""
    monkeypatch.setattr(links, "RETURNS_PER_S", 0.1)
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        hub.hub.services.links.close_all(reason="stopping")
        goodbye = await runner.expect("hub.goodbye")
    assert 0 <= goodbye["reconnect_after_s"] <= 10


def answer_of(sock):
    """Return the first bytes of an answer; none where the connection was closed, with a request unread or not."""
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("tls", [pytest.param(False, id="plain"), pytest.param(True, id="tls")])
async def test_a_runner_that_gave_up_while_it_waited_costs_nothing(start_hub, monkeypatch, tls):
    """An upgrade whose sender hung up before it was accepted is not served; a plain request's half-open one is."""
    async with start_hub(tls=tls) as hub:
        token = (await hub.environment())["token"]
        asked = []
        monkeypatch.setattr(hub.hub.services.admission, "read", asked.append)
        address = hub.hub.listener.socket.getsockname()
        upgrade = (
            f"GET /api/v1/runner/ws?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        # No turn of the event loop, which the hub shares, until all of it has been done: the hub finds it like this.
        gone, half_open = socket.create_connection(address), socket.create_connection(address)
        gone.sendall(upgrade.encode())
        gone.shutdown(socket.SHUT_WR)
        half_open.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        half_open.shutdown(socket.SHUT_WR)
        with gone, half_open, trio.fail_after(30):
            assert await trio.to_thread.run_sync(answer_of, gone) == b""
            answer = await trio.to_thread.run_sync(answer_of, half_open)
        assert answer.startswith(b"HTTP/1.1 200") is not tls
        assert asked == []


async def test_a_runner_that_gave_up_while_its_record_was_read_is_not_let_in(start_hub, monkeypatch):
    """It would be online, and be given tasks, though it is gone; the one beside it that waits is let in."""
    async with start_hub() as hub:
        services = hub.hub.services
        waits, leaves = [await hub.environment(name=name) for name in ("waits", "leaves")]
        gate, asked, claimed, ended, read = trio.Event(), [], [], [], services.admission.read

        async def read_later(environment_id):
            asked.append(environment_id)
            await gate.wait()
            return await read(environment_id)

        claim, handle = services.links.claim, BoundedWebSocket.handle

        async def handle_and_tell(stream, happened):
            await handle(stream, happened)
            if stream.closed:
                ended.append(stream)

        monkeypatch.setattr(BoundedWebSocket, "handle", handle_and_tell)
        monkeypatch.setattr(services.admission, "read", read_later)
        monkeypatch.setattr(services.links, "claim", lambda name, link: (claimed.append(name), claim(name, link)))
        address = hub.hub.listener.socket.getsockname()
        with socket.create_connection(address) as gone, socket.create_connection(address) as stays:
            for sock, created in ((gone, leaves), (stays, waits)):
                sock.sendall(
                    f"GET /api/v1/runner/ws?token={created['token']} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )

            async def both_ask():
                return len(asked) == 2

            await hub.until(both_ask)
            gone.shutdown(socket.SHUT_WR)

            async def hub_has_read_that():
                return bool(ended)

            await hub.until(hub_has_read_that)
            gate.set()
            with trio.fail_after(30):
                assert await trio.to_thread.run_sync(answer_of, gone) == b""
                assert (await trio.to_thread.run_sync(answer_of, stays)).startswith(b"HTTP/1.1 101")
            assert claimed == [waits["environment"]["id"]]
