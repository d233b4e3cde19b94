"""Skills and a real runner: pushed, used by a command, replaced, brought again, taken away; by the command line too."""

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.hub.support import make_skill
from tests.support.runner_process import RunnerProcess, make_directory, remove_directory, start_runner


def tarred(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


async def add(hub: Any, data: bytes, *, status: int = 201, **query: str) -> dict[str, Any]:
    reply = await hub.http.post("/api/v1/skills", content=data, params=query)
    assert reply.status_code == status, reply.text
    return reply.json()


async def bind(hub: Any, name: str = "demo", **changes: Any) -> dict[str, Any]:
    reply = await hub.http.patch(f"/api/v1/skills/{name}", json=changes)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def standing(hub: Any, environment: str = "web-1") -> dict[str, dict[str, Any]]:
    reply = await hub.http.get(f"/api/v1/environments/{environment}/skills")
    assert reply.status_code == 200, reply.text
    return {one["name"]: one for one in reply.json()["skills"]}


async def until_state(hub: Any, state: str | None, *, name: str = "demo", version: int | None = None) -> dict[str, Any]:
    async def stands() -> dict[str, Any] | None:
        found = (await standing(hub)).get(name)
        if state is None:
            return {"gone": True} if found is None else None
        return found if found and found["state"] == state and version in (None, found["version"]) else None

    return await hub.until(stands)


@asynccontextmanager
async def real_runner(hub: Any, *, policy: str | None = None) -> AsyncIterator[RunnerProcess]:
    directory = make_directory()
    try:
        if policy is not None:
            (directory / "policy.yaml").write_text(policy)
        created = await hub.environment()
        url = "ws" + hub.url.removeprefix("http") + "/api/v1/runner/ws"
        async with start_runner(url, token=created["token"], directory=directory) as runner:
            await hub.until_online(within_s=60)
            yield runner
    finally:
        remove_directory(directory)


async def test_life_of_a_skill_on_a_real_runner(hub):
    """Bound, it is pushed and a command uses it; a version replaces it, a rollback too; deleted, it is gone there."""
    async with real_runner(hub) as runner:
        place = runner.workspace / ".work" / "skills" / "demo"
        made = await add(hub, make_skill())
        assert made["skill"]["current"]["checksum"] == hashlib.sha256(make_skill()).hexdigest()
        assert await standing(hub) == {}
        await bind(hub, environments=["web-1"])
        held = await until_state(hub, "held", version=1)
        assert held["checksum"] == made["skill"]["current"]["checksum"] == held["wanted"]
        assert (place / ".checksum").read_text().strip() == held["checksum"]
        task = await hub.start("sh .work/skills/demo/run.sh")
        await hub.result(task["id"])
        output = await hub.http.get(f"/api/v1/tasks/{task['id']}/output", params={"stream": "stdout"})
        assert "the answer is one" in output.text

        second = await hub.http.post("/api/v1/skills/demo/versions", content=make_skill(answer="two"))
        assert second.status_code == 201, second.text
        await until_state(hub, "held", version=2)
        assert "two" in (place / "run.sh").read_text()
        await bind(hub, current=1)
        await until_state(hub, "held", version=1)
        assert "one" in (place / "run.sh").read_text()

        # A hostile version is refused and nothing of it is anywhere.
        refused = await hub.http.post("/api/v1/skills/demo/versions", content=make_skill(**{"../../escaped": "x"}))
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "skill_refused")
        assert "would leave its place" in refused.json()["error"]["message"]
        versions = (await hub.http.get("/api/v1/skills/demo/versions")).json()["versions"]
        assert [one["number"] for one in versions] == [2, 1]

        # What somebody deleted in the workspace is seen when they ask, and brought again.
        (place / ".checksum").unlink()
        assert (await hub.http.post("/api/v1/environments/web-1/skills/sync")).status_code == 202

        async def is_back() -> bool:
            return (place / ".checksum").exists()

        await hub.until(is_back)
        await until_state(hub, "held", version=1)

        assert (await hub.http.delete("/api/v1/skills/demo")).status_code == 204
        await until_state(hub, None)
        assert not place.exists()
        actions = [
            one["action"] for one in (await hub.http.get("/api/v1/audit", params={"limit": 200})).json()["events"]
        ]
        for action in ("skill.create", "skill.update", "skill.upload", "skill.refuse", "skill.delete"):
            assert action in actions
