"""`guardhouse session` and `exec --session` against a real hub."""

import json

import trio
from tests.support.runner_stub import connect_v1


async def test_session_from_creation_to_deletion(hub, cli, tmp_path):
    """Made, run in, listed, shown, told, exported and deleted."""
    created = await hub.environment()
    nothing = await cli.run("session", "create", "x", "--env", "web-1")
    assert (nothing.returncode, b"cannot be selected" in nothing.stderr) == (5, True)
    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        nursery.start_soon(runner.serve, b"out\n")
        session = (await cli.run("session", "create", "disk full")).stdout.decode().strip()
        done = await cli.run("exec", "--session", session, "--", "df", "-h")
        assert (done.returncode, done.stdout) == (0, b"out\n"), done.stderr
        done = await cli.run("session", "run", session, "--timeout", "9", "--", "df | head")
        assert (done.returncode, done.stdout) == (0, b"out\n"), done.stderr
        assert (await cli.run("exec", "--session", session)).returncode == 2
        shown = json.loads((await cli.run("session", "show", session, "--json")).stdout)
        assert shown["bound_environment"]["name"] == "web-1"
        listed = (await cli.run("session", "list", "--text", "disk")).stdout.decode()
        assert "web-1 (online)" in listed
        told = (await cli.run("session", "history", session)).stdout.decode().splitlines()
        assert [line.split("  ")[-1] for line in told] == ["df -h", "df | head"]
        path = tmp_path / "session.ndjson"
        assert (await cli.run("session", "export", session, "--out", str(path))).returncode == 0
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["kind"] for line in lines] == ["session_meta", "tool_call", "tool_call", "end"]
        assert (await cli.run("session", "export", session, "--out", str(path))).returncode == 1, "never over a file"
        assert (await cli.run("session", "delete", session)).returncode == 1, "asks, and nobody says yes"
        assert (await cli.run("session", "delete", session, "--yes")).returncode == 0
        assert (await cli.run("session", "show", session)).returncode == 3
        nursery.cancel_scope.cancel()
