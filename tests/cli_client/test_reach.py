"""Commands that change what exists, and `events`, against a real hub."""

import json

import trio
from tests.hub.support import PASSWORD, become_owner
from tests.hub.test_approvals import waiting


async def test_what_exists_is_changed(hub, cli):
    """An environment's name and tags, a session's title, scope and choice; each said in the audit log's stream."""
    await hub.environment()
    after = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
    changed = await cli.run("env", "update", "web-1", "--name", "web-2", "--tag", "linux,gpu", "--json")
    found = json.loads(changed.stdout)
    assert (found["name"], found["tags"]) == ("web-2", ["linux", "gpu"])
    assert (await cli.run("env", "update", "web-2", "--no-tags")).returncode == 0
    assert (await hub.status("web-2"))["tags"] == []
    assert (await cli.run("env", "update", "web-2")).returncode == 2
    session = (await cli.run("session", "create", "x")).stdout.decode().strip()
    done = await cli.run("session", "update", session, "--title", "y", "--tag", "gpu", "--shared", "--json")
    found = json.loads(done.stdout)
    assert (found["title"], found["scope"]["kind"], found["environment"]["tags"]) == ("y", "account", ["gpu"])
    chosen = json.loads((await cli.run("session", "choices", "--tag", "gpu", "--json")).stdout)
    assert (chosen["auto"], chosen["managed_available"]) == (None, False)
    refused = await cli.run("managed", "allow", "https://example.org/")
    assert (refused.returncode, b"is no domain: give names such as" in refused.stderr) == (2, True)
    heard = await cli.run("events", "--after", str(after), "--until", "session.update", "--json")
    names = [json.loads(line)["event"] for line in heard.stdout.decode().splitlines()]
    assert names == ["environment.update", "environment.update", "session.create", "session.update"]


async def test_a_person_and_their_sign_ins(hub, make_cli):
    """One's own password and browsers; what an admin sees of a person."""
    await become_owner(hub)
    body = {"email": "owner@example.com", "password": PASSWORD, "name": "desk"}
    token = (await hub.http.post("/api/v1/sign-in/token", json=body)).json()["secret"]
    cli = make_cli(hub, GUARDHOUSE_API_TOKEN=token)
    shown = json.loads((await cli.run("user", "show", "owner@example.com", "--json")).stdout)
    assert shown["role"] == "owner"
    signed_in = json.loads((await cli.run("user", "sign-ins", "--json")).stdout)["sign_ins"]
    assert len(signed_in) == 1
    assert (await cli.run("user", "end-sign-in", signed_in[0]["id"])).returncode == 0
    assert json.loads((await cli.run("user", "sign-ins", "--json")).stdout)["sign_ins"] == []
    new = "another horse battery"
    wrong = await cli.run("user", "password", "--passwords-stdin", stdin=b"no no no no no no\n" + new.encode() + b"\n")
    assert wrong.returncode == 4, wrong
    right = await cli.run("user", "password", "--passwords-stdin", stdin=f"{PASSWORD}\n{new}\n".encode())
    assert right.returncode == 0, right
    body = {"email": "owner@example.com", "password": new}
    with trio.fail_after(30):
        assert (await hub.http.post("/api/v1/sign-in", json=body)).status_code == 200


async def test_an_approval_is_shown_with_all_that_asks(hub, cli):
    """Each part of the text with its verdict and why; what a runner writes is spelt out, not obeyed."""
    parts = [
        {"verdict": "allow", "text": "ls", "because": "'ls' matches '*' (ops.yaml:3)"},
        {"verdict": "ask", "text": "rm \x1b]0;x\x07", "because": "'rm x' matches 'rm *' (ops.yaml:7)"},
        {"verdict": "ask", "text": "dd", "because": "'dd' matches 'dd *' (ops.yaml:9)"},
    ]
    async with waiting(hub, gate="shell", explanation={"verdict": "ask", "commands": parts}) as (_, _, found):
        shown = (await cli.run("approval", "show", found["id"])).stdout.decode()
    said = shown.partition("gate one says:\n")[2].splitlines()
    assert said[:2] == ["  allow: ls", "    'ls' matches '*' (ops.yaml:3)"]
    assert said[4:6] == ["  ask: dd", "    'dd' matches 'dd *' (ops.yaml:9)"]
    assert "\x1b" not in shown
