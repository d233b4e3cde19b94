"""Sessions: made, bound by the first task, shown ever after, refused when their runner is gone, exported, deleted."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import trio
from tests.hub.support import become_owner, invite
from tests.support.runner_stub import connect_v1

from guardhouse.hub.sessions.export import OUTPUT_MAX_BYTES, export_session


class SessionMeta(msgspec.Struct):
    id: str


async def make(hub, http: Any = None, **body: Any) -> dict[str, Any]:
    reply = await (http or hub.http).post("/api/v1/sessions", json=body)
    assert reply.status_code == 201, reply.text
    return reply.json()


async def show(hub, session: dict[str, Any]) -> dict[str, Any]:
    return (await hub.http.get(f"/api/v1/sessions/{session['id']}")).json()


async def ask(hub, session: dict[str, Any], command: str = "true", **more: Any) -> httpx2.Response:
    body = {"session_id": session["id"], "operation": "bash", "args": {"command": command}, **more}
    return await hub.http.post("/api/v1/tasks", json=body)


def code(reply: httpx2.Response) -> str:
    return reply.json()["error"]["code"]


def named(name: str) -> dict[str, Any]:
    return {"kind": "named", "environment": name}


async def test_life_of_a_session(hub):
    """Made unbound; the first task binds it; the choice is locked; another runner never gets its work."""
    one = await hub.environment("one", tags=["linux"])
    two = await hub.environment("two", tags=["linux", "gpu"])
    async with connect_v1(hub.url, one["token"]) as first, connect_v1(hub.url, two["token"]) as second:
        await hub.until_online("one")
        await hub.until_online("two")
        session = await make(hub, title="disk full", environment={"kind": "auto", "tags": ["gpu"]})
        assert (session["state"], session["bound_environment"], session["title"]) == ("new", None, "disk full")
        choices = await hub.http.get("/api/v1/session-choices", params={"tags": "gpu"})
        assert choices.json()["auto"]["name"] == "two"
        assert choices.json()["managed_available"] is False

        changed = {"environment": {"kind": "auto", "tags": ["linux"]}, "title": "disk"}
        assert (await hub.http.patch(f"/api/v1/sessions/{session['id']}", json=changed)).status_code == 200
        busy = await hub.start("x", environment="one")
        await first.expect("task.request")
        reply = await ask(hub, session)
        assert (reply.status_code, reply.json()["environment_name"]) == (202, "two"), "the least busy one"
        task = await second.expect("task.request")
        assert task["session_id"] == session["id"]
        found = await show(hub, session)
        assert (found["state"], found["bound_environment"]["name"]) == ("running", "two")
        locked = await hub.http.patch(f"/api/v1/sessions/{session['id']}", json={"environment": named("one")})
        assert (locked.status_code, code(locked)) == (409, "session_locked")
        other = await ask(hub, session, environment_id="one")
        assert (other.status_code, code(other)) == (409, "session_locked")
        await first.result(busy["id"])
        await second.result(task["task_id"])
        assert (await hub.result(task["task_id"]))["success"] is True
        # Now the other one is as idle, and the session stays where it is all the same.
        again = await ask(hub, session, environment_id="two")
        assert again.json()["environment_name"] == "two"
        await second.result(again.json()["id"])
        await hub.result(again.json()["id"])

    async def is_gone() -> bool:
        return (await hub.status("two"))["status"] == "offline"

    await hub.until(is_gone)
    async with connect_v1(hub.url, one["token"]):
        await hub.until_online("one")
        refused = await ask(hub, session)
        assert (refused.status_code, code(refused)) == (409, "environment_unavailable")
        message = refused.json()["error"]["message"]
        assert "'two'" in message
        assert "never moved" in message
        assert (await show(hub, session))["state"] == "unavailable"
        assert (await ask(hub, session, queue_s=60)).status_code == 202, "it may wait for its own runner"
        await hub.http.delete("/api/v1/environments/two")
        gone = await ask(hub, session)
        assert (gone.status_code, code(gone)) == (409, "session_environment_gone")
        found = await show(hub, session)
        assert (found["bound_environment"]["status"], found["bound_environment"]["name"]) == ("deleted", "two")


async def test_what_is_not_online_is_listed_and_not_selectable(hub):
    """Pending and offline environments are refused as a choice; Auto without any says so and binds nothing."""
    await hub.environment("idle")
    (listed,) = (await hub.http.get("/api/v1/environments")).json()["environments"]
    assert (listed["name"], listed["selectable"]) == ("idle", False)
    reply = await hub.http.post("/api/v1/sessions", json={"environment": named("idle")})
    assert (reply.status_code, code(reply)) == (409, "environment_unavailable")
    reply = await hub.http.post("/api/v1/sessions", json={"environment": {"kind": "managed"}})
    assert (reply.status_code, code(reply)) == (409, "environment_unavailable")
    session = await make(hub)
    nothing = await ask(hub, session)
    assert (nothing.status_code, code(nothing)) == (409, "environment_unavailable")
    assert (await show(hub, session))["state"] == "new"
    for body in ({"kind": "named"}, {"kind": "auto", "environment": "idle"}, {"kind": "managed", "tags": ["x"]}):
        assert (await hub.http.post("/api/v1/sessions", json={"environment": body})).status_code == 400
    assert (await hub.http.post("/api/v1/sessions", json={"environment": named("no")})).status_code == 404


async def test_a_task_names_a_session_that_exists(hub):
    """An unknown session is 404, a task without both environment and session 400; a refused task binds nothing."""
    created = await hub.environment()
    assert (await ask(hub, {"id": "s-1"})).status_code == 404
    bare = await hub.http.post("/api/v1/tasks", json={"operation": "bash", "args": {"command": "x"}})
    assert bare.status_code == 400
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        session = await make(hub)
        body = {"session_id": session["id"], "operation": "bash", "args": {"commandx": "x"}}
        assert (await hub.http.post("/api/v1/tasks", json=body)).status_code == 400
        assert (await show(hub, session))["bound_environment"] is None
        not_chosen = await ask(hub, session, environment_id="web-1")
        assert (not_chosen.status_code, code(not_chosen)) == (409, "session_environment")
        # Many first tasks at once: one binds, the others follow; the same key starts one task.
        replies: list[httpx2.Response] = []

        async def first(number: int) -> None:
            replies.append(await ask(hub, session, idempotency_key=f"k{number % 4}"))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(first, number)
        assert {reply.status_code for reply in replies} == {202}
        assert len({reply.json()["id"] for reply in replies}) == 4
        for _ in range(4):
            await runner.expect("task.request")
        many = {"environments": ["web-1"], "operation": "bash", "args": {"command": "x"}, "session_id": session["id"]}
        assert code(await hub.http.post("/api/v1/fanouts", json=many)) == "session_locked"
        unbound = await make(hub)
        at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        later = {
            "environment_id": "web-1",
            "operation": "bash",
            "args": {"command": "x"},
            "run_at": at,
        }
        for one, status in ((session, {200, 201, 202}), (unbound, {409}), ({"id": "ses_no"}, {404})):
            reply = await hub.http.post("/api/v1/schedules", json={**later, "session_id": one["id"]})
            assert reply.status_code in status, reply.text
        events = (await hub.http.get("/api/v1/audit", params={"action": "session."})).json()["events"]
        assert [event["action"] for event in events] == ["session.create", "session.bind", "session.create"]


async def test_history_and_export_and_delete(hub):
    """What ran is listed in order with its decision and its programs; the export ends with a line that says so."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        session = await make(hub, environment=named("web-1"))
        for number in range(3):
            task = (await ask(hub, session, f"echo {number}")).json()
            await runner.expect("task.request")
            await runner.send("task.accepted", {"task_id": task["id"]})
            await runner.output(task["id"], b"\xff\n" if number == 2 else f"{number}\n".encode())
            decision = {"verdict": "allow", "rule": "echo *"}
            execs = {"ran": [{"argv": ["echo", str(number)]}]}
            result = {"stdout": "", "stderr": "", "exit_code": 0, "decision": decision, "execs": execs}
            await runner.result(task["id"], result=result)
            await hub.result(task["id"])
        path = f"/api/v1/sessions/{session['id']}"
        page = (await hub.http.get(f"{path}/history", params={"limit": 2})).json()
        rest = (await hub.http.get(f"{path}/history", params={"cursor": page["next_cursor"]})).json()
        steps = page["steps"] + rest["steps"]
        assert [step["task"]["command"] for step in steps] == ["echo 0", "echo 1", "echo 2"]
        assert [step["executed"] for step in steps] == ["echo 0", "echo 1", "echo 2"]
        assert steps[0]["decision"]["rule"] == "echo *"
        assert rest["next_cursor"] is None

        lines = [json.loads(line) for line in (await hub.http.get(f"{path}/export")).text.splitlines()]
        assert [line["kind"] for line in lines] == ["session_meta", *["tool_call"] * 3, "end"]
        assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5]
        assert lines[0]["session"]["bound_environment"]["name"] == "web-1"
        assert (lines[1]["stdout"], lines[1]["request"]["args"]["command"]) == ("0\n", "echo 0")
        assert (lines[3]["stdout_b64"], lines[3]["stdout_left_out_bytes"]) == ("/wo=", 0)

        running = (await ask(hub, session, "sleep")).json()
        busy = await hub.http.delete(path)
        assert (busy.status_code, code(busy)) == (409, "session_busy")
        await runner.result(running["id"])
        await hub.result(running["id"])
        assert (await hub.http.delete(path)).status_code == 204
        assert (await hub.http.get(path)).status_code == 404
        assert (await hub.http.get("/api/v1/tasks")).json()["tasks"] == []
        kept = (await hub.http.get("/api/v1/audit", params={"executed": "echo 1"})).json()["events"]
        assert len(kept) == 1, "the audit log keeps what ran"


async def test_an_export_is_cut_at_a_character_and_knows_a_deleted_session(hub):
    """Output beyond the bound stays text, to the byte; one whose session goes away meanwhile has no `end`."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        session = await make(hub, environment=named("web-1"))
        task = (await ask(hub, session)).json()
        await runner.expect("task.request")
        await runner.send("task.accepted", {"task_id": task["id"]})
        # Three bytes each, and the bound is no multiple of three.
        sent = "€" * (OUTPUT_MAX_BYTES // 3 + 1_000)
        data = sent.encode()
        for offset in range(0, len(data), 60_000):
            await runner.output(task["id"], data[offset : offset + 60_000], offset=offset)
        await runner.result(task["id"], stdout_bytes=len(data), stderr_bytes=0)
        await hub.result(task["id"])
        text = (await hub.http.get(f"/api/v1/sessions/{session['id']}/export")).text
        call = json.loads(text.splitlines()[1])
        assert call["stdout"] == "€" * (OUTPUT_MAX_BYTES // 3)
        assert (
            len(call["stdout"].encode()) + call["stdout_left_out_bytes"] == call["output_bytes"]["stdout"] == len(data)
        )

        meta = msgspec.convert(session, SessionMeta)
        lines = export_session(hub.hub.services.database, meta, session["id"])
        assert json.loads(await anext(lines))["kind"] == "session_meta"
        assert (await hub.http.delete(f"/api/v1/sessions/{session['id']}")).status_code == 204
        last = json.loads([line async for line in lines][-1])
        assert (last["kind"], "deleted" in last["message"]) == ("error", True)


async def test_shared_sessions_and_their_tasks(hub):
    """A personal session is nobody else's to see or use; one of a team is its people's, with what ran in it."""
    await become_owner(hub)
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    max_, _ = await invite(hub, "max@example.com", teams=["payments"])
    eva, _ = await invite(hub, "eva@example.com", teams=["payments"])
    ned, _ = await invite(hub, "ned@example.com")
    created = await hub.environment()
    headers = {"sec-fetch-site": "same-origin"}

    def as_person(cookies: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=hub.url, cookies=cookies, headers=headers, timeout=60)

    async with (
        connect_v1(hub.url, created["token"]) as runner,
        as_person(max_) as of_max, as_person(eva) as of_eva, as_person(ned) as of_ned,
    ):  # fmt: skip
        await hub.until_online()
        session = await make(hub, of_max, environment=named("web-1"), title="mine")
        body = {"session_id": session["id"], "operation": "bash", "args": {"command": "x"}}
        for stranger in (of_eva, of_ned):
            assert (await stranger.post("/api/v1/tasks", json=body)).status_code == 404
            assert (await stranger.get("/api/v1/sessions")).json()["sessions"] == []
        foreign = {"scope": {"kind": "team", "team": "payments"}}
        assert (await of_ned.post("/api/v1/sessions", json=foreign)).status_code == 403
        path = f"/api/v1/sessions/{session['id']}"
        assert (await of_max.patch(path, json=foreign)).status_code == 200
        started = await of_eva.post("/api/v1/tasks", json=body)
        assert started.status_code == 202
        await runner.expect("task.request")
        assert (await of_eva.get("/api/v1/sessions", params={"mine": "true"})).json()["sessions"] == []
        assert [one["title"] for one in (await of_eva.get("/api/v1/sessions")).json()["sessions"]] == ["mine"]
        assert (await of_eva.get(f"{path}/history")).status_code == 200
        assert (await of_ned.get(f"{path}/history")).status_code == 404
        assert (await of_ned.patch(path, json={"title": "x"})).status_code == 404
        listed = await of_max.get(
            "/api/v1/sessions", params={"text": "MIN", "environment": "web-1", "scope": "payments"}
        )
        assert [one["id"] for one in listed.json()["sessions"]] == [session["id"]]
        assert (await of_max.get("/api/v1/sessions", params={"text": "other"})).json()["sessions"] == []


async def test_auto_never_chooses_what_its_caller_cannot_see(hub):
    """Another team's runner can be named, as anywhere in the account, and is not chosen by Auto."""
    await become_owner(hub)
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    ned, _ = await invite(hub, "ned@example.com")
    created = await hub.environment("theirs", scope={"kind": "team", "team": "payments"})
    async with (
        connect_v1(hub.url, created["token"]) as runner,
        httpx2.AsyncClient(
            base_url=hub.url, cookies=ned, headers={"sec-fetch-site": "same-origin"}, timeout=60
        ) as of_ned,
    ):
        await hub.until_online("theirs")
        auto = await make(hub, of_ned)
        body = {"operation": "bash", "args": {"command": "x"}}
        refused = await of_ned.post("/api/v1/tasks", json={**body, "session_id": auto["id"]})
        assert (refused.status_code, code(refused)) == (409, "environment_unavailable")
        pinned = await make(hub, of_ned, environment=named("theirs"))
        started = await of_ned.post("/api/v1/tasks", json={**body, "session_id": pinned["id"]})
        assert started.status_code == 202
        await runner.expect("task.request")
        assert (await of_ned.get(f"/api/v1/tasks/{started.json()['id']}")).status_code == 200
