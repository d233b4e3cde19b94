"""The REST interface: who may do what, what is checked, and that the document says what is true."""

import json
import re

import httpx2
import pytest
from tests.support.runner_stub import connect_v1

from guardhouse.hub.api.door import Door
from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.authorize import Access, Scope
from guardhouse.mcp_server.endpoint import HUB_METADATA_PATH, MCP_PATH, METADATA_PATH, McpEndpoint

SCOPED = [route for route in ROUTES if isinstance(route.access, Scope)]
GUARDED = [route for route in ROUTES if route.access is not Access.PUBLIC]


def name(route) -> str:
    return f"{route.method} {route.path}"


def concrete(path: str) -> str:
    return re.sub(r"\{\w+\}", "none", path)


async def token_with(hub, *scopes: str) -> dict[str, str]:
    reply = await hub.http.post("/api/v1/tokens", json={"name": " ".join(scopes), "scopes": scopes})
    assert reply.status_code == 201, reply.text
    return {"authorization": f"Bearer {reply.json()['secret']}"}


async def test_no_route_escapes_the_door(hub):
    """Every request that the application answers is a row of the table behind its door, or the agents' endpoint."""
    app = hub.hub.app._app
    served = {(route.path, method) for route in app.routes for method in getattr(route, "methods", None) or ["any"]}
    listed = {(route.path, route.method) for route in ROUTES}
    others = {(path, "any") for path in (MCP_PATH, METADATA_PATH, HUB_METADATA_PATH)}
    assert served - {(path, "HEAD") for path, _ in served} == listed | others
    for route in app.routes:
        assert isinstance(route.endpoint, Door | McpEndpoint), route.path
    for route in ROUTES:
        assert isinstance(route.access, Scope | Access), name(route)


async def test_public_routes_are_the_few_that_must_be(hub):
    """What anybody may read is this list; a new entry is a decision."""
    assert {name(route) for route in ROUTES if route.access is Access.PUBLIC} == {
        "GET /",
        "GET /health",
        "GET /healthz",
        "GET /readyz",
        "GET /api/v1/openapi.json",
        "GET /welcome",
        "POST /api/v1/sign-in",
        "GET /api/v1/sign-in/methods",
        "GET /api/v1/sign-in/oidc",
        "GET /api/v1/sign-in/oidc/callback",
        "POST /api/v1/links/accept",
        "POST /api/v1/join",
        "GET /device",
        "POST /api/v1/device-sign-ins",
        "POST /api/v1/device-token",
        "POST /api/v1/sign-in/token",
    }


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"authorization": "Bearer ght_" + "0" * 48}, id="unknown"),
        pytest.param({"authorization": "Basic eDp5"}, id="other scheme"),
        pytest.param({"authorization": "Bearer"}, id="empty"),
    ],
)
async def test_every_guarded_route_refuses_strangers(hub, headers, monkeypatch):
    """Without a valid token each route answers 401 before it looks at anything else."""
    # One token for each route is no guessing here: past that limit every answer would be 429 and say nothing.
    monkeypatch.setattr("guardhouse.hub.guesses._BUCKET", 1_000_000.0)
    async with httpx2.AsyncClient(base_url=hub.url) as http:
        for route in GUARDED:
            reply = await http.request(route.method, concrete(route.path), headers=headers, content=b"{broken")
            assert reply.status_code == 401, name(route)
            assert reply.json()["error"]["code"] == "authentication_failed"
            assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_asks_for_its_scope(hub):
    """Each scope opens exactly the routes of its rows: 403 elsewhere, and never 403 where it belongs."""
    for scope in Scope:
        headers = await token_with(hub, scope.value)
        async with httpx2.AsyncClient(base_url=hub.url, headers=headers) as http:
            for route in SCOPED:
                # Not read: an event stream does not end.
                async with http.stream(route.method, concrete(route.path), content=b"{broken") as reply:
                    allowed = scope in {route.access, Scope.ADMIN}
                    assert (reply.status_code != 403) == allowed, f"{scope.value}: {name(route)}"
                    assert reply.status_code != 401


async def test_runner_token_opens_no_route(hub):
    """A runner token found on a host cannot ask the API anything."""
    created = await hub.environment()
    headers = {"authorization": f"Bearer {created['token']}"}
    async with httpx2.AsyncClient(base_url=hub.url, headers=headers) as http:
        assert (await http.get("/api/v1/self")).status_code == 401


async def test_nobody_grants_what_they_lack(hub):
    """A token makes tokens of its own scopes only, and none that outlives it."""
    reply = await hub.http.post(
        "/api/v1/tokens", json={"name": "n", "scopes": ["tokens:write", "env:read"], "expires_in_s": 60}
    )
    headers = {"authorization": f"Bearer {reply.json()['secret']}"}
    async with httpx2.AsyncClient(base_url=hub.url, headers=headers) as http:
        denied = await http.post("/api/v1/tokens", json={"name": "x", "scopes": ["admin"]})
        assert (denied.status_code, denied.json()["error"]["code"]) == (403, "access_denied")
        made = await http.post("/api/v1/tokens", json={"name": "x", "scopes": ["env:read"]})
        assert made.json()["token"]["expires_at"] == reply.json()["token"]["expires_at"]


async def test_revoked_token_is_refused_at_once(hub):
    """Revocation needs no restart and no waiting."""
    reply = (await hub.http.post("/api/v1/tokens", json={"name": "n", "scopes": ["env:read"]})).json()
    headers = {"authorization": f"Bearer {reply['secret']}"}
    async with httpx2.AsyncClient(base_url=hub.url, headers=headers) as http:
        assert (await http.get("/api/v1/environments")).status_code == 200
        assert (await hub.http.delete(f"/api/v1/tokens/{reply['token']['id']}")).status_code == 204
        assert (await http.get("/api/v1/environments")).status_code == 401
    assert (await hub.http.delete(f"/api/v1/tokens/{reply['token']['id']}")).status_code == 404


async def test_what_a_stolen_token_made_can_end_with_it(hub):
    """Revoking alone leaves what was made with a token; with ``made`` its tokens, theirs and join tokens end too."""

    async def make(by: dict[str, str]) -> tuple[str, dict[str, str]]:
        body = {"name": "n", "scopes": ["tokens:write", "env:write", "env:read"]}
        made = (await hub.http.post("/api/v1/tokens", json=body, headers=by)).json()
        return made["token"]["id"], {"authorization": f"Bearer {made['secret']}"}

    async def works(by: dict[str, str]) -> bool:
        return (await hub.http.get("/api/v1/environments", headers=by)).status_code == 200

    stolen_id, stolen = await make({})
    (_, child), (_, beside) = await make(stolen), await make({})
    _, grandchild = await make(child)
    assert (await hub.http.post("/api/v1/join-tokens", json={}, headers=grandchild)).status_code == 201
    assert (await hub.http.post("/api/v1/join-tokens", json={}, headers=beside)).status_code == 201
    path = f"/api/v1/tokens/{stolen_id}"
    assert (await hub.http.delete(path)).status_code == 204
    assert [await works(one) for one in (stolen, child, grandchild, beside)] == [False, True, True, True]
    assert (await hub.http.delete(path)).status_code == 404
    assert (await hub.http.delete(path, params={"made": "true"})).status_code == 204
    assert [await works(one) for one in (stolen, child, grandchild, beside)] == [False, False, False, True]
    assert len((await hub.http.get("/api/v1/join-tokens")).json()["join_tokens"]) == 1
    events = (await hub.http.get("/api/v1/audit", params={"limit": 3})).json()["events"]
    assert [one["action"] for one in events] == ["join_token.delete", "token.revoke", "token.revoke"]
    assert all(one["detail"]["made_with"] == stolen_id for one in events)


async def test_secret_is_shown_once(hub):
    """No later answer holds the secret of an API token."""
    made = (await hub.http.post("/api/v1/tokens", json={"name": "n", "scopes": ["env:read"]})).json()
    listed = (await hub.http.get("/api/v1/tokens")).text
    assert made["secret"] not in listed
    assert made["token"]["hint"] in listed


async def test_looking_at_a_runner_token_is_audited(hub):
    """Who looked at the token, and when, is written down with the look itself."""
    created = await hub.environment()
    shown = (await hub.http.get("/api/v1/environments/web-1/token")).json()
    assert shown["token"] == created["token"]
    events = (await hub.http.get("/api/v1/audit")).json()["events"]
    assert events[0]["action"] == "environment.token.view"
    assert events[0]["target"] == created["environment"]["id"]
    assert created["token"] not in json.dumps(events)


async def test_rotation_overlaps(hub):
    """Both tokens open a connection until the overlap ends; with none, the old one ends at once."""
    created = await hub.environment()
    credentials = hub.hub.services.credentials
    rotated = (await hub.http.post("/api/v1/environments/web-1/token/rotate", json={"overlap_s": 60})).json()
    from guardhouse.hub.clock import now_ms

    for token in (created["token"], rotated["token"]):
        assert credentials.runner(token, now_ms=now_ms(), address=None).environment_id == created["environment"]["id"]
    again = (await hub.http.post("/api/v1/environments/web-1/token/rotate", json={"overlap_s": 0})).json()
    from guardhouse.hub.authorize import AuthenticationFailed

    for token in (created["token"], rotated["token"]):
        with pytest.raises(AuthenticationFailed):
            credentials.runner(token, now_ms=now_ms(), address=None)
    assert credentials.runner(again["token"], now_ms=now_ms(), address=None)
    assert (await hub.http.get("/api/v1/environments/web-1/token")).json()["token"] == again["token"]


async def test_names_are_unique(hub):
    """A second environment of the same name is refused, also by renaming."""
    await hub.environment("web-1")
    await hub.environment("web-2")
    again = await hub.http.post("/api/v1/environments", json={"name": "web-1"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "name_taken")
    renamed = await hub.http.patch("/api/v1/environments/web-2", json={"name": "web-1"})
    assert renamed.status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"name": "x" * 129}, id="long"),
        pytest.param({"name": "a\nb"}, id="newline inside"),
        pytest.param({"name": "a\n"}, id="newline at the end"),
        pytest.param({"name": "\x1b[31m"}, id="escape"),
        pytest.param({"name": " a"}, id="blank at the start"),
        pytest.param({"name": "env_abc"}, id="like an id"),
        pytest.param({"name": 5}, id="number"),
        pytest.param({"nmae": "x"}, id="misspelt member"),
        pytest.param({"name": "x", "tags": ["a b"]}, id="tag with a blank"),
        pytest.param({"name": "x", "scope": {"kind": "team"}}, id="team without a name"),
        pytest.param([], id="no object"),
    ],
)
async def test_bad_environments_are_refused(hub, body):
    """A name or tag that would break a table, a terminal or a lookup is a 400 that says where."""
    reply = await hub.http.post("/api/v1/environments", json=body)
    assert reply.status_code == 400
    assert set(reply.json()["error"]) == {"code", "message", "hint", "retryable"}


async def test_scope_is_fixed(hub):
    """An environment stays with whom it was made for: a change of scope is refused, and changes nothing else."""
    await hub.environment()
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    moved = {"tags": ["new"], "scope": {"kind": "team", "team": "payments"}}
    reply = await hub.http.patch("/api/v1/environments/web-1", json=moved)
    assert reply.status_code == 400
    assert "scope" in reply.json()["error"]["message"]
    found = (await hub.http.get("/api/v1/environments/web-1")).json()
    assert (found["scope"]["kind"], found["tags"]) == ("account", [])


async def test_list_filters_and_pages(hub):
    """Filters narrow, pages join up to the whole, by name."""
    team = (await hub.http.post("/api/v1/teams", json={"name": "payments"})).json()
    for n in range(5):
        scope = {"kind": "team", "team": "payments"} if n == 3 else {"kind": "account"}
        await hub.environment(f"web-{n}", tags=["even" if n % 2 == 0 else "odd"], scope=scope)

    async def names(**query) -> list[str]:
        reply = await hub.http.get("/api/v1/environments", params=query)
        return [one["name"] for one in reply.json()["environments"]]

    assert await names(tag="even") == ["web-0", "web-2", "web-4"]
    (of_team,) = (await hub.http.get("/api/v1/environments", params={"scope": "payments"})).json()["environments"]
    assert of_team["scope"] == {"kind": "team", "team": "payments"}, "people are shown the team's name"
    assert await names(scope=team["id"]) == await names(scope="payments") == ["web-3"]
    assert await names(scope="account") == ["web-0", "web-1", "web-2", "web-4"]
    assert await names(text="EB-2") == ["web-2"]
    assert await names(text="%") == []
    assert await names(status="online") == []
    assert await names(status="pending") == [f"web-{n}" for n in range(5)]
    first = (await hub.http.get("/api/v1/environments", params={"limit": 2})).json()
    rest = await names(cursor=first["next_cursor"])
    assert [one["name"] for one in first["environments"]] + rest == [f"web-{n}" for n in range(5)]


async def test_bad_operations_are_refused_before_anything_is_stored(hub):
    """An unknown operation and wrong arguments answer with the wire's own words."""
    await hub.environment()
    for operation, args, message in (
        ("explode", {}, "unknown operation: explode"),
        ("bash", {"command": 5}, "invalid bash args"),
        ("read", {}, "invalid read args"),
    ):
        body = {"environment_id": "web-1", "operation": operation, "args": args, "queue_s": 5}
        reply = await hub.http.post("/api/v1/tasks", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["message"].startswith(message)
    assert (await hub.http.get("/api/v1/tasks")).json()["tasks"] == []


async def test_idempotency_key_starts_one_task(hub):
    """The same request under one key is one task; another request under it is a conflict."""
    await hub.environment()
    first = await hub.start("a", queue_s=60, idempotency_key="k1")
    assert (await hub.start("a", queue_s=60, idempotency_key="k1"))["id"] == first["id"]
    assert (await hub.start("a", queue_s=60, idempotency_key="k2"))["id"] != first["id"]
    body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "b"}, "idempotency_key": "k1"}
    reply = await hub.http.post("/api/v1/tasks", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_tasks_are_searched_and_cancelled_in_line(hub):
    """A waiting task is found by its command, and cancelled without a runner."""
    await hub.environment()
    await hub.start("uptime", queue_s=60)
    task = await hub.start("journalctl -u nginx", queue_s=60)
    found = (await hub.http.get("/api/v1/tasks", params={"text": "NGINX"})).json()["tasks"]
    assert [one["id"] for one in found] == [task["id"]]
    reply = await hub.http.post(f"/api/v1/tasks/{task['id']}/cancel", json={})
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    listed = (await hub.http.get("/api/v1/tasks", params={"state": "cancelled"})).json()["tasks"]
    assert [one["id"] for one in listed] == [task["id"]]


async def test_openapi_document_is_valid_and_complete(hub):
    """Each row is in the document, each reference resolves, each operation has its own name."""
    document = (await hub.http.get("/api/v1/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text)):
        assert reference in document["components"]["schemas"]
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    assert {(path, method.upper()) for path, method, _ in operations} == {(r.path, r.method) for r in ROUTES}
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids)
    for path, _, operation in operations:
        declared = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))
        assert operation["responses"]
        for reply in operation["responses"].values():
            assert reply["description"]


async def test_errors_have_one_shape(hub):
    """Wrong path, wrong method, wrong type, too large: the same members, the right status."""
    for reply, status in (
        (await hub.http.get("/api/v1/nothing"), 404),
        (await hub.http.put("/api/v1/environments"), 405),
        (await hub.http.post("/api/v1/environments", content=b"a=b", headers={"content-type": "text/plain"}), 415),
        (await hub.http.post("/api/v1/environments", content=b'{"name":"' + b"x" * 70_000), 413),
        (await hub.http.post("/api/v1/environments", content=b'{"name":"a","name":"b"}'), 400),
        (await hub.http.get("/api/v1/environments?limit=0"), 400),
        (await hub.http.get("/api/v1/environments?limit=1&limit=2"), 400),
        (await hub.http.get("/api/v1/environments?unknown=1"), 400),
        (await hub.http.get("/api/v1/tasks?cursor=x"), 400),
    ):
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"code", "message", "hint", "retryable"}


async def test_every_answer_carries_the_security_headers(hub):
    """Also errors and the page for people."""
    for path in ("/", "/healthz", "/nothing", "/api/v1/self"):
        headers = (await hub.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


async def test_health_and_landing(hub):
    """Probes answer without a token, and the page says where the API is."""
    for path in ("/health", "/healthz"):
        assert (await hub.http.get(path)).json()["status"] == "ok"
    assert (await hub.http.get("/readyz")).json() == {"status": "ready", "reason": None}
    page = await hub.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert f"{hub.url}/api/v1" in page.text


async def test_tasks_are_found_by_what_really_ran(hub):
    """A search looks at the programs that the exec gate saw, not only at the text that was asked for."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        session = (await hub.http.post("/api/v1/sessions", json={})).json()["id"]
        for command, argv in (("./deploy.sh", ["curl", "http://192.0.2.1/x"]), ("curl --help", ["curl", "--help"])):
            task = await hub.start(command, environment=None, session_id=session)
            asked = await runner.expect("task.request")
            execs = {"ran": [{"argv": ["bash", "-c", command]}, {"argv": argv}], "refused": []}
            await runner.result(asked["task_id"], result={"stdout": "", "stderr": "", "exit_code": 0, "execs": execs})
            await hub.result(task["id"])

    async def found(**query: str) -> list[str]:
        reply = await hub.http.get("/api/v1/tasks", params=query)
        assert reply.status_code == 200, reply.text
        return [one["command"] for one in reply.json()["tasks"]]

    assert await found(executed="192.0.2.1") == ["./deploy.sh"]
    assert await found(text="192.0.2.1") == []
    assert await found(executed="CURL") == ["curl --help", "./deploy.sh"]
    assert await found(executed="%") == []
    assert len(await found(session_id=session, operation="bash", since="2020-01-01T00:00:00Z")) == 2
    assert await found(until="2020-01-01T00:00:00Z") == []
    assert (await hub.http.get("/api/v1/tasks", params={"since": "yesterday"})).status_code == 400
