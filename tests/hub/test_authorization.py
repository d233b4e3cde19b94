"""Who may do what: every route of the table, asked by everybody there is, against one table of our own.

The handlers are replaced, the doors are real: what is looked at is who comes through.
"""

import re
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route as HttpRoute
from tests.hub.support import become_owner, invite, make_skill
from tests.support.runner_stub import connect_v1

from guardhouse.hub.api.door import Door, Reply
from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.authorize import WHOLE_ACCOUNT_SCOPES, Access, Scope
from guardhouse.hub.concerns import Concern

# A valid body for each route that takes one: what it is about is looked at after it is understood.
BODIES: dict[str, dict[str, Any]] = {
    "SignInRequest": {"email": "a@b", "password": "x"},
    "LinkAccept": {"token": "ghl_x", "password": "x"},
    "PasswordChange": {"current": "x", "new": "y"},
    "PersonInvite": {"email": "a@b"},
    "PolicyPut": {"document": "x"},
    "DrainRequest": {},
    "JoinTokenCreate": {"scope": {"kind": "team", "team": "TEAM"}},
    "JoinRequest": {"token": "ghj_x", "public_key": "0" * 64, "signature": "0" * 128},
    "DeviceSignInBegin": {"name": "x"},
    "DeviceCollect": {"device_code": "ghd_x"},
    "PasswordLogin": {"email": "a@b", "password": "x", "name": "x"},
    "TeamCreate": {"name": "x"},
    "TokenCreate": {"name": "x", "scopes": ["env:read"]},
    "TaskCreate": {"environment_id": "ENVIRONMENT", "operation": "bash"},
    "FanoutCreate": {"environments": ["ENVIRONMENT"], "operation": "bash", "args": {"command": "x"}},
    "ScheduleCreate": {"environment_id": "ENVIRONMENT", "operation": "bash", "run_at": "2026-01-01T00:00:00Z"},
    "McpServerCreate": {"name": "x", "transport": "stdio", "command": "x", "scope": {"kind": "team", "team": "TEAM"}},
    "McpServerTest": {"environment_id": "ENVIRONMENT"},
    "EnvironmentCreate": {"scope": {"kind": "team", "team": "TEAM"}},
    "SessionCreate": {"scope": {"kind": "team", "team": "TEAM"}},
    "SessionUpdate": {"title": "x"},
    "ManagedUpdate": {"domains": []},
}

# What becomes of each concern for people who have the scope. "team": the environment is of their team; "other": of a
# team that they are not in; "account": of the account. 0 lets through.
PEOPLE: dict[Concern, dict[str, int]] = {
    Concern.NOTHING: {"team": 0, "other": 0, "account": 0},
    Concern.LISTS: {"team": 0, "other": 0, "account": 0},
    Concern.SEE_ENVIRONMENT: {"team": 0, "other": 404, "account": 0},
    Concern.EDIT_ENVIRONMENT: {"team": 0, "other": 404, "account": 403},
    Concern.CREATE_ENVIRONMENT: {"team": 0, "other": 403, "account": 403},
    # The account is the only boundary of where something runs (SEED_FEATURES S213).
    Concern.RUN_IN_ENVIRONMENT: {"team": 0, "other": 0, "account": 0},
    Concern.RUN_IN_PATH: {"team": 0, "other": 0, "account": 0},
    Concern.RUN_IN_MANY: {"team": 0, "other": 0, "account": 0},
    Concern.CREATE_RESOURCE: {"team": 0, "other": 403, "account": 403},
    Concern.SEE_MCP_SERVER: {"team": 0, "other": 404, "account": 0},
    Concern.EDIT_MCP_SERVER: {"team": 0, "other": 404, "account": 403},
    Concern.USE_MCP_SERVER: {"team": 0, "other": 404, "account": 0},
    Concern.CREATE_SKILL: {"team": 0, "other": 403, "account": 403},
    Concern.SEE_SKILL: {"team": 0, "other": 404, "account": 0},
    Concern.EDIT_SKILL: {"team": 0, "other": 404, "account": 403},
    Concern.SEE_TASK: {"team": 0, "other": 404, "account": 0},
    # A fan-out names many environments: who asked for it sees it, and who sees everything.
    Concern.SEE_FANOUT: {"team": 404, "other": 404, "account": 404},
    Concern.SEE_SCHEDULE: {"team": 0, "other": 404, "account": 0},
    Concern.SEE_APPROVAL: {"team": 0, "other": 404, "account": 0},
    Concern.DECIDE_APPROVAL: {"team": 0, "other": 404, "account": 0},
    Concern.DECIDE_GRANT: {"team": 0, "other": 404, "account": 0},
    Concern.OWN_TOKEN: {"team": 404, "other": 404, "account": 404},
    # A session of the account is everybody's to see and use; whose it is and admins change it.
    Concern.CREATE_SESSION: {"team": 0, "other": 403, "account": 0},
    Concern.SEE_SESSION: {"team": 0, "other": 404, "account": 0},
    Concern.EDIT_SESSION: {"team": 0, "other": 404, "account": 403},
    Concern.OWN_JOIN_TOKEN: {"team": 404, "other": 404, "account": 404},
}

# What becomes of a token that is for another environment only.
NARROWED: dict[Concern, int] = {
    Concern.NOTHING: 0,
    Concern.LISTS: 0,
    Concern.SEE_ENVIRONMENT: 404,
    Concern.EDIT_ENVIRONMENT: 404,
    Concern.CREATE_ENVIRONMENT: 403,
    Concern.RUN_IN_ENVIRONMENT: 404,
    Concern.RUN_IN_PATH: 404,
    Concern.RUN_IN_MANY: 404,
    Concern.CREATE_RESOURCE: 403,
    Concern.SEE_MCP_SERVER: 404,
    Concern.EDIT_MCP_SERVER: 404,
    Concern.USE_MCP_SERVER: 404,
    Concern.CREATE_SKILL: 403,
    Concern.SEE_SKILL: 404,
    Concern.EDIT_SKILL: 404,
    Concern.SEE_TASK: 404,
    Concern.SEE_FANOUT: 404,
    Concern.SEE_SCHEDULE: 404,
    Concern.SEE_APPROVAL: 404,
    Concern.DECIDE_APPROVAL: 404,
    Concern.DECIDE_GRANT: 404,
    Concern.OWN_TOKEN: 404,
    Concern.CREATE_SESSION: 0,
    Concern.SEE_SESSION: 404,
    Concern.EDIT_SESSION: 404,
    Concern.OWN_JOIN_TOKEN: 404,
}


def name(route) -> str:
    return f"{route.method} {route.path}"


async def _through(call) -> Reply:
    del call
    return Reply(None, status=204)


@pytest.fixture
async def doors(hub):
    """Every door of the table in front of a handler that does nothing, and what is behind: one of each kind."""
    app = Starlette(
        routes=[
            HttpRoute(route.path, Door(replace(route, handler=_through), hub.hub.services), methods=[route.method])
            for route in ROUTES
        ]
    )
    await become_owner(hub)
    team = (await hub.http.post("/api/v1/teams", json={"name": "payments"})).json()
    things: dict[str, dict[str, str]] = {}
    async with AsyncExitStack() as stack:
        for where, scope in (("team", {"kind": "team", "team": "payments"}), ("account", {"kind": "account"})):
            created = await hub.environment(f"{where}-env", scope=scope)
            runner = await stack.enter_async_context(connect_v1(hub.url, created["token"]))
            await hub.until_online(f"{where}-env")
            task = await hub.start("x", environment=f"{where}-env")
            await runner.expect("task.request", within_s=30)
            approvals = []
            for question, answer in (("q-1", None), ("q-2", {"scope": "rule"})):
                asked = {"approval_id": f"{where}-{question}", "task_id": task["id"], "command": "x", "rule": question}
                await runner.send("approval.request", asked)

                approval = await _the_question(hub, where, question)
                approvals.append(approval["id"])
                if answer is not None:
                    await hub.http.post(f"/api/v1/approvals/{approval['id']}/approve", json=answer)
            asked = {"environments": [f"{where}-env"], "operation": "bash", "args": {"command": "x"}}
            fanout = (await hub.http.post("/api/v1/fanouts", json=asked)).json()
            later = {"environment_id": f"{where}-env", "operation": "bash", "args": {"command": "x"}}
            record = {"name": f"{where}-server", "transport": "stdio", "command": "x", "scope": scope}
            server = await hub.http.post("/api/v1/mcp-servers", json=record)
            of_team = {} if where == "account" else {"team": "payments"}
            skill = await hub.http.post("/api/v1/skills", content=make_skill(f"{where}-skill"), params=of_team)
            scheduled = await hub.http.post("/api/v1/schedules", json={**later, "run_at": _in_an_hour()})
            chosen = {"environment": {"kind": "named", "environment": f"{where}-env"}, "scope": scope}
            session = (await hub.http.post("/api/v1/sessions", json=chosen)).json()["id"]
            body = {"session_id": session, "operation": "bash", "args": {"command": "x"}}
            assert (await hub.http.post("/api/v1/tasks", json=body)).status_code == 202
            grants = (await hub.http.get("/api/v1/approval-grants")).json()["grants"]
            things[where] = {
                "environment": created["environment"]["id"],
                "task": task["id"],
                "fanout": fanout["id"],
                "server": server.json()["id"],
                "schedule": scheduled.json()["id"],
                "skill": skill.json()["skill"]["id"],
                "number": "1",
                "session": session,
                "approval": approvals[0],
                "grant": next(one["id"] for one in grants if one["environment_id"] == created["environment"]["id"]),
                "token": (await hub.http.get("/api/v1/tokens")).json()["tokens"][0]["id"],
                "join_token": (await hub.http.post("/api/v1/join-tokens", json={})).json()["join_token"]["id"],
                "team": team["id"] if where == "team" else "",
                "person": "owner@example.com",
            }
        transport = httpx2.ASGITransport(app=app, client=("192.0.2.1", 1))

        async def knock(route, where: str, **client: Any) -> int:
            """Return the status of a request for what is at ``where``; 0 for who came through."""
            known = things["team" if where == "other" else where]
            path = re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], "none") or "none", route.path)
            body = None
            if route.body is not None:
                text = dict(BODIES.get(route.body.__name__, {}))
                if text.get("environment_id"):
                    text["environment_id"] = known["environment"]
                if text.get("environments"):
                    text["environments"] = [known["environment"]]
                if "scope" in text:
                    text["scope"] = {"kind": "team", "team": team["id"]} if where != "account" else {"kind": "account"}
                body = text
            headers = {"sec-fetch-site": "same-origin", **client.pop("headers", {})}
            async with httpx2.AsyncClient(transport=transport, base_url=hub.url, headers=headers, **client) as http:
                is_file = route.path.endswith(("/files", "/uploads"))
                query = {"path": "x", "transfer": "file_aaaaaaaaaaaaaaaa"} if is_file else None
                if route.concern is Concern.CREATE_SKILL and where != "account":
                    query = {"team": team["id"]}
                reply = await http.request(route.method, path, json=body, params=query)
            assert reply.status_code in {204, 401, 403, 404}, (name(route), where, reply.text)
            return 0 if reply.status_code == 204 else reply.status_code

        yield knock, things


def _in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


async def _the_question(hub, where: str, rule: str) -> dict[str, Any]:
    async def pending() -> dict[str, Any] | None:
        found = (await hub.http.get("/api/v1/approvals", params={"state": "pending"})).json()["approvals"]
        return next((one for one in found if (one["environment_name"], one["rule"]) == (f"{where}-env", rule)), None)

    return await hub.until(pending, within_s=30)


async def test_every_route_that_names_a_thing_says_what_it_is_about():
    """A path that names an environment, task, approval, token and so on has its concern in the table."""
    for route in ROUTES:
        things = r"\{(environment|task|fanout|schedule|server|skill|approval|grant|token|session|join_token)\}"
        named = set(re.findall(things, route.path))
        assert not named or route.concern is not Concern.NOTHING, name(route)
        if route.access in {Access.PUBLIC, Access.AUTHENTICATED}:
            assert route.concern is Concern.NOTHING, name(route)


async def test_people(hub, doors):
    """Owner and admin may all; members what the seed's rules say, by the team that a thing belongs to."""
    knock, _ = doors
    owner = (await sign_in(hub, "owner@example.com")).cookies
    admin, _ = await invite(hub, "admin@example.com", role="admin")
    member, _ = await invite(hub, "member@example.com", teams=["payments"])
    other, _ = await invite(hub, "other@example.com")
    wrong = []
    for route in ROUTES:
        for who, cookies, where in (
            ("owner", owner, "team"),
            ("owner", owner, "account"),
            ("admin", admin, "team"),
            ("admin", admin, "account"),
            ("member of the team", member, "team"),
            ("member of the team", member, "account"),
            ("another member", other, "other"),
            ("another member", other, "account"),
        ):
            if route.access in {Access.PUBLIC, Access.AUTHENTICATED} or who in {"owner", "admin"}:
                expected = 0
            elif route.access in WHOLE_ACCOUNT_SCOPES:
                expected = 403
            else:
                expected = PEOPLE[route.concern][where]
            got = await knock(route, where, cookies=cookies)
            if got != expected:
                wrong.append(f"{name(route)}: {who} at {where} got {got}, not {expected}")
    assert not wrong, "\n".join(wrong)


async def sign_in(hub, email: str) -> httpx2.AsyncClient:
    from tests.hub.support import PASSWORD

    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
        reply = await http.post("/api/v1/sign-in", json={"email": email, "password": PASSWORD})
        assert reply.status_code == 200, reply.text
        return http


async def test_tokens_and_strangers(hub, doors):
    """A token of each scope opens the rows of its scope; nobody without one opens any but the public ones."""
    knock, _ = doors
    wrong = []
    callers: list[tuple[str, set[str], dict[str, str]]] = [("anonymous", set(), {})]
    for scope in Scope:
        made = await hub.http.post("/api/v1/tokens", json={"name": scope.value, "scopes": [scope.value]})
        callers.append((scope.value, {scope.value}, {"authorization": f"Bearer {made.json()['secret']}"}))
    for who, scopes, headers in callers:
        for route in ROUTES:
            if route.access is Access.PUBLIC:
                expected = 0
            elif not headers:
                expected = 401
            elif route.access is Access.AUTHENTICATED or Scope.ADMIN.value in scopes:
                expected = 0
            elif route.access.value not in scopes:
                expected = 403
            else:
                expected = 404 if route.concern in {Concern.OWN_TOKEN, Concern.OWN_JOIN_TOKEN} else 0
            got = await knock(route, "team", headers=headers)
            if got != expected:
                wrong.append(f"{name(route)}: {who} got {got}, not {expected}")
    assert not wrong, "\n".join(wrong)


async def test_narrowed_tokens(hub, doors):
    """A token for one environment opens nothing of another, and nothing of the whole account, whatever its scopes."""
    knock, _ = doors
    await hub.environment("own", tags=["mine"])
    wrong = []
    for narrowing in ({"environments": ["own"]}, {"tags": ["mine"]}):
        made = await hub.http.post("/api/v1/tokens", json={"name": "n", "scopes": ["admin"], **narrowing})
        headers = {"authorization": f"Bearer {made.json()['secret']}"}
        for route in ROUTES:
            for where in ("team", "account"):
                if route.access in {Access.PUBLIC, Access.AUTHENTICATED}:
                    expected = 0
                elif route.access in WHOLE_ACCOUNT_SCOPES:
                    expected = 403
                else:
                    expected = NARROWED[route.concern]
                got = await knock(route, where, headers=headers)
                if got != expected:
                    wrong.append(f"{name(route)}: narrowed by {narrowing} at {where} got {got}, not {expected}")
        async with httpx2.AsyncClient(base_url=hub.url, headers=headers) as http:
            assert [one["name"] for one in (await http.get("/api/v1/environments")).json()["environments"]] == ["own"]
            assert (await http.get("/api/v1/tasks")).json()["tasks"] == []
            assert (await http.get("/api/v1/sessions")).json()["sessions"] == []
            assert (await http.get("/api/v1/approvals")).json()["approvals"] == []
            assert (await http.get("/api/v1/approval-grants")).json()["grants"] == []
            wider = await http.post("/api/v1/tokens", json={"name": "w", "scopes": ["env:read"], "tags": ["other"]})
            assert wider.status_code == 403
            alike = await http.post("/api/v1/tokens", json={"name": "a", "scopes": ["env:read"]})
            assert alike.json()["token"]["environments"] is not None or alike.json()["token"]["tags"] == ["mine"]
    assert not wrong, "\n".join(wrong)


async def test_lists_hold_what_one_may_see(hub, doors):
    """A member's lists leave out other teams' environments and what ran there; their own tasks they see everywhere."""
    _, things = doors
    other, _ = await invite(hub, "other@example.com")
    async with httpx2.AsyncClient(
        base_url=hub.url, cookies=other, headers={"sec-fetch-site": "same-origin"}, timeout=30
    ) as http:
        environments = (await http.get("/api/v1/environments")).json()["environments"]
        assert [one["name"] for one in environments] == ["account-env"]
        listed = (await http.get("/api/v1/tasks", params={"text": "x"})).json()["tasks"]
        assert {one["environment_name"] for one in listed} == {"account-env"}
        assert things["account"]["task"] in {one["id"] for one in listed}
        assert (await http.get("/api/v1/fanouts")).json()["fanouts"] == []
        scheduled = (await http.get("/api/v1/schedules")).json()["schedules"]
        assert [one["id"] for one in scheduled] == [things["account"]["schedule"]]
        assert (await http.get("/api/v1/schedules", params={"environment": "team-env"})).status_code == 404
        sessions = (await http.get("/api/v1/sessions")).json()["sessions"]
        assert [one["id"] for one in sessions] == [things["account"]["session"]]
        assert {one["environment_name"] for one in (await http.get("/api/v1/approvals")).json()["approvals"]} == {
            "account-env"
        }
        assert (await http.get("/api/v1/tasks", params={"environment": "team-env"})).status_code == 404
        body = {"environment_id": "team-env", "operation": "bash", "args": {"command": "x"}, "queue_s": 60}
        mine = await http.post("/api/v1/tasks", json=body)
        assert mine.status_code == 202
        assert mine.json()["id"] in {one["id"] for one in (await http.get("/api/v1/tasks")).json()["tasks"]}
        assert (await http.get(f"/api/v1/tasks/{mine.json()['id']}")).status_code == 200
