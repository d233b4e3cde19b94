"""Runners dial in: who is let in, what they are told, and what happens to tasks."""

import json

import httpx2
import pytest
import trio
import trio_websocket
from tests.support.runner_stub import connect_plain, connect_v1

from guardhouse import limits

PATHS = ["/api/v1/runner/ws", "/safari/worknode/ws", "/safari/environment/ws"]


async def refused(address: str, **more) -> trio_websocket.ConnectionRejected:
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with trio_websocket.open_websocket_url(address, **more):
            pass
    return caught.value


@pytest.mark.parametrize("path", PATHS)
async def test_plain_runner_is_welcomed(hub, path):
    """On every path a token in the query opens a plain connection, and the welcome comes unasked."""
    created = await hub.environment(tags=["linux"])
    async with connect_plain(hub.url, created["token"], path=path) as runner:
        assert runner.welcome == {
            "worknode_id": created["environment"]["id"],
            "name": "web-1",
            "labels": ["linux"],
        }

        async def is_known() -> bool:
            # Online as soon as it is heard; what it says of its machine is shown once the store has it.
            return (await hub.status()).get("machine") is not None

        await hub.until(is_known)
        (listed,) = (await hub.http.get("/api/v1/environments")).json()["environments"]
        assert (listed["machine"]["hostname"], listed["last_heartbeat_ago"]) == ("stub-host", "just now")
        assert {"os", "arch"} <= listed["machine"].keys()
        assert (listed["version"], listed["tags"], listed["scope"]["kind"]) == ("9.9.9", ["linux"], "account")


@pytest.mark.parametrize("path", PATHS)
async def test_bearer_header_is_taken_on_every_path(hub, path):
    """The header form works where the seed's runner dials, too."""
    created = await hub.environment()
    address = hub.url.replace("http", "ws") + path
    headers = [(b"authorization", f"Bearer {created['token']}".encode())]
    async with trio_websocket.open_websocket_url(address, extra_headers=headers) as websocket:
        assert json.loads(await websocket.get_message())["type"] == "welcome"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="none"),
        pytest.param("?token=wnt_" + "0" * 48, id="unknown"),
        pytest.param("?token=", id="empty"),
        pytest.param("?token=%00%ff%F0%9F", id="garbage"),
        pytest.param("?token=wnt_a&token=wnt_b", id="two"),
    ],
)
async def test_bad_token_is_refused_at_the_upgrade(hub, path, query):
    """A connection without a valid token is answered with HTTP 401, becomes no WebSocket and changes no status."""
    await hub.environment()
    error = await refused(hub.url.replace("http", "ws") + path + query)
    assert error.status_code == 401
    assert json.loads(error.body)["error"]["code"] == "authentication_failed"
    assert dict(error.headers)[b"www-authenticate"].startswith(b"Bearer")
    assert (await hub.status())["status"] == "pending"


async def test_api_token_opens_no_gateway(hub):
    """An API token is no runner token, whoever it belongs to."""
    owner = (hub.state_dir / "owner.token").read_text().strip()
    error = await refused(f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws?token={owner}")
    assert error.status_code == 401


async def test_token_of_a_deleted_environment_is_refused(hub):
    """Deleting an environment ends its connection, its token and what it was given at once."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start()
        await runner.expect("task.request")
        assert (await hub.http.delete("/api/v1/environments/web-1")).status_code == 204
        await runner.expect_closed()
    found = await hub.result(started["id"])
    assert (found["state"], found["error_code"]) == ("lost", "environment_deleted")
    error = await refused(f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws?token={created['token']}")
    assert error.status_code == 401


async def test_second_runner_is_refused_while_the_first_answers(hub):
    """Two runners with one token do not take the environment from each other."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
        error = await refused(f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws?token={created['token']}")
        assert error.status_code == 409
        assert json.loads(error.body)["error"]["code"] == "already_connected"
        await runner.heartbeat()
        assert (await hub.status())["status"] == "online"


async def test_dead_runner_makes_room(hub, monkeypatch):
    """A connection whose peer answers no ping is replaced by the next one with the token."""
    monkeypatch.setattr("guardhouse.hub.gateway.links.TAKEOVER_PROBE_S", 0.2)
    created = await hub.environment()
    stream = await trio.open_tcp_stream("127.0.0.1", int(hub.url.rsplit(":", 1)[1]))
    request = (
        f"GET /safari/worknode/ws?token={created['token']} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await stream.send_all(request.encode())
    assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101")
    async with connect_plain(hub.url, created["token"]):
        await hub.until_online()
    await stream.aclose()


async def test_blank_name_takes_the_hostname(hub):
    """An environment without a name is called after its host at the first heartbeat, with a suffix on a clash."""
    first, second = await hub.environment(name=""), await hub.environment(name="")
    async with connect_plain(hub.url, first["token"]), connect_plain(hub.url, second["token"]):
        await hub.until_online("stub-host")

        async def names() -> list[str] | None:
            listed = (await hub.http.get("/api/v1/environments")).json()["environments"]
            return None if any(one["name_is_pending"] for one in listed) else [one["name"] for one in listed]

        found = await hub.until(names)
    ids = {first["environment"]["id"], second["environment"]["id"]}
    assert "stub-host" in found
    assert any(name == f"stub-host-{one[-8:]}" for name in found for one in ids)


async def test_plain_task_streams_and_ends(hub):
    """A plain runner's output and result reach the API; nothing it cannot know is sent to it."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        nursery.start_soon(runner.serve, b"hello\n")
        started = await hub.start("echo hello")
        found = await hub.result(started["id"])
        assert (found["state"], found["exit_code"], found["stdout_bytes"]) == ("succeeded", 0, 6)
        assert found["result"] == {"stdout": "hello\n", "stderr": "", "exit_code": 0}
        request = next(frame for frame in runner.heard if frame["type"] == "task.request")["payload"]
        assert set(request) <= {"task_id", "trace_id", "source_instance_id", "operation", "args"}
        assert {frame["type"] for frame in runner.heard} == {"welcome", "task.request"}
        nursery.cancel_scope.cancel()


async def test_v1_result_is_acknowledged_after_it_is_stored(hub):
    """When the acknowledgement arrives, a hub that starts anew has the result."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start("echo")
        task = await runner.expect("task.request")
        await runner.result(task["task_id"], stdout="x", stdout_bytes=0, stderr_bytes=0)
        ack = await runner.expect("task.result.ack")
        assert ack == {"task_id": started["id"]}
        assert (await hub.result(started["id"]))["state"] == "succeeded"


async def test_duplicate_result_changes_nothing(hub):
    """The first result counts; the same one again is acknowledged and dropped."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start()
        task = await runner.expect("task.request")
        await runner.result(task["task_id"], exit_code=3)
        await runner.expect("task.result.ack")
        await runner.result(task["task_id"], exit_code=4)
        await runner.expect("task.result.ack")
        assert (await hub.result(started["id"]))["exit_code"] == 3


async def test_binary_output_survives_exactly(hub):
    """Bytes that are no UTF-8 come out of the API as they went in."""
    created = await hub.environment()
    data = bytes(range(256)) * 10
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start()
        task = await runner.expect("task.request")
        await runner.output(task["task_id"], data[:1000])
        await runner.output(task["task_id"], data[1000:], offset=1000, seq=1)
        await runner.result(task["task_id"], stdout_bytes=len(data), stderr_bytes=0)
        await hub.result(started["id"])
    assert await collect(hub.http, started["id"]) == {"stdout": data, "stderr": b""}
    assert (await collect(hub.http, started["id"], stream="stdout", offset=2000))["stdout"] == data[2000:]


async def collect(http: httpx2.AsyncClient, task_id: str, **query) -> dict[str, bytes]:
    import base64

    found = {"stdout": b"", "stderr": b""}
    reply = await http.get(f"/api/v1/tasks/{task_id}/output", params=query)
    assert reply.status_code == 200, reply.text
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert lines[-1]["end"] is True
    for line in lines[:-1]:
        data = base64.b64decode(line["data_b64"]) if "data_b64" in line else line["data"].encode()
        found[line["stream"]] += data
    return found


async def test_output_is_followed_as_it_comes(hub):
    """A follower sees each piece when it is sent, not when the task ends."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start()
        task = await runner.expect("task.request")
        path = f"/api/v1/tasks/{started['id']}/output"
        async with hub.http.stream("GET", path, params={"follow": "true"}) as reply:
            lines = reply.aiter_lines()
            offset = 0
            for word in ("one", "two", "three"):
                await runner.output(task["task_id"], word.encode(), offset=offset, seq=offset)
                offset += len(word)
                with trio.fail_after(30):
                    assert json.loads(await anext(lines))["data"] == word
            await runner.result(task["task_id"], stdout_bytes=offset, stderr_bytes=0)
            with trio.fail_after(30):
                assert json.loads(await anext(lines))["end"] is True


async def test_output_window_is_acknowledged(hub):
    """Stored output opens the window again, so that a long stream never stops."""
    created = await hub.environment()
    piece = b"x" * 65_536
    async with connect_v1(hub.url, created["token"]) as runner:
        window = runner.welcome["output_window_bytes"]
        await hub.until_online()
        started = await hub.start()
        task = await runner.expect("task.request")
        for seq in range(40):
            offset = seq * len(piece)
            while offset + len(piece) - max([0, *(ack["stdout_offset"] for ack in runner.output_acks)]) > window:
                await runner.expect("task.output.ack")
            await runner.output(task["task_id"], piece, offset=offset, seq=seq)
        await runner.result(task["task_id"], stdout_bytes=40 * len(piece), stderr_bytes=0)
        assert (await hub.result(started["id"]))["stdout_bytes"] == 40 * len(piece)


async def test_cancel_reaches_the_runner(hub):
    """A cancel is passed on, and what the runner then answers is the one end."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start("sleep 100")
        task = await runner.expect("task.request")
        reply = await hub.http.post(f"/api/v1/tasks/{started['id']}/cancel", json={"reason": "enough"})
        assert reply.status_code == 202
        assert (await runner.expect("task.cancel"))["reason"] == "enough"
        await runner.result(task["task_id"], exit_code=143, result={"exit_code": 143, "cancelled": True})
        found = await hub.result(started["id"])
        assert (found["state"], found["cancel_reason"]) == ("cancelled", "enough")


async def test_offline_environment_is_refused_at_once(hub):
    """Without a runner a task is not started, and the answer says so; with queue_s it waits for one."""
    created = await hub.environment()
    body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "true"}}
    reply = await hub.http.post("/api/v1/tasks", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "environment_unavailable")
    queued = await hub.start(queue_s=30)
    assert queued["state"] == "queued"
    async with connect_plain(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        nursery.start_soon(runner.serve)
        assert (await hub.result(queued["id"]))["state"] == "succeeded"
        nursery.cancel_scope.cancel()


async def test_tasks_beyond_the_limit_wait_their_turn(start_hub):
    """A runner is given no more at a time than the limit says, and all of them in the end."""
    async with start_hub(in_flight_limit=2) as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
            await hub.until_online()
            started = [await hub.start(f"echo {n}") for n in range(6)]
            assert [task["state"] for task in started] == ["sent"] * 2 + ["queued"] * 4
            nursery.start_soon(runner.serve)
            for task in started:
                assert (await hub.result(task["id"]))["state"] == "succeeded"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param("{", 1007, id="no JSON"),
        pytest.param("[]", 1007, id="no envelope"),
        pytest.param('{"type": "task.result", "payload": {"task_id": "tsk_x", "success": "yes"}}', 1008, id="bad type"),
        pytest.param(
            '{"type": "task.output", "payload": {"task_id": "tsk_other", "stream": "stdout"}}', 1008, id="foreign"
        ),
        pytest.param("[" * 100_000, 1007, id="deep"),
    ],
)
async def test_v1_runner_that_breaks_the_protocol_is_disconnected(hub, frame, code):
    """A frame outside the rules ends the connection with the code that names the rule; the hub goes on."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await runner.websocket.send_message(frame)
        closed = await runner.expect_closed()
        assert closed is not None
        assert closed.code == code
    assert (await hub.http.get("/healthz")).status_code == 200


async def send_until_closed(send) -> None:
    with trio.fail_after(20):
        while True:
            await send()


async def test_oversized_message_is_closed_1009(hub):
    """A message over the limit is not stored in memory and ends the connection."""
    created = await hub.environment()
    message = "x" * (33 * 1024 * 1024)
    async with connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await send_until_closed(lambda: runner.websocket.send_message(message))
        closed = await runner.expect_closed()
        assert closed is not None
        assert closed.code == 1009
    assert (await hub.http.get("/healthz")).status_code == 200


async def test_flood_of_pongs_is_closed_1008(hub):
    """Control frames beyond any use end the connection."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner:
        with pytest.raises(trio_websocket.ConnectionClosed):
            await send_until_closed(lambda: runner.websocket.pong(b"x"))
        closed = await runner.expect_closed()
        assert closed is not None
        assert closed.code == 1008


async def test_works_over_tls(start_hub):
    """The same over TLS with a private authority, v1 and plain."""
    async with start_hub(tls=True) as hub:
        assert hub.url.startswith("https:")
        created = await hub.environment()
        assert created["connect_url"].startswith("wss://127.0.0.1:")
        async with connect_plain(hub.url, created["token"], ssl_context=hub.ssl_context):
            await hub.until_online()

        async def is_offline() -> bool:
            return (await hub.status())["status"] == "offline"

        await hub.until(is_offline)
        async with (
            connect_v1(hub.url, created["token"], ssl_context=hub.ssl_context) as runner,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(runner.serve, b"over tls")
            await hub.until_online()
            found = await hub.result((await hub.start())["id"])
            assert found["stdout_bytes"] == 8
            assert "strict-transport-security" in (await hub.http.get("/healthz")).headers
            nursery.cancel_scope.cancel()


async def test_repeated_key_on_a_connected_runner_starts_one_task(hub):
    """Ten requests under one key at the same moment are one task, sent once."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        ids: set[str] = set()

        async def ask() -> None:
            ids.add((await hub.start("once", idempotency_key="k"))["id"])

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert len(ids) == 1
        await hub.start("other")
        await runner.expect("task.request")
        await runner.expect("task.request")
        requests = [frame["payload"] for frame in runner.heard if frame["type"] == "task.request"]
        assert [one["args"]["command"] for one in requests] == ["once", "other"]


async def test_silent_runner_is_given_nothing(hub, monkeypatch):
    """A connection without heartbeats for the limit is offline, and takes no task."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        link = hub.hub.services.links.find(created["environment"]["id"])
        monkeypatch.setattr(link._session, "is_offline", True)
        body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "true"}}
        reply = await hub.http.post("/api/v1/tasks", json=body)
        assert reply.json()["error"]["code"] == "environment_unavailable"
        await runner.heartbeat(environment=True)

        async def takes_tasks() -> bool:
            return (await hub.http.post("/api/v1/tasks", json=body)).status_code == 202

        await hub.until(takes_tasks)


async def test_a_request_that_no_message_carries_fails_and_the_runner_stays(hub):
    """Arguments over a limit of the wire end their task with the reason; the connection and other tasks go on."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        # As deep as the API takes it: the message around it is one level deeper.
        deep = json.loads("[" * (limits.MESSAGE_MAX_DEPTH - 2) + "]" * (limits.MESSAGE_MAX_DEPTH - 2))
        refused_one = await hub.start(args={"command": "true", "more": deep})
        ended = await hub.result(refused_one["id"])
        assert (ended["state"], ended["error_code"]) == ("failed", "unsendable")
        assert "cannot send task.request" in ended["error"]
        started = await hub.start()
        assert (await runner.expect("task.request"))["task_id"] == started["id"]


async def test_a_connection_ends_with_its_token(start_hub, monkeypatch):
    """Who is connected with the old token when the overlap ends is sent away; with the new one nobody is."""
    monkeypatch.setattr("guardhouse.hub.gateway.links.HEARTBEAT_FLUSH_S", 0.05)
    async with start_hub() as hub:
        created, other = await hub.environment("web-1"), await hub.environment("web-2")
        path = "/api/v1/environments/{}/token/rotate"
        renewed = (await hub.http.post(path.format("web-2"), json={"overlap_s": 1})).json()["token"]
        async with connect_v1(hub.url, created["token"]) as old, connect_v1(hub.url, renewed) as new:
            await hub.until_online("web-1")
            await hub.until_online("web-2")
            rotated = (await hub.http.post(path.format("web-1"), json={"overlap_s": 1})).json()["token"]
            assert await old.expect_closed(within_s=30)
            async with connect_v1(hub.url, rotated):
                await hub.until_online("web-1")
            assert (await hub.status("web-2"))["status"] == "online"
            await hub.start(environment="web-2")
            assert await new.expect("task.request", within_s=30)
        assert other["token"] != renewed


@pytest.mark.parametrize("how", ["rotated", "deleted"])
async def test_a_token_that_ends_while_it_is_let_in_lets_nobody_in(hub, monkeypatch, how):
    """Rotated at once, or its environment deleted, while the hub still looks whether another runner is there."""
    created = await hub.environment("web-1")
    links = hub.hub.services.links
    look = links.check_free

    async def end_it(environment_id: str, *, address: str | None) -> None:
        await look(environment_id, address=address)
        if how == "rotated":
            reply = await hub.http.post("/api/v1/environments/web-1/token/rotate", json={"overlap_s": 0})
        else:
            reply = await hub.http.delete("/api/v1/environments/web-1")
        assert reply.is_success

    monkeypatch.setattr(links, "check_free", end_it)
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with connect_v1(hub.url, created["token"]):
            pass
    assert caught.value.status_code == 401
    assert len(links) == 0
