"""Managed sandboxes: decisions, and one hub with real runners: fall-back, lock, freeze, thaw, quota, reclaim."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from tests.hub.support import become_owner, invite
from tests.support.runner_process import ACCOUNT

from guardhouse.hub.managed import decide
from guardhouse.hub.managed.decide import (
    Idle,
    Occupancy,
    Step,
    Use,
    choose_to_freeze,
    decide_step,
    explain_loss,
    refuse_new,
    refuse_wake,
)
from guardhouse.hub.managed.directory import SandboxDirectory
from guardhouse.hub.managed.freezer import Freezer, _own_group, find_freezer, thaw_process
from guardhouse.hub.managed.host import ManagedHost
from guardhouse.hub.managed.profile import policy_text, profile_text
from guardhouse.hub.managed.settings import Domain, ManagedSettings
from guardhouse.hub.managed.upkeep import SandboxUpkeep
from guardhouse.policy import decide_operation, load_policy
from guardhouse.values import Verdict

MIB = 1024 * 1024
SETTINGS = ManagedSettings(directory=Path("/x"), idle_s=60, reclaim_s=600, size_bytes=100, files=10)
USE = Use(is_running=True, tasks=0, idle_s=0, has_files=True, size_bytes=50, files=5)


@pytest.mark.parametrize(
    ("use", "step"),
    [
        pytest.param(USE, Step.KEEP, id="just used"),
        pytest.param(replace(USE, idle_s=60), Step.FREEZE, id="idle"),
        pytest.param(replace(USE, idle_s=60, tasks=1), Step.KEEP, id="idle, but a task waits"),
        pytest.param(replace(USE, idle_s=700), Step.FREEZE, id="frozen before it is reclaimed"),
        pytest.param(replace(USE, idle_s=599, is_running=False), Step.KEEP, id="frozen"),
        pytest.param(replace(USE, idle_s=600, is_running=False), Step.RECLAIM, id="frozen for long"),
        pytest.param(replace(USE, idle_s=900, is_running=False, has_files=False), Step.KEEP, id="reclaimed already"),
        pytest.param(replace(USE, size_bytes=101, tasks=1), Step.STOP_TASKS, id="too large while it works"),
        pytest.param(replace(USE, files=11, tasks=1), Step.STOP_TASKS, id="too many files"),
        pytest.param(replace(USE, size_bytes=101), Step.KEEP, id="too large and quiet: the next task may tidy up"),
        pytest.param(replace(USE, size_bytes=201, tasks=1), Step.WIPE, id="twice as large"),
    ],
)
def test_what_becomes_of_a_sandbox(use, step):
    """What it holds goes before how long nobody used it, and nothing is deleted that is used."""
    assert decide_step(use, SETTINGS) is step


def test_quotas_in_all_and_words_of_a_loss():
    """One sandbox too many, one byte too many, one runner too many: each is refused with its figures."""
    settings = replace(SETTINGS, sandboxes=2, running=1, total_bytes=100)
    assert refuse_new(Occupancy(sandboxes=1, running=0, size_bytes=99), settings) is None
    assert "2 managed sandboxes" in (refuse_new(Occupancy(sandboxes=2, running=0, size_bytes=0), settings) or "")
    assert "100 of the 100 bytes" in (refuse_new(Occupancy(sandboxes=1, running=0, size_bytes=100), settings) or "")
    assert "1 managed sandboxes run" in (refuse_wake(Occupancy(sandboxes=1, running=1, size_bytes=0), settings) or "")
    assert "(90 minutes idle)" in explain_loss(Step.RECLAIM, replace(USE, idle_s=5_400), SETTINGS, at_ms=10**12)
    assert "201 bytes" in explain_loss(Step.WIPE, replace(USE, size_bytes=201), SETTINGS, at_ms=10**12)


def test_who_makes_room():
    """Of those without tasks the one idle for longest, unless it was used a moment ago."""
    at_ms = 10**12
    ages = {"a": (0, 40), "b": (0, 50), "c": (1, 900), "d": (0, 10)}
    running = [
        Idle(environment_id=name, tasks=tasks, active_ms=at_ms - age_s * 1000) for name, (tasks, age_s) in ages.items()
    ]
    assert choose_to_freeze(running, at_ms=at_ms) == "b"
    assert choose_to_freeze(running[2:], at_ms=at_ms) is None
    assert choose_to_freeze([], at_ms=at_ms) is None


def test_profile_has_the_allow_list_and_nothing_else():
    """Without domains there is no network at all."""
    assert "network" not in json.loads(profile_text(()))
    found = json.loads(profile_text((Domain(domain="packages.example.org", ports=(443, 80)),)))
    assert found["extends"] == "isolate"
    assert [(one["domain"], one["ports"]) for one in found["network"]["domains"]] == [
        ("packages.example.org", [443, 80])
    ]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        pytest.param("https://packages.example.org:443/simple/x?y=1", True, id="listed"),
        pytest.param("https://a.b.example.com:443/", True, id="below a wildcard"),
        pytest.param("http://packages.example.org:80/", False, id="at another port"),
        pytest.param("https://packages.example.org.evil.net:443/", False, id="as a part of another name"),
        pytest.param("https://evil.net:443/packages.example.org:443/", False, id="in the path"),
        pytest.param("https://notexample.com:443/", False, id="an ending without its dot"),
    ],
)
def test_the_runners_own_fetching_is_held_to_the_list(url, allowed):
    """Webfetch leaves from the runner, not from the sandbox: the policy holds it to the same names."""
    listed = policy_text((Domain(domain="packages.example.org"), Domain(domain="*.example.com")))
    policy = load_policy(listed, name="managed")
    assert (decide_operation(policy, "webfetch", url).verdict is Verdict.ALLOW) is allowed
    closed = load_policy(policy_text(()), name="managed")
    assert decide_operation(closed, "webfetch", url).verdict is not Verdict.ALLOW


def test_measuring_follows_no_links(tmp_path):
    """A link to a large tree counts as one entry; a file counts what the disk gives it."""
    directory = SandboxDirectory(tmp_path, "env_x")
    directory.workspace.mkdir(parents=True)
    (directory.workspace / "file").write_bytes(b"x" * 8_192)
    (directory.workspace / "link").symlink_to("/usr")
    with (directory.workspace / "sparse").open("wb") as file:
        file.truncate(10**9)
    size, files = directory.measure(files_max=100)
    assert files == 3
    assert 8_192 <= size < 10**6
    directory.wipe()
    assert directory.measure(files_max=100) == (0, 0)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


@pytest.mark.parametrize("version", [1, 2])
def test_the_freezer(tmp_path, version):
    """A group's processes, and what they start, stop and go on; a runner that a killed hub froze can be ended."""
    found, why = find_freezer(tmp_path)
    if found is not None:
        found.close()
    own = _own_group(Path("/proc/self"), version)
    if found is None or own is None:
        pytest.skip(f"no freezer of cgroup v{version} is to be had here: {why}")
    freezer = Freezer(own / found.base.name, version)
    group = freezer.group("env_x.1")
    group.make()
    loop = 'echo $$ > "$0" && echo in && while :; do read -r line < /proc/self/stat; echo "$line" > "$1"; done'
    words = ["/bin/bash", "-c", loop, str(group.procs_file), str(tmp_path / "beat")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            group.freeze()
            assert group.is_frozen()
            before = _cpu_ticks(process.pid)
            time.sleep(0.2)
            assert _cpu_ticks(process.pid) == before, "it runs on"
            group.thaw()
            with_limit = time.monotonic() + 30
            while _cpu_ticks(process.pid) <= before and time.monotonic() < with_limit:
                time.sleep(0.02)
            assert _cpu_ticks(process.pid) > before, "it does not go on"
            group.freeze()
            thaw_process(process.pid, name="env_y")
            assert group.is_frozen(), "another sandbox's name thaws nothing"
            process.kill()
            thaw_process(process.pid, name="env_x")
            assert process.wait(30) == -9
        finally:
            process.kill()
            group.thaw()
    freezer.close()
    assert not freezer.base.exists()


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture
def sandboxes() -> Any:
    directory = Path(tempfile.mkdtemp(prefix="guardhouse-managed-"))
    directory.chmod(0o711)
    yield ManagedSettings(directory=directory, run_as=ACCOUNT if os.geteuid() == 0 else None, size_bytes=8 * MIB)
    shutil.rmtree(directory, ignore_errors=True)


async def test_life_of_a_managed_sandbox(start_hub, sandboxes):
    """Auto falls back and says so; files persist over freeze and thaw; what was lost is said; deleted with all."""
    async with start_hub(managed=sandboxes) as hub:
        host = hub.hub.services.sessions.managed
        assert isinstance(host, ManagedHost)
        http = hub.http

        async def run(session: str, command: str, http: Any = http) -> dict[str, Any]:
            body = {"session_id": session, "operation": "bash", "args": {"command": command}}
            reply = await http.post("/api/v1/tasks", json=body, params={"wait_s": 60})
            assert reply.status_code == 200, reply.text
            notice = reply.json()["session_notice"]
            return {**(await http.get(f"/api/v1/tasks/{reply.json()['id']}")).json(), "session_notice": notice}

        async def output(task: dict[str, Any]) -> str:
            lines = (await http.get(f"/api/v1/tasks/{task['id']}/output")).text.splitlines()
            return "".join(one.get("data", "") for one in map(json.loads, lines))

        async def show() -> dict[str, Any]:
            return (await http.get(f"/api/v1/sessions/{session}")).json()

        await become_owner(hub)
        session = (await http.post("/api/v1/sessions", json={"title": "t"})).json()["id"]
        first = await run(session, "echo kept > file; id -u; cat /etc/shadow; ls /root; echo done")
        assert "managed sandbox" in first["session_notice"]
        told = await output(first)
        assert "done\n" in told
        assert "root:" not in told
        shown = await show()
        assert (shown["bound_environment"]["kind"], shown["state"]) == ("cloud", "ready")
        assert "managed sandbox" in shown["warning"]
        environment = shown["bound_environment"]["id"]
        directory = SandboxDirectory(sandboxes.directory, environment)
        assert not directory.token.exists(), "the token is on the disk only while the runner starts"
        assert (await http.get("/api/v1/environments")).json()["environments"] == [], "listed apart"
        listed = (await http.get("/api/v1/environments", params={"kind": "cloud"})).json()["environments"]
        assert [one["id"] for one in listed] == [environment]
        body = {"environment_id": environment, "operation": "bash", "args": {"command": "true"}}
        assert (await http.post("/api/v1/tasks", json=body)).json()["error"]["code"] == "session_needed"
        assert (await http.delete(f"/api/v1/environments/{environment}")).status_code == 409

        # Another person neither sees nor uses it.
        ned, _ = await invite(hub, "ned@example.com")
        same = {"sec-fetch-site": "same-origin"}
        async with httpx2.AsyncClient(base_url=hub.url, cookies=ned, headers=same, timeout=60) as of_ned:
            assert (await of_ned.get(f"/api/v1/environments/{environment}")).status_code == 404
            assert (await of_ned.get("/api/v1/environments", params={"kind": "cloud"})).json()["environments"] == []
            assert (await of_ned.get(f"/api/v1/tasks/{first['id']}")).status_code == 404
            read = await of_ned.get(f"/api/v1/environments/{environment}/files", params={"path": "file"})
            assert read.status_code == 404

        # Its runner is killed: the next task finds another over the same files.
        child = host.runners.find(environment)
        child._process.kill()
        await child.ended.wait()
        assert await output(await run(session, "cat file")) == "kept\n"

        async def gone_on() -> bool:
            await SandboxUpkeep(host).look(environment)
            return (await show())["state"] == "frozen"

        # Idle, its whole tree is stopped where it is, and the next task finds the very same runner; where there is no
        # freezer, or too many are frozen already, the runner is ended and another comes. The files are the same.
        for frozen in (8, 0):
            child = host.runners.find(environment)
            host.settings = replace(sandboxes, idle_s=0.01, frozen=frozen)
            await hub.until(gone_on)
            stays = frozen > 0 and host.runners.freezer is not None
            assert (host.runners.find(environment) is not None) is stays
            assert ("is stopped in memory" in (await show())["state_reason"]) is stays
            assert (await http.get("/api/v1/managed-sandbox")).json()["frozen"] == stays
            if stays:
                assert child._group.is_frozen()
                assert child._process.pid in child._group.processes()
                assert {_state(pid) for pid in child._group.processes()} <= {"D", "S", "t"}
            host.settings = sandboxes
            thawed = await run(session, "cat file")
            assert (await output(thawed), thawed["session_notice"]) == ("kept\n", None)
            assert (host.runners.find(environment) is child) is stays
        events = (await http.get("/api/v1/audit", params={"action": "sandbox.freeze"})).json()["events"]
        assert [event["detail"]["in_memory"] for event in events] == [False, host.runners.freezer is not None]

        # Over its quota its tasks are ended, over twice of it it is emptied, and that is said.
        body = {
            "session_id": session, "operation": "bash",
            "args": {"command": "head -c 9000000 /dev/zero > big; sync; sleep 50"},
        }  # fmt: skip
        task = (await http.post("/api/v1/tasks", json=body)).json()

        async def ended() -> bool:
            await SandboxUpkeep(host).look(environment)
            return (await http.get(f"/api/v1/tasks/{task['id']}")).json()["finished"]

        await hub.until(ended)
        found = await hub.result(task["id"])
        assert found["state"] == "cancelled"
        assert "it may hold 8388608 bytes" in found["cancel_reason"]
        assert (directory.workspace / "file").exists(), "what is over its quota may be tidied up"

        async def emptied() -> bool:
            await SandboxUpkeep(host).look(environment)
            return host.find(environment).state == "reclaimed"

        host.settings = replace(sandboxes, size_bytes=4 * MIB)
        await hub.until(emptied)
        host.settings = sandboxes
        assert not directory.workspace.exists()
        again = await run(session, "ls -A | grep -v .work; echo empty")
        assert "everything in it was deleted" in again["session_notice"]
        assert await output(again) == "empty\n"
        assert "everything in it was deleted" in (await show())["notice"]

        domains = {"domains": [{"domain": "*.example.com", "ports": [80, 443]}]}
        assert (await http.put("/api/v1/managed-sandbox", json=domains)).json()["domains"] == domains["domains"]
        for bad in ("localhost", "10.0.0.1", "EXAMPLE.com", "a..b.com", "*.*.com"):
            refused = await http.put("/api/v1/managed-sandbox", json={"domains": [{"domain": bad}]})
            assert refused.status_code == 400, bad

    # A hub that starts again takes it up frozen, wakes it by the next task, and with the allow-list.
    async with start_hub(managed=sandboxes) as hub:
        assert (await hub.http.get(f"/api/v1/sessions/{session}")).json()["state"] == "frozen"
        body = {"session_id": session, "operation": "bash", "args": {"command": "echo $https_proxy"}}
        reply = await hub.http.post("/api/v1/tasks", json=body, params={"wait_s": 60})
        assert reply.status_code == 200, reply.text
        lines = (await hub.http.get(f"/api/v1/tasks/{reply.json()['id']}/output")).text
        assert "http://127.0.0.1:3128" in lines
        full = {"environment": {"kind": "managed"}}
        host = hub.hub.services.sessions.managed
        host.settings = replace(sandboxes, sandboxes=1)
        assert (await hub.http.post("/api/v1/sessions", json=full)).status_code == 409
        assert (await hub.http.delete(f"/api/v1/sessions/{session}")).status_code == 204
        assert not directory.path.exists()
        assert (await hub.http.get("/api/v1/environments", params={"kind": "cloud"})).json()["environments"] == []


async def test_the_idle_make_room_and_the_busy_do_not(start_hub, sandboxes, monkeypatch):
    """With one place, whoever asks has an idle sandbox frozen, and thawed again by its own next message."""
    async with start_hub(managed=replace(sandboxes, running=1)) as hub:
        host = hub.hub.services.sessions.managed
        assert isinstance(host, ManagedHost)
        chosen = {"environment": {"kind": "managed"}}
        first, second = [(await hub.http.post("/api/v1/sessions", json=chosen)).json()["id"] for _ in range(2)]

        async def ask(session: str, command: str, wait_s: float = 60) -> Any:
            body = {"session_id": session, "operation": "bash", "args": {"command": command}}
            return await hub.http.post("/api/v1/tasks", json=body, params={"wait_s": wait_s})

        def states() -> list[str]:
            return sorted(record.state for record in host.records)

        assert (await ask(first, "echo kept > file")).json()["state"] == "succeeded"
        refused = await ask(second, "true")
        assert refused.status_code == 409
        assert "idle for 30 s" in refused.json()["error"]["message"]
        assert (await hub.http.get(f"/api/v1/sessions/{second}")).json()["state"] == "new", "it was used just now"

        monkeypatch.setattr(decide, "YIELDS_AFTER_S", 0.0)
        assert (await ask(second, "true")).json()["state"] == "succeeded"
        assert states() == ["frozen", "running"]
        found = (await ask(first, "cat file")).json()
        output = (await hub.http.get(f"/api/v1/tasks/{found['id']}/output")).text
        assert "kept" in output
        assert states() == ["frozen", "running"]

        busy = (await ask(first, "sleep 60", wait_s=0)).json()
        assert (await ask(second, "true")).status_code == 409, "a sandbox with a task is left alone"
        assert (await hub.http.get(f"/api/v1/tasks/{busy['id']}")).json()["finished"] is False


async def test_what_cannot_be_started_binds_nothing(start_hub, sandboxes):
    """A runner that does not start is told with its own last words; session and directory are as before."""
    broken = replace(sandboxes, run_as="no-such-account-here") if sandboxes.run_as else sandboxes
    if not sandboxes.run_as:
        pytest.skip("an account cannot be chosen without root")
    async with start_hub(managed=broken) as hub:
        session = (await hub.http.post("/api/v1/sessions", json={"environment": {"kind": "managed"}})).json()["id"]
        body = {"session_id": session, "operation": "bash", "args": {"command": "true"}}
        with trio.fail_after(60):
            reply = await hub.http.post("/api/v1/tasks", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "environment_unavailable")
        assert "no-such-account-here" in reply.json()["error"]["message"]
        assert (await hub.http.get(f"/api/v1/sessions/{session}")).json()["state"] == "new"
        assert list(broken.directory.iterdir()) == []


async def test_a_narrowed_token_gets_no_managed_sandbox(start_hub, sandboxes):
    """A token for some environments is kept to those; its twin without the limit may ask for a sandbox."""
    async with start_hub(managed=sandboxes) as hub:
        await hub.environment()
        body = {"name": "t", "scopes": ["tasks:run", "tasks:read"]}
        statuses = []
        for more in ({}, {"environments": ["web-1"]}):
            secret = (await hub.http.post("/api/v1/tokens", json={**body, **more})).json()["secret"]
            headers = {"authorization": f"Bearer {secret}"}
            chosen = {"environment": {"kind": "managed"}}
            reply = await hub.http.post("/api/v1/sessions", json=chosen, headers=headers)
            statuses.append(reply.status_code)
        assert statuses == [201, 409]
        assert "for some environments only" in reply.json()["error"]["message"]
