"""Approvals: what a runner asks, who may answer, what an answer covers, and what a cut or a restart leaves of it."""

import email.utils
import hashlib
import hmac
import json
import re
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
import trio
from tests.hub.support import become_owner, invite
from tests.support.runner_stub import RunnerStub, connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.approvals.mail import Mail, parse_mail
from guardhouse.hub.approvals.notify import NotDelivered, Webhook, judged_address, parse_webhook
from guardhouse.hub.approvals.question import EXPLANATION_MAX_BYTES
from guardhouse.hub.approvals.rules import Decided, Rules, agreed
from guardhouse.hub.database import Database
from guardhouse.hub.store.approvals import Vote
from guardhouse.wire.messages_v1 import ApprovalScope

RULE = {"rule": "rm *", "because": "deletes", "place": "ops.yaml:7", "profile": "observe"}


async def ask(runner: RunnerStub, task_id: str, question: str = "q-1", *, wait_s: float = 600, **more: Any) -> None:
    payload = {
        "approval_id": question,
        "task_id": task_id,
        "command": "rm -r old",
        "expires_at_ms": int((time.time() + wait_s) * 1000),
        **RULE,
        **more,
    }
    await runner.send("approval.request", payload)


async def started(hub, runner: RunnerStub, **more: Any) -> str:
    task = await hub.start("rm -r old", **more)
    await runner.expect("task.request", within_s=30)
    return task["id"]


async def pending(hub, count: int = 1) -> list[dict[str, Any]]:
    async def there() -> list[dict[str, Any]]:
        found = (await hub.http.get("/api/v1/approvals", params={"state": "pending"})).json()["approvals"]
        return found if len(found) == count else []

    return await hub.until(there, within_s=30)


async def until_state(hub, approval_id: str, state: str) -> dict[str, Any]:
    async def is_so() -> dict[str, Any] | None:
        found = (await hub.http.get(f"/api/v1/approvals/{approval_id}")).json()
        return found if found["state"] == state else None

    return await hub.until(is_so, within_s=30)


@asynccontextmanager
async def waiting(hub, **more: Any):
    """A runner whose task waits for an answer."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        task_id = await started(hub, runner)
        await ask(runner, task_id, **more)
        (found,) = await pending(hub)
        yield runner, task_id, found


def as_person(hub, cookies: httpx2.Cookies) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=hub.url, cookies=cookies, headers={"sec-fetch-site": "same-origin"}, timeout=30)


async def test_yes_reaches_the_runner_and_the_log(hub):
    """The question is shown whole, the answer is the runner's, and both stand in the audit log."""
    more = {"gate": "exec", "argv": ["rm", "-r", "old dir"], "path": "/usr/bin/rm", "explanation": {"verdict": "ask"}}
    async with waiting(hub, **more) as (runner, task_id, found):
        shown = (await hub.http.get(f"/api/v1/approvals/{found['id']}")).json()
        assert (shown["argv"], shown["explanation"], shown["task_id"]) == (more["argv"], more["explanation"], task_id)
        assert (shown["rule"], shown["place"], shown["requested_by"]) == ("rm *", "ops.yaml:7", "owner")
        reply = await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json={"note": "fine"})
        assert (reply.status_code, reply.json()["state"]) == (200, "approved")
        decision = await runner.expect("approval.decision", within_s=30)
        assert decision["approval_id"] == "q-1"
        assert (decision["verdict"], decision["decided_by"], decision["note"]) == ("allow", "owner", "fine")
    events = (await hub.http.get("/api/v1/audit", params={"target": found["id"]})).json()["events"]
    assert [one["action"] for one in events] == ["approval.approve", "approval.ask"]
    assert events[1]["executed"] == "rm -r 'old dir'"


async def test_no_reaches_the_runner_with_its_note(hub):
    """A denial says who and why."""
    async with waiting(hub) as (runner, _, found):
        reply = await hub.http.post(f"/api/v1/approvals/{found['id']}/deny", json={"note": "not on Friday"})
        assert reply.json()["state"] == "denied"
        decision = await runner.expect("approval.decision", within_s=30)
        assert (decision["verdict"], decision["note"]) == ("deny", "not on Friday")
        again = await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json={})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "already_decided")


async def test_time_denies(hub):
    """What nobody decides in time is denied, and can be approved no more."""
    async with waiting(hub, wait_s=0) as (runner, _, found):
        decision = await runner.expect("approval.decision", within_s=30)
        assert (decision["verdict"], decision["note"]) == ("deny", "nobody decided in time")
        assert (await until_state(hub, found["id"], "expired"))["decided_by"] == "hub"
        late = await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json={})
        assert late.status_code == 409


async def test_the_runners_clock_does_not_matter(hub):
    """A runner whose clock is a day off gets as long as it meant."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        task_id = await started(hub, runner)
        day_ms = 86_400_000
        now = int(time.time() * 1000) - day_ms
        payload = {"approval_id": "q", "task_id": task_id, "command": "x", "expires_at_ms": now + 600_000, **RULE}
        frame = {"id": "msg", "type": "approval.request", "payload": payload, "timestamp": now}
        await runner.websocket.send_message(json.dumps(frame))
        (found,) = await pending(hub)
        assert found["expires_at"] > found["asked_at"]
        assert (await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json={})).status_code == 200


async def test_a_withdrawn_question_is_over(hub):
    """What the runner takes back, or whose task ends, needs nobody any more."""
    async with waiting(hub) as (runner, task_id, found):
        await runner.send("approval.withdrawn", {"approval_id": "q-1", "reason": "cancelled"})
        assert (await until_state(hub, found["id"], "withdrawn"))["note"] == "cancelled"
        await ask(runner, task_id, "q-2")
        (second,) = await pending(hub)
        await runner.result(task_id, stdout_bytes=0, stderr_bytes=0)
        assert (await until_state(hub, second["id"], "withdrawn"))["note"] == "the task has ended"


async def test_asking_again_is_the_same_question(start_hub):
    """Over a cut and a restart the question stays one; decided meanwhile, it is answered at once as first asked."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            task_id = await started(hub, runner)
            await runner.send("task.accepted", {"task_id": task_id})
            await ask(runner, task_id)
            await ask(runner, task_id)
            (first,) = await pending(hub)
    held = [{"task_id": task_id, "state": "running"}]
    async with start_hub() as hub:
        (again,) = await pending(hub)
        assert again["id"] == first["id"]
        approved = await hub.http.post(f"/api/v1/approvals/{first['id']}/approve", json={})
        assert approved.status_code == 200
        async with connect_v1(hub.url, created["token"], tasks=held) as runner:
            await ask(runner, task_id, command="something else")
            decision = await runner.expect("approval.decision", within_s=30)
            assert decision["verdict"] == "allow"
        assert (await hub.http.get(f"/api/v1/approvals/{first['id']}")).json()["command"] == "rm -r old"


async def test_for_the_rule_covers_the_rule_only(hub):
    """Later questions of the same rule are answered at once; another rule's, and after revoking, are not."""
    async with waiting(hub) as (runner, _, found):
        body = {"scope": "rule", "for_s": 3600}
        assert (await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json=body)).status_code == 200
        first = await runner.expect("approval.decision", within_s=30)
        assert (first["scope"], first["valid_until_ms"] > time.time() * 1000) == ("rule", True)
        other = await started(hub, runner)
        await ask(runner, other, "q-2", gate="exec", argv=["rm", "x"])
        second = await runner.expect("approval.decision", within_s=30)
        assert (second["approval_id"], second["verdict"]) == ("q-2", "allow")
        assert "said for this rule" in second["note"]
        await ask(runner, other, "q-3", place="ops.yaml:9")
        (open_one,) = await pending(hub)
        await hub.http.post(f"/api/v1/approvals/{open_one['id']}/deny", json={})
        (grant,) = (await hub.http.get("/api/v1/approval-grants")).json()["grants"]
        assert (await hub.http.delete(f"/api/v1/approval-grants/{grant['id']}")).status_code == 204
        assert (await hub.http.delete(f"/api/v1/approval-grants/{grant['id']}")).status_code == 404
        await ask(runner, other, "q-4")
        await pending(hub)


def explained(*rules: str) -> dict[str, Any]:
    """What a runner explains of a text whose commands are asked about by these rules."""
    commands = [{"verdict": "ask", "rule": rule, "place": f"ops.yaml:{7 + at}"} for at, rule in enumerate(rules)]
    return {"verdict": "ask", "commands": [{"verdict": "allow", "rule": "ls *", "place": "ops.yaml:1"}, *commands]}


async def test_a_yes_for_one_rule_carries_nothing_else_along(hub):
    """A text that another rule asks about too waits for people, though the rule that it names has its yes."""
    async with waiting(hub, gate="shell", explanation=explained("rm *")) as (runner, task_id, found):
        body = {"scope": "rule", "for_s": 3600}
        await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json=body)
        await runner.expect("approval.decision", within_s=30)
        await ask(runner, task_id, "q-2", gate="shell", command="ls; rm x", explanation=explained("rm *"))
        assert (await runner.expect("approval.decision", within_s=30))["verdict"] == "allow"
        both = explained("rm *", "dd *")
        await ask(runner, task_id, "q-3", gate="shell", command="rm x; dd of=/dev/sda", explanation=both)
        (open_one,) = await pending(hub)
        assert open_one["command"] == "rm x; dd of=/dev/sda"
        await hub.http.post(f"/api/v1/approvals/{open_one['id']}/deny", json={})
        await runner.expect("approval.decision", within_s=30)
        # What the hub cannot see whole it does not take for answered.
        cut = {"commands": [{"verdict": "ask", "text": "x" * EXPLANATION_MAX_BYTES}]}
        await ask(runner, task_id, "q-4", gate="shell", command="rm x; y", explanation=cut)
        (open_one,) = await pending(hub)
        await hub.http.post(f"/api/v1/approvals/{open_one['id']}/deny", json={})
        await runner.expect("approval.decision", within_s=30)
        # With a yes for each rule it is answered.
        await ask(runner, task_id, "q-5", command="dd of=x", rule="dd *", place="ops.yaml:8")
        (other,) = await pending(hub)
        await hub.http.post(f"/api/v1/approvals/{other['id']}/approve", json=body)
        await runner.expect("approval.decision", within_s=30)
        await ask(runner, task_id, "q-6", gate="shell", command="rm x; dd of=y", explanation=both)
        last = await runner.expect("approval.decision", within_s=30)
        assert (last["approval_id"], last["verdict"]) == ("q-6", "allow")


async def test_for_the_session_covers_the_session_only(hub):
    """Tasks of one asker with one session id; neither another session nor another asker of the same name."""
    created = await hub.environment()
    token = (await hub.http.post("/api/v1/tokens", json={"name": "other", "scopes": ["admin"]})).json()["secret"]
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        chosen = {"scope": {"kind": "account"}, "environment": {"kind": "named", "environment": "web-1"}}
        one, other = [(await hub.http.post("/api/v1/sessions", json=chosen)).json()["id"] for _ in range(2)]
        first = await started(hub, runner, session_id=one)
        await ask(runner, first)
        (found,) = await pending(hub)
        await hub.http.post(f"/api/v1/approvals/{found['id']}/approve", json={"scope": "session"})
        await runner.expect("approval.decision", within_s=30)
        same = await started(hub, runner, session_id=one)
        await ask(runner, same, "q-2")
        assert (await runner.expect("approval.decision", within_s=30))["approval_id"] == "q-2"
        await ask(runner, await started(hub, runner, session_id=other), "q-3")
        await pending(hub, 1)
        body = {
            "environment_id": "web-1", "operation": "bash", "args": {"command": "x"}, "session_id": one,
        }  # fmt: skip
        headers = {"authorization": f"Bearer {token}"}
        reply = await hub.http.post("/api/v1/tasks", json=body, headers=headers)
        await runner.expect("task.request", within_s=30)
        await ask(runner, reply.json()["id"], "q-4")
        await pending(hub, 2)


async def test_two_people_must_say_yes(start_hub):
    """The first yes waits; the same person's second is none, nor is a token's of nobody; another's lets it run."""
    async with start_hub(approval_rules=Rules(two_people=True)) as hub:
        owner = await become_owner(hub)
        max_, _ = await invite(hub, "max@example.com")
        async with waiting(hub) as (runner, _, found), as_person(hub, owner) as one, as_person(hub, max_) as two:
            path = f"/api/v1/approvals/{found['id']}/approve"
            assert (await hub.http.post(path, json={})).json()["error"]["code"] == "two_people"
            for _ in range(2):
                reply = await one.post(path, json={})
                assert (reply.status_code, reply.json()["state"], len(reply.json()["votes"])) == (202, "pending", 1)
            reply = await two.post(path, json={"scope": "rule"})
            assert (reply.status_code, reply.json()["state"]) == (200, "approved")
            # The first one's yes was for this once, and nobody widens it alone.
            assert (reply.json()["scope"], reply.json()["valid_until"]) == ("once", None)
            assert (await runner.expect("approval.decision", within_s=30))["decided_by"] == "owner and max"
            assert (await hub.http.get("/api/v1/approval-grants")).json()["grants"] == []


@pytest.mark.one_store("what counts of two words; the store keeps them as any vote")
def test_two_agree_on_the_narrower_reach():
    """The least of what both said, for the shorter of both times; 12 hours where one named none."""

    def word(scope: str, for_s: int | None) -> tuple[Decided, Vote]:
        said = Decided(allow=True, scope=ApprovalScope(scope), for_s=for_s, note="")
        return said, Vote(by="usr_1", person="usr_1", name="a", at_ms=0, scope=scope, for_s=for_s)

    for one, other, expected in (
        (("rule", 14_400), ("once", None), ("once", None)),
        (("rule", 14_400), ("session", None), ("session", 14_400)),
        (("rule", 90_000), ("rule", None), ("rule", 43_200)),
        (("rule", 60), ("rule", 3_600), ("rule", 60)),
    ):
        for first, last in ((one, other), (other, one)):
            found = agreed(word(*last)[0], [word(*first)[1]], default_s=43_200)
            assert (found.scope.value, found.for_s) == expected


async def test_who_is_disabled_agrees_to_nothing_any_more(start_hub):
    """Neither by the first of two words nor by what they granted; where they are let in again it counts again."""
    async with start_hub(approval_rules=Rules(two_people=True)) as hub:
        owner = await become_owner(hub)
        people = [await invite(hub, f"{name}@example.com") for name in ("max", "eve", "ada")]
        async with waiting(hub) as (runner, task_id, found), as_person(hub, owner) as http:
            max_, eve, ada = (as_person(hub, cookies) for cookies, _ in people)
            path = f"/api/v1/approvals/{found['id']}/approve"
            assert (await eve.post(path, json={"scope": "rule"})).status_code == 202
            eves = f"/api/v1/people/{people[1][1]['id']}"
            assert (await http.patch(eves, json={"disabled": True})).status_code == 200
            reply = await max_.post(path, json={"scope": "rule"})
            assert (reply.status_code, [vote["name"] for vote in reply.json()["votes"]]) == (202, ["max"])
            reply = await ada.post(path, json={"scope": "rule"})
            assert (reply.status_code, reply.json()["decided_by_name"]) == (200, "max and ada")
            await runner.expect("approval.decision", within_s=30)
            grants = "/api/v1/approval-grants"
            assert len((await hub.http.get(grants)).json()["grants"]) == 1
            adas = f"/api/v1/people/{people[2][1]['id']}"
            await http.patch(adas, json={"disabled": True})
            assert (await hub.http.get(grants)).json()["grants"] == []
            await ask(runner, task_id, "q-2")
            await pending(hub)
            await http.patch(adas, json={"disabled": False})
            await ask(runner, task_id, "q-3")
            assert (await runner.expect("approval.decision", within_s=30))["approval_id"] == "q-3"
            for one in (max_, eve, ada):
                await one.aclose()


async def test_one_no_is_enough(start_hub):
    """Under the two-person rule either of them can stop it."""
    async with start_hub(approval_rules=Rules(two_people=True)) as hub, waiting(hub) as (runner, _, found):
        assert (await hub.http.post(f"/api/v1/approvals/{found['id']}/deny", json={})).json()["state"] == "denied"
        assert (await runner.expect("approval.decision", within_s=30))["verdict"] == "deny"


async def test_nobody_approves_their_own_where_that_is_unwanted(start_hub):
    """Neither by the browser nor by a token of theirs, nor by what they granted before; a colleague may."""
    async with start_hub(approval_rules=Rules(own_requests=False)) as hub:
        owner = await become_owner(hub)
        max_, _ = await invite(hub, "max@example.com")
        created = await hub.environment()
        async with (
            connect_v1(hub.url, created["token"]) as runner,
            as_person(hub, owner) as one,
            as_person(hub, max_) as two,
        ):
            await hub.until_online()
            made = await two.post("/api/v1/tokens", json={"name": "agent", "scopes": ["tasks:run", "approvals:decide"]})
            agent = {"authorization": f"Bearer {made.json()['secret']}"}
            body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}}
            async with httpx2.AsyncClient(base_url=hub.url, headers=agent) as http:
                task = (await http.post("/api/v1/tasks", json=body)).json()
                await runner.expect("task.request", within_s=30)
                await ask(runner, task["id"])
                (found,) = await pending(hub)
                path = f"/api/v1/approvals/{found['id']}/approve"
                for refused in (http, two):
                    reply = await refused.post(path, json={})
                    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "own_request")
                # Nor after the token that asked is gone: what it asked for stays its owner's.
                assert (await two.delete(f"/api/v1/tokens/{made.json()['token']['id']}")).status_code == 204
                reply = await two.post(path, json={})
                assert (reply.status_code, reply.json()["error"]["code"]) == (403, "own_request")
                assert (await one.post(path, json={"scope": "rule"})).status_code == 200
            # The owner's own request is not covered by the owner's grant.
            mine = (await one.post("/api/v1/tasks", json=body)).json()
            await runner.expect("task.request", within_s=30)
            await ask(runner, mine["id"], "q-2")
            await pending(hub)


async def test_an_agents_token_cannot_answer_itself(hub):
    """Also where people may approve their own: a token that runs and decides would need nobody."""
    created = await hub.environment()
    scopes = ["tasks:run", "approvals:decide", "approvals:read"]
    made = await hub.http.post("/api/v1/tokens", json={"name": "agent", "scopes": scopes})
    agent = {"authorization": f"Bearer {made.json()['secret']}"}
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        async with httpx2.AsyncClient(base_url=hub.url, headers=agent) as http:
            body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}}
            task = (await http.post("/api/v1/tasks", json=body)).json()
            await runner.expect("task.request", within_s=30)
            await ask(runner, task["id"])
            (found,) = await pending(hub)
            reply = await http.post(f"/api/v1/approvals/{found['id']}/approve", json={})
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "own_request")


async def test_no_token_of_a_family_answers_for_another(hub):
    """A token that makes tokens could make its own approver; one that an admin made beside it approves."""
    created = await hub.environment()
    scopes = ["tasks:run", "approvals:decide", "approvals:read", "tokens:write"]

    async def make(by: dict[str, str], name: str) -> dict[str, str]:
        made = await hub.http.post("/api/v1/tokens", json={"name": name, "scopes": scopes}, headers=by)
        return {"authorization": f"Bearer {made.json()['secret']}"}

    agent, beside = await make({}, "agent"), await make({}, "approver")
    child, second = await make(agent, "child"), await make(agent, "second")
    grandchild = await make(second, "grandchild")
    body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}}
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        for number, (asker, deciders) in enumerate(
            ((agent, (agent, child, grandchild)), (child, (agent, second, grandchild)), (grandchild, (child,)))
        ):
            task = (await hub.http.post("/api/v1/tasks", json=body, headers=asker)).json()
            await runner.expect("task.request", within_s=30)
            await ask(runner, task["id"], f"q-{number}")
            (found,) = await pending(hub)
            path = f"/api/v1/approvals/{found['id']}/approve"
            for by in deciders:
                reply = await hub.http.post(path, json={}, headers=by)
                assert (reply.status_code, reply.json()["error"]["code"]) == (403, "own_request")
            assert (await hub.http.post(path, json={}, headers=beside)).status_code == 200


async def test_a_question_of_another_environments_task_is_not_taken(hub):
    """A runner asks about its own tasks only; the connection of one that does not ends."""
    await hub.environment()
    other = await hub.environment("web-2")
    task = await hub.start("x", environment="web-1", queue_s=60)
    async with connect_v1(hub.url, other["token"]) as runner:
        await hub.until_online("web-2")
        await ask(runner, task["id"])
        assert await runner.expect_closed(within_s=30)
    assert (await hub.http.get("/api/v1/approvals")).json()["approvals"] == []


async def test_bad_answers_are_refused(hub):
    """A reach without a rule, a time for once, and an unknown id."""
    async with waiting(hub, rule="", place="") as (_, _, found):
        path = f"/api/v1/approvals/{found['id']}/approve"
        assert (await hub.http.post(path, json={"scope": "rule"})).json()["error"]["code"] == "no_rule"
        assert (await hub.http.post(path, json={"for_s": 5})).status_code == 400
        assert (await hub.http.post("/api/v1/approvals/apr_none/approve", json={})).status_code == 404


# Telling people.


async def test_the_webhook_is_signed_and_tried_again(start_hub, monkeypatch):
    """Who has the secret can tell that the hub sent it; one that fails comes again."""
    monkeypatch.setattr("guardhouse.hub.approvals.notify.FIRST_RETRY_MS", 50)
    heard: list[tuple[dict[str, str], bytes]] = []

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65_536)
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
        while len(body) < int(headers["content-length"]):
            body += await stream.receive_some(65_536)
        heard.append((headers, body))
        status = b"500 No" if len(heard) == 1 else b"204 Yes"
        await stream.send_all(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        webhook = Webhook(url=f"http://127.0.0.1:{port}/hook?x=1", secret="s" * 20, allow_private=True)
        async with start_hub(webhook=webhook) as hub, waiting(hub) as (_, _, found):
            with trio.fail_after(30):
                while len(heard) < 2:  # noqa: ASYNC110 - filled by another task
                    await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    headers, body = heard[1]
    at, signature = (part.partition("=")[2] for part in headers["x-guardhouse-signature"].split(","))
    assert hmac.new(b"s" * 20, f"{at}.".encode() + body, hashlib.sha256).hexdigest() == signature
    assert json.loads(body)["approval"]["id"] == found["id"]
    assert heard[0][0]["x-guardhouse-delivery"] == headers["x-guardhouse-delivery"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "::1", "::ffff:127.0.0.1", "localhost", "64:ff9b::a00:1", "2002:7f00:1::"]
)
async def test_webhooks_reach_no_private_address(host):
    """The hub is no way into the network it stands in, unless that is granted; tunnels to it are the same."""
    with pytest.raises(NotDelivered):
        await judged_address(host, 443, allow_private=False)
    assert await judged_address(host, 443, allow_private=True)


@pytest.mark.parametrize("host", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "168.63.129.16"])
async def test_webhooks_never_reach_a_clouds_metadata(host):
    """Not where private addresses are granted either; an ordinary public address is reached both ways."""
    for allow_private in (False, True):
        with pytest.raises(NotDelivered, match="metadata"):
            await judged_address(host, 443, allow_private=allow_private)
        assert await judged_address("1.1.1.1", 443, allow_private=allow_private)


class HangingWebhook:
    """Takes a request, says nothing until it may, and then never ends its answer."""

    def __init__(self) -> None:
        self.asked, self.may_answer, self.left = trio.Event(), trio.Event(), trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        self.asked.set()
        await self.may_answer.wait()
        await stream.send_all(b"HTTP/1.1 200 Yes\r\ncontent-length: 1000000000000\r\n\r\n")
        try:
            while True:
                await stream.send_all(b"x" * 65_536)
        except trio.BrokenResourceError:
            self.left.set()


async def test_what_is_over_is_not_told_any_more(start_hub, monkeypatch):
    """A message that failed is not sent once its question has its answer; the log has that nobody was told."""
    monkeypatch.setattr("guardhouse.hub.approvals.notify.FIRST_RETRY_MS", 50)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    failing = trio.Event()

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        failing.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, refuse, listeners)
        webhook = Webhook(url=f"http://127.0.0.1:{port}/", secret="s" * 20, allow_private=True)
        async with start_hub(webhook=webhook) as hub, waiting(hub) as (_, _, found):
            with trio.fail_after(30):
                await failing.wait()
            await hub.http.post(f"/api/v1/approvals/{found['id']}/deny", json={})

            async def is_given_up() -> Any:
                return (await hub.http.get("/api/v1/audit", params={"action": "notification.fail"})).json()["events"]

            (event,) = await hub.until(is_given_up)
            assert event["detail"]["error"] == "its question was denied before anybody could be told"
            assert event["detail"]["attempts"] < 6
        nursery.cancel_scope.cancel()


async def test_mail_is_sent(start_hub, monkeypatch):
    """One message with the command and how to answer, whatever the webhook does; nothing of it can add a header."""
    received: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 test\r\n")
        buffer, in_data = b"", False
        while True:
            chunk = await stream.receive_some(65_536)
            if not chunk:
                return
            buffer += chunk
            if in_data:
                if buffer.endswith(b"\r\n.\r\n"):
                    received.append(buffer)
                    buffer, in_data = b"", False
                    await stream.send_all(b"250 ok\r\n")
                continue
            while b"\r\n" in buffer:
                line, _, buffer = buffer.partition(b"\r\n")
                if line.upper().startswith(b"DATA"):
                    in_data = True
                    await stream.send_all(b"354 go\r\n")
                else:
                    await stream.send_all(b"250 ok\r\n")

    monkeypatch.setattr("guardhouse.hub.approvals.notify.TIMEOUT_S", 60)
    hook = HangingWebhook()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        mail = Mail(
            host="127.0.0.1", port=port, tls_from_start=False, user=None, password=None,
            sender="hub@example.com", recipients=("ops@example.com",),
        )  # fmt: skip
        webhook = Webhook(url=await nursery.start(hook.serve), secret="s" * 20, allow_private=True)
        parts = [{"verdict": "ask", "rule": rule, "place": "ops.yaml:9"} for rule in ("rm *", "dd *")]
        question = partial(waiting, gate="shell", explanation={"verdict": "ask", "commands": parts})
        async with start_hub(mail=mail, webhook=webhook) as hub, question(hub) as (_, _, found):
            with trio.fail_after(30):
                while not received:  # noqa: ASYNC110 - filled by another task
                    await trio.sleep(0.02)
                await hook.asked.wait()
                # It said nothing for all this time, and now without end; its status is all that is read.
                hook.may_answer.set()
                await hook.left.wait()

            async def none_is_left() -> bool:
                return hub.store.execute("SELECT count(*) FROM notifications") == [(0,)]

            await hub.until(none_is_left)
        nursery.cancel_scope.cancel()
    assert b"rm -r old" in received[0]
    assert b"Also asks: dd * (ops.yaml:9)" in received[0]
    head = received[0].partition(b"\r\n\r\n")[0].decode()
    sent = email.message_from_string(head)
    assert abs(email.utils.parsedate_to_datetime(sent["Date"]).timestamp() - time.time()) < 300
    assert re.fullmatch(r"<ntf_[a-z0-9]+@example\.com>", sent["Message-ID"])
    assert sent["Auto-Submitted"] == "auto-generated"
    assert f"guardhouse approval approve {found['id']}".encode() in received[0]


async def test_a_message_stored_right_after_the_look_is_sent_at_once(start_hub, monkeypatch):
    """A question that is committed when the sender has just found nothing does not wait for its next minute."""
    from guardhouse.hub.approvals import notify
    from guardhouse.hub.store import approvals as store
    from guardhouse.hub.store import audit

    looked = trio.Event()
    sent: list[str] = []
    read = Database.read

    def insert(connection: Any) -> None:
        now_ms = int(time.time() * 1000)
        message = store.Notification(
            id="ntf_1", channel="mail", subject="apr_1", body="message", created_ms=now_ms, next_ms=now_ms
        )
        store.insert_notification(connection, message)
        audit.record_audit_event(
            connection, at_ms=now_ms, actor="hub", action="approval.request", target="apr_1", address=None
        )

    async def read_and_then_store(self: Database, operation: Any) -> Any:
        found = await read(self, operation)
        if getattr(operation, "func", None) is store.next_notifications and not looked.is_set():
            looked.set()
            await self.write(insert)
        return found

    monkeypatch.setattr(Database, "read", read_and_then_store)
    monkeypatch.setattr(notify, "build_message", lambda _mail, body, **_: body)
    monkeypatch.setattr(notify, "send_mail", lambda _mail, message: sent.append(message))
    mail = Mail(
        host="127.0.0.1", port=25, tls_from_start=False, user=None, password=None,
        sender="hub@example.com", recipients=("ops@example.com",),
    )  # fmt: skip
    async with start_hub(mail=mail):
        with trio.fail_after(30):
            await looked.wait()
            while not sent:  # noqa: ASYNC110 - filled by a thread
                await trio.sleep(0.02)
    assert sent == ["message"]


def test_bad_destinations_are_refused(tmp_path):
    """What cannot be meant is named before the hub starts."""
    short, good = tmp_path / "short", tmp_path / "good"
    short.write_text("x")
    good.write_text("x" * 20)
    for url, secret, private in (
        ("http://example.com", good, False),
        ("https://u@example.com", good, False),
        ("https://example.com", short, False),
        ("https://example.com", None, False),
        ("ftp://example.com", good, True),
        ("https://example.com:99999/", good, False),
        ("https://example.com:0/", good, False),
        ("https://exa mple.com/", good, False),
        ("https://a..b/", good, False),
        (f"https://{'a' * 70}.com/", good, False),
        ("https://example.com/ a", good, False),
        ("https://example.com/\r\nx: y", good, False),
        ("https://[::1/", good, False),
    ):
        with pytest.raises(SetupError):
            parse_webhook(url, secret, allow_private=private)
    assert parse_webhook("https://example.com/x", good, allow_private=False).secret == "x" * 20
    for url, sender, to in (
        ("http://x", "a@b", ("c@d",)),
        ("smtp://x", None, ("c@d",)),
        ("smtp://x", "a@b", ()),
        ("smtp://u@x", "a@b", ("c@d",)),
        ("smtp://u:p@x", "a@b", ("c@d",)),
        ("smtp://x", "a@b\nBcc: x@y", ("c@d",)),
        ("smtp://x", "a@b", ("c@d\r\nBcc: x@y",)),
        ("smtp://x", "a@b", ("c@d, e@f",)),
        ("smtp://x", "a@b", ("nobody",)),
        ("smtp://x", "m\u00fcller@example.com", ("c@d",)),
    ):
        with pytest.raises(SetupError):
            parse_mail(url, None, sender=sender, recipients=to)


async def test_answered_questions_are_deleted_after_their_time(hub):
    """The retention takes what is answered, never what is open; the audit log keeps both."""
    from guardhouse.hub.store.approvals import delete_old_approvals

    async with waiting(hub) as (runner, task_id, found):
        await hub.http.post(f"/api/v1/approvals/{found['id']}/deny", json={})
        await ask(runner, task_id, "q-2")
        (still_open,) = await pending(hub)
        later_ms = int(time.time() * 1000) + 60_000
        assert await hub.hub.services.database.write(partial(delete_old_approvals, before_ms=later_ms)) == 1
        assert [one["id"] for one in (await hub.http.get("/api/v1/approvals")).json()["approvals"]] == [
            still_open["id"]
        ]
        events = (await hub.http.get("/api/v1/audit", params={"target": found["id"]})).json()["events"]
        assert [one["action"] for one in events] == ["approval.deny", "approval.ask"]
