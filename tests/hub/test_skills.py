"""Skills as the hub's records: uploaded, versioned, bound, brought to runners that lack them; hostile ones refused."""

import base64
import hashlib
import io
import tarfile
from typing import Any

import httpx2
import msgspec
import pytest
from tests.hub.support import become_owner, invite, make_skill
from tests.support.runner_stub import RunnerStub, connect_plain

from guardhouse.hub.skills.decide import SkillStep, decide_steps, is_for
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.skill_copies import SkillCopyRecord
from guardhouse.hub.store.skills import SkillRecord, SkillVersionRecord

MANIFEST = b"---\nname: demo\ndescription: answers\n---\n"


async def add(hub: Any, data: bytes, *, status: int = 201, **query: str) -> dict[str, Any]:
    reply = await hub.http.post("/api/v1/skills", content=data, params=query)
    assert reply.status_code == status, reply.text
    return reply.json()


async def bind(hub: Any, name: str = "demo", **changes: Any) -> dict[str, Any]:
    reply = await hub.http.patch(f"/api/v1/skills/{name}", json=changes)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def until_state(hub: Any, state: str | None, *, name: str = "demo", version: int | None = None) -> dict[str, Any]:
    async def stands() -> dict[str, Any] | None:
        shown = (await hub.http.get("/api/v1/environments/web-1/skills")).json()["skills"]
        found = next((one for one in shown if one["name"] == name), None)
        if found is None:
            return {"gone": True} if state is None else None
        return found if found["state"] == state and version in (None, found["version"]) else None

    return await hub.until(stands)


def tarred(*entries: tuple[str, bytes, dict[str, Any]], mode: str = "w:gz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for name, content, more in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


TOP = ("SKILL.md", MANIFEST, {})
SYMLINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "tar: parent": (tarred(TOP, ("../escaped", b"x", {})), "would leave"),
    "tar: absolute": (tarred(TOP, ("/etc/cron.d/x", b"x", {})), "is absolute"),
    "tar: symbolic link": (tarred(TOP, ("l", b"", SYMLINK)), "symbolic link"),
    "tar: hard link": (tarred(TOP, ("l", b"", {"type": tarfile.LNKTYPE, "linkname": "SKILL.md"})), "hard link"),
    "tar: device": (tarred(TOP, ("d", b"", {"type": tarfile.CHRTYPE})), "of type '3'"),
    "tar: FIFO": (tarred(TOP, ("f", b"", {"type": tarfile.FIFOTYPE})), "of type '6'"),
    "tar: setuid": (tarred(TOP, ("s", b"x", {"mode": 0o4755})), "setuid"),
    "tar: twice": (tarred(TOP, ("a", b"x", {}), ("a", b"y", {})), "twice"),
    "tar: letter case": (tarred(TOP, ("Readme", b"x", {}), ("README", b"y", {})), "differ in case"),
    "tar: bomb": (tarred(TOP, ("bomb", bytes(8 << 20), {})), "100 to 1"),
    "tar: cut off": (tarred(TOP, mode="w")[:700], "end"),
    "tar: bytes behind": (tarred(TOP, mode="w") + b"x" * 512, "follow"),
    "tar: a header that lies": (tarred(TOP, mode="w").replace(b"SKILL.md", b"SKILL.mx", 1), "checksum"),
    "gzip: bytes behind": (tarred(TOP) + b"PK", "follow"),
    "zip: parent": (make_skill(**{"../../escaped": "x"}), "would leave"),
    "nothing": (b"", "not a zip or tar"),
    "front matter": (make_skill(manifest="---\nname: demo\nname: demo\ndescription: x\n---\n"), "SKILL.md line 3 has"),
    "YAML": (make_skill(manifest="---\nname: demo\ndescription: [\n---\n"), "SKILL.md line 3 is not YAML"),
    "a name": (make_skill("demo", manifest="---\ndescription: x\nname: De mo\n---\n"), "SKILL.md line 3 has a name"),
}


async def test_hostile_archives_are_refused_and_leave_nothing(hub):
    """Each is 422 with what is wrong, on record, and nothing of it is stored; the tar without a lie is taken."""
    for what, (data, said) in HOSTILE.items():
        reply = await hub.http.post("/api/v1/skills", content=data)
        assert reply.status_code == 422, (what, reply.text)
        assert reply.json()["error"]["code"] == "skill_refused"
        assert said in reply.json()["error"]["message"], (what, reply.text)
    too_large = await hub.http.post("/api/v1/skills", content=b"PK\x03\x04" + bytes(24 << 20))
    assert too_large.status_code == 413
    assert (await hub.http.get("/api/v1/skills")).json() == {"skills": [], "next_cursor": None}
    events = (await hub.http.get("/api/v1/audit", params={"action": "skill.refuse", "limit": 100})).json()["events"]
    assert len(events) == len(HOSTILE)
    honest = tarred(
        ("./", b"", {"type": tarfile.DIRTYPE}), ("./SKILL.md", MANIFEST, {}), ("run", b"x", {"mode": 0o755})
    )
    made = await add(hub, honest)
    current = made["skill"]["current"]
    assert current["uploaded_checksum"] == hashlib.sha256(honest).hexdigest() != current["checksum"]
    archive = await hub.http.get("/api/v1/skills/demo/versions/1/archive")
    assert hashlib.sha256(archive.content).hexdigest() == current["checksum"]
    # The same content packed by tar again, at another time, is the same version.
    again = tarred(("run", b"x", {"mode": 0o755, "mtime": 1e9}), TOP, mode="w")
    same = await hub.http.post("/api/v1/skills/demo/versions", content=again)
    assert (same.status_code, same.json()["is_new"]) == (200, False)


async def test_versions(hub):
    """Names and versions are never replaced by accident; numbers are not given twice; back and forth works."""
    made = await add(
        hub, make_skill(manifest="---\nname: demo\ndescription: d\nallowed-tools: bash, mcp:a/b, Bash\n---\n")
    )
    assert [one.partition("'")[2][:4] for one in made["notes"]] == ["Bash"]
    assert (await hub.http.post("/api/v1/skills", content=make_skill())).json()["error"]["code"] == "name_taken"
    other = await hub.http.post("/api/v1/skills/demo/versions", content=make_skill("other"))
    assert (other.status_code, other.json()["error"]["code"]) == (409, "skill_name_differs")
    for number in (2, 3):
        reply = await hub.http.post("/api/v1/skills/demo/versions", content=make_skill(answer=str(number)))
        assert (reply.status_code, reply.json()["skill"]["current"]["number"]) == (201, number)
    older = await hub.http.post("/api/v1/skills/demo/versions", content=make_skill(answer="2"))
    assert (older.status_code, older.json()["error"]["code"]) == (409, "skill_version_exists")
    assert (await bind(hub, current=2))["current"]["version"] == "2"
    assert (await hub.http.patch("/api/v1/skills/demo", json={"current": 9})).status_code == 404
    current = await hub.http.delete("/api/v1/skills/demo/versions/2")
    assert current.json()["error"]["code"] == "skill_version_current"
    assert (await hub.http.delete("/api/v1/skills/demo/versions/3")).status_code == 204
    assert (await hub.http.get("/api/v1/skills/demo/versions/3/archive")).status_code == 404
    newest = await hub.http.post("/api/v1/skills/demo/versions", content=make_skill(answer="4"))
    assert newest.json()["skill"]["current"]["number"] == 4
    versions = (await hub.http.get("/api/v1/skills/demo/versions")).json()["versions"]
    assert [(one["number"], one["is_current"]) for one in versions] == [(4, True), (2, False), (1, False)]


async def test_a_hub_that_starts_again_knows_what_it_kept(start_hub):
    """Skills, versions, bindings and what runners hold are in the store."""
    async with start_hub() as hub:
        created = await hub.environment()
        await add(hub, make_skill())
        await bind(hub, environments=["web-1"])
        async with connect_plain(hub.url, created["token"]) as runner:
            await answer_push(runner)
            before = await until_state(hub, "held", version=1)
    async with start_hub() as hub:
        assert await until_state(hub, "held", version=1) == before
        assert (await hub.http.get("/api/v1/skills/demo")).json()["environment_ids"] == [created["environment"]["id"]]
        assert (await hub.http.get("/api/v1/skills/demo/versions/1/archive")).content == make_skill()
        assert (await hub.http.delete("/api/v1/environments/web-1")).status_code == 204
        assert (await hub.http.get("/api/v1/skills/demo")).json()["environment_ids"] == []


async def answer_push(runner: RunnerStub, *, error: str | None = None) -> dict[str, Any]:
    asked = await runner.expect("task.request")
    assert asked["operation"] == "sync_skill", asked["operation"]
    result = {"task_id": asked["task_id"], "success": error is None, "result": {"success": True, "path": "x"}}
    if error is not None:
        result = {"task_id": asked["task_id"], "success": False, "error": error}
    await runner.send("task.result", result)
    return asked["args"]


async def test_a_plain_runner_gets_what_it_lacks_and_only_that(hub):
    """The archive of the plain protocol once; after a cut nothing; a refusal is shown and not repeated; then gone."""
    created = await hub.environment()
    await add(hub, make_skill())
    await bind(hub, automatic=True)
    async with connect_plain(hub.url, created["token"]) as runner:
        args = await answer_push(runner)
        assert base64.b64decode(args.pop("zip_data")) == make_skill()
        checksum = hashlib.sha256(make_skill()).hexdigest()
        assert args == {"skill_name": "demo", "skill_dir": ".work/skills/demo", "checksum": checksum}
        await until_state(hub, "held", version=1)
        # Neither the task nor the audit log has the archive.
        pushed = (await hub.http.get("/api/v1/tasks")).json()["tasks"][0]
        whole = (await hub.http.get(f"/api/v1/tasks/{pushed['id']}")).json()
        assert (whole["args"]["zip_data"], whole["requested_by"]) == ("", "hub")
    await add(hub, make_skill("another"))
    async with connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
        await bind(hub, "another", automatic=True)
        # The first thing that it hears of is the new one: the old one it has.
        args = await answer_push(runner, error="operation denied: skill another")
        assert args["skill_name"] == "another"
        refused = await until_state(hub, "refused", name="another")
        assert (refused["error"], refused["version"]) == ("operation denied: skill another", None)
        copies = (await hub.http.get("/api/v1/skills/another/environments", params={"state": "refused"})).json()
        assert [one["environment_name"] for one in copies["copies"]] == ["web-1"]
        await hub.http.post("/api/v1/skills/demo/versions", content=make_skill(answer="two"))
        assert (await answer_push(runner))["skill_name"] == "demo"
        await until_state(hub, "held", version=2)
        assert (await hub.http.post("/api/v1/environments/web-1/skills/sync")).status_code == 202
        assert (await answer_push(runner))["skill_name"] == "another"
        await until_state(hub, "held", name="another")
        await bind(hub, "another", enabled=False)
        asked = await runner.expect("task.request")
        assert asked["operation"] == "remove"
        assert asked["args"] == {"path": ".work/skills/another", "recursive": True}
        failure = {"task_id": asked["task_id"], "success": False, "error": "unknown operation: remove"}
        await runner.send("task.result", failure)
        assert (await until_state(hub, "refused", name="another"))["error"] == "unknown operation: remove"


async def test_who_may_bind_where(hub):
    """A team's people make and bind their skill for their environments; to another's it takes who may edit that."""
    await become_owner(hub)
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    await hub.environment("theirs", scope={"kind": "team", "team": "payments"})
    await hub.environment("shared")
    member, _ = await invite(hub, "member@example.com", teams=["payments"])
    headers = {"sec-fetch-site": "same-origin"}
    async with httpx2.AsyncClient(base_url=hub.url, cookies=member, headers=headers, timeout=30) as http:
        assert (await http.post("/api/v1/skills", content=make_skill())).status_code == 403
        assert (await http.post("/api/v1/skills?team=payments", content=make_skill())).status_code == 201
        bound = await http.patch("/api/v1/skills/demo", json={"environments": ["theirs"], "automatic": True})
        assert bound.status_code == 200
        assert (await http.patch("/api/v1/skills/demo", json={"environments": ["shared"]})).status_code == 403
        assert (await http.get("/api/v1/environments/shared/skills")).json()["skills"] == []
        assert len((await http.get("/api/v1/environments/theirs/skills")).json()["skills"]) == 1
    await bind(hub, environments=["shared"])
    assert len((await hub.http.get("/api/v1/environments/shared/skills")).json()["skills"]) == 1


def test_where_a_skill_goes():
    """Named environments; by tags all of them; a team's by tags or automatic stays with the team; disabled nowhere."""
    common = {"kind": "byoc", "created_ms": 0, "created_by": "x"}
    names = {field.name for field in msgspec.structs.fields(EnvironmentRecord) if field.required}
    blank = dict.fromkeys(names) | common
    ours = EnvironmentRecord(**(blank | {"id": "env_1", "team_id": "t", "tags": ("linux", "gpu")}))
    other = EnvironmentRecord(**(blank | {"id": "env_2", "team_id": None, "tags": ("linux",)}))
    base = SkillRecord(
        id="s", name="demo", team_id=None, enabled=True, automatic=False, tags=(), environment_ids=(), current=1,
        newest=1, created_ms=0, created_by="x", updated_ms=0,
    )  # fmt: skip
    for changes, expected in (
        ({}, (False, False)),
        ({"automatic": True}, (True, True)),
        ({"tags": ("linux",)}, (True, True)),
        ({"tags": ("linux", "gpu")}, (True, False)),
        ({"environment_ids": ("env_2",)}, (False, True)),
        ({"automatic": True, "team_id": "t"}, (True, False)),
        ({"tags": ("linux",), "team_id": "t"}, (True, False)),
        ({"environment_ids": ("env_2",), "team_id": "t"}, (False, True)),
        ({"automatic": True, "enabled": False}, (False, False)),
    ):
        skill = msgspec.structs.replace(base, **changes)
        assert (is_for(skill, ours), is_for(skill, other)) == expected, changes


VERSION = SkillVersionRecord(
    id="v", skill_id="s", number=2, checksum="new", uploaded_checksum="new", size_bytes=1, unpacked_bytes=1, files=1,
    manifest="{}", created_ms=0, created_by="x",
)  # fmt: skip
HELD = SkillCopyRecord(
    environment_id="e", name="demo", checksum="new", version=2, place="here", state="held", error=None,
    tried_checksum="new", policy_digest="p", changed_ms=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "now_ms", "does"),
    [
        pytest.param({}, 0, False, id="it is there"),
        pytest.param({"place": "elsewhere"}, 0, True, id="said of another machine"),
        pytest.param({"checksum": "old"}, 0, True, id="another version"),
        pytest.param({"checksum": "", "state": "refused"}, 3_599_000, False, id="refused a short time ago"),
        pytest.param({"checksum": "", "state": "refused"}, 3_600_000, True, id="refused an hour ago"),
        pytest.param({"checksum": "", "state": "refused", "policy_digest": "q"}, 0, True, id="under another policy"),
        pytest.param({"checksum": "", "state": "refused", "tried_checksum": "old"}, 0, True, id="of another version"),
        pytest.param({"checksum": "", "state": "failed"}, 59_000, False, id="failed just now"),
        pytest.param({"checksum": "", "state": "failed"}, 60_000, True, id="failed a minute ago"),
    ],
)
def test_what_is_pushed(changes: dict[str, Any], now_ms: int, *, does: bool) -> None:
    """Only what is lacking, and what was in vain not before something is different or time has passed."""
    copies = {"demo": msgspec.structs.replace(HELD, **changes)}
    steps = decide_steps({"demo": VERSION}, copies, place="here", policy_digest="p", now_ms=now_ms)
    assert steps == ([SkillStep("demo", VERSION)] if does else [])
    assert decide_steps({}, copies, place="here", policy_digest="p", now_ms=now_ms)[:1] == [SkillStep("demo", None)]
