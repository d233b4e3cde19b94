"""Files through the hub: streams both ways, over broken connections, and every refusal in its shape."""

import hashlib
import os

import pytest
import trio
from tests.support.file_stub import serving_files
from tests.support.runner_stub import connect_plain

from guardhouse.hub.api.files import away_wait_s
from guardhouse.hub.store.environments import EnvironmentRecord

URL = "/api/v1/environments/web-1"
CONTENT = os.urandom(10_500)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


async def test_a_file_comes_whole(hub) -> None:
    """One answer streams all parts; asked at its end, the same transfer tells the checksum."""
    async with serving_files(hub) as stub:
        stub.files["logs/a b"] = CONTENT
        reply = await hub.http.get(f"{URL}/files", params={"path": "logs/a b"})
        assert (reply.status_code, reply.content) == (200, CONTENT)
        assert reply.headers["x-guardhouse-size"] == "10500"
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-disposition"] == "attachment"
        assert "x-guardhouse-checksum" not in reply.headers
        query = {"path": "logs/a b", "offset": 10_500, "transfer": reply.headers["x-guardhouse-transfer"]}
        end = await hub.http.get(f"{URL}/files", params=query)
        assert (end.content, end.headers["x-guardhouse-checksum"]) == (b"", CHECKSUM)
        assert len({call["transfer_id"] for call in stub.calls}) == 1
        part = await hub.http.get(f"{URL}/files", params={**query, "offset": 9_999})
        assert part.content == CONTENT[9_999:]
        audit = (await hub.http.get("/api/v1/audit")).text
        assert audit.count("file.read") == 1


async def test_a_file_goes_whole(hub) -> None:
    """The body arrives in parts and is put in its place with the last; what it says is its checksum."""
    async with serving_files(hub) as stub:
        big = os.urandom(3_000_000)
        reply = await hub.http.put(f"{URL}/files", params={"path": "d/f"}, content=big)
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert (told["size"], told["finished"]) == (3_000_000, True)
        assert told["checksum"] == f"sha256:{hashlib.sha256(big).hexdigest()}"
        assert stub.files["d/f"] == big
        assert [call["offset"] for call in stub.calls[1:3]] == [1_048_576, 2_097_152]


async def test_a_broken_connection_is_gone_on_from(hub) -> None:
    """The runner's connection breaks in the middle of both; who asked the hub sees nothing of it."""
    async with serving_files(hub, cut_before=(1, 4, 9, 14)) as stub:
        stub.files["f"] = CONTENT
        assert (await hub.http.get(f"{URL}/files", params={"path": "f"})).content == CONTENT
        assert (await hub.http.put(f"{URL}/files", params={"path": "g"}, content=CONTENT)).status_code == 200
        assert stub.files["g"] == CONTENT
        assert stub.connections >= 4


async def test_a_broken_upload_is_gone_on_from(hub) -> None:
    """What arrived before the client was cut off stays; the rest completes it, with the whole's checksum."""
    query = {"path": "f", "transfer": "transfer-1"}

    async def breaking():
        yield b"x" * 2_000_000
        raise OSError("the client's cable was pulled")

    async with serving_files(hub) as stub:
        with pytest.raises(OSError, match="cable"):
            await hub.http.put(f"{URL}/files", params=query, content=breaking())
        state = {"size": 0}
        with trio.fail_after(30):
            while not state["size"]:
                state = (await hub.http.get(f"{URL}/uploads", params=query)).json()
        assert (state["path"], state["size"], state["finished"]) == ("f", 1_048_576, False)
        whole = b"x" * 1_048_576 + CONTENT
        at = {"offset": 1_048_576}
        wrong = await hub.http.put(f"{URL}/files", params={**query, **at}, content=CONTENT)
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_query")
        more = {**query, **at, "checksum": f"sha256:{hashlib.sha256(whole).hexdigest()}"}
        assert (await hub.http.put(f"{URL}/files", params=more, content=CONTENT)).status_code == 200
        assert stub.files["f"] == whole


async def test_nobody_goes_on_with_somebody_elses_upload(hub) -> None:
    """The same name of a transfer is another transfer for another token."""
    query = {"path": "f", "transfer": "transfer-1"}
    made = await hub.http.post("/api/v1/tokens", json={"name": "other", "scopes": ["tasks:run"]})
    other = {"authorization": f"Bearer {made.json()['secret']}"}
    async with serving_files(hub) as stub:
        await hub.http.get(f"{URL}/uploads", params=query)
        await hub.http.get(f"{URL}/uploads", params=query, headers=other)
        assert len({call["transfer_id"] for call in stub.calls}) == 2


@pytest.mark.parametrize(
    ("code", "status"), [("not_found", 404), ("conflict", 409), ("escapes", 422), ("denied", 422), ("busy", 429)]
)
async def test_what_a_runner_refuses(code: str, status: int, hub) -> None:
    """Its words come through, with a status that fits them, for reading and for writing."""
    async with serving_files(hub) as stub:
        stub.files["f"] = b""
        stub.refusal = (code, "path escapes workspace: 'f'")
        for reply in (
            await hub.http.get(f"{URL}/files", params={"path": "f"}),
            await hub.http.put(f"{URL}/files", params={"path": "f"}, content=b"x"),
        ):
            assert reply.status_code == status
            assert reply.json()["error"]["code"] == f"file_{code}"
            assert reply.json()["error"]["message"] == "path escapes workspace: 'f'"
        assert hub.hub.services.links.transfers == 0


@pytest.mark.parametrize(
    ("first_seen_ms", "disconnected_ms", "beat_ms", "hub_started_ms", "seconds"),
    [
        pytest.param(None, None, None, 0, 0, id="never came"),
        pytest.param(1, 990_000, 900_000, 0, 35, id="went a moment ago"),
        pytest.param(1, 100_000, 100_000, 0, 0, id="is long gone"),
        pytest.param(1, 100_000, 995_000, 0, 40, id="its disconnect is not written yet"),
        pytest.param(1, 100_000, 100_000, 999_000, 44, id="the hub has just started"),
        pytest.param(1, 2_000_000, 0, 0, 45, id="the clock was set back"),
    ],
)
def test_who_is_waited_for(first_seen_ms, disconnected_ms, beat_ms, hub_started_ms, seconds):
    """Whoever may be on the way back, for as long as is left of that; nobody else."""
    times = {"first_seen_ms": first_seen_ms, "disconnected_ms": disconnected_ms, "last_heartbeat_ms": beat_ms}
    names = EnvironmentRecord.__struct_fields__
    record = EnvironmentRecord(**{**dict.fromkeys(names), "tags": (), **times})
    assert away_wait_s(record, now_ms=1_000_000, hub_started_ms=hub_started_ms) == seconds


async def test_an_environment_without_a_runner_is_refused_at_once(hub) -> None:
    """Nothing is waited for that has never come."""
    await hub.environment()
    with trio.fail_after(30):
        reply = await hub.http.get(f"{URL}/files", params={"path": "f"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "environment_unavailable")


async def test_a_plain_runner_has_no_streams(hub) -> None:
    """It is said at once, with what to use instead."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]):
        await hub.until_online()
        reply = await hub.http.get(f"{URL}/files", params={"path": "f"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "plain_protocol")


@pytest.mark.parametrize(
    "query", [{}, {"path": ""}, {"path": "a\0b"}, {"path": "f", "offset": "-1"}, {"path": "f", "transfer": "../x"}]
)
async def test_a_query_that_is_none(query, hub) -> None:
    """It is refused before any runner hears of it."""
    async with serving_files(hub) as stub:
        assert (await hub.http.get(f"{URL}/files", params=query)).status_code == 400
        assert stub.calls == []


async def test_scope_and_environment(hub) -> None:
    """Reading a file is running something: a token that may only look may not; an unknown environment is not there."""
    made = await hub.http.post("/api/v1/tokens", json={"name": "looker", "scopes": ["tasks:read", "env:read"]})
    await hub.environment()
    looker = {"authorization": f"Bearer {made.json()['secret']}"}
    for method, path in (("GET", "files"), ("PUT", "files"), ("GET", "uploads")):
        query = {"path": "f", "transfer": "transfer-1"}
        reply = await hub.http.request(method, f"{URL}/{path}", params=query, headers=looker)
        assert reply.status_code == 403
    assert (await hub.http.get("/api/v1/environments/none/files", params={"path": "f"})).status_code == 404
