"""`guardhouse env, exec, task, token, hub` as an operator types them."""

import base64
import json
import os
import signal
import subprocess

import pytest
import trio
import trustme
from tests.cli_client.conftest import COMMAND
from tests.support.runner_stub import connect_plain, connect_v1


async def test_environment_from_creation_to_deletion(hub, cli):
    """Create, list, show, look at the token, rotate, delete: tables for people, JSON for programs."""
    made = await cli.run("env", "create", "web-1", "--tag", "linux,gpu", "--json")
    assert made.returncode == 0, made.stderr
    created = json.loads(made.stdout)
    assert created["token"].startswith("wnt_")
    listed = await cli.run("env", "list")
    assert [line.split()[:3] for line in listed.stdout.decode().splitlines()] == [
        ["STATUS", "NAME", "SCOPE"],
        ["pending", "web-1", "Account"],
    ]
    shown = await cli.run("env", "show", "web-1")
    assert b"pending: no runner has connected" in shown.stdout
    assert (await cli.run("env", "token", "web-1")).stdout.decode().strip() == created["token"]
    rotated = await cli.run("env", "rotate", "web-1", "--overlap", "0")
    assert rotated.stdout.decode().strip() not in {"", created["token"]}
    assert (await cli.run("env", "delete", "web-1")).returncode == 1, "asks, and nobody says yes"
    assert (await cli.run("env", "delete", "web-1", "--yes")).returncode == 0
    assert (await cli.run("env", "show", "web-1")).returncode == 3


async def test_token_goes_into_a_private_file(hub, cli, tmp_path):
    """The token can be kept off the screen; the file is ours alone and never overwritten."""
    path = tmp_path / "runner.token"
    made = await cli.run("env", "create", "web-1", "--token-out", str(path))
    assert made.returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip().encode() not in made.stdout + made.stderr
    assert (await cli.run("env", "create", "web-2", "--token-out", str(path))).returncode == 1


async def test_exec_returns_bytes_and_status(hub, cli):
    """Output arrives byte for byte on its stream, and the status is the command's own."""
    created = await hub.environment()
    data = bytes(range(256)) * 3
    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()

        async def answer() -> None:
            task = (await runner.expect("task.request"))["task_id"]
            await runner.output(task, data)
            await runner.output(task, b"oops\n", stream="stderr", seq=1)
            await runner.result(task, exit_code=7, stdout_bytes=len(data), stderr_bytes=5)

        nursery.start_soon(answer)
        done = await cli.run("exec", "web-1", "--", "cat /dev/zero | head")
        assert (done.returncode, done.stdout, done.stderr) == (7, data, b"oops\n")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        pytest.param(["ps aux | head"], "ps aux | head", id="one word is a text"),
        pytest.param(["ls", "-l", "my file"], "ls -l 'my file'", id="several are quoted"),
        pytest.param(["echo", "$HOME"], "echo '$HOME'", id="nothing expands on the way"),
    ],
)
async def test_exec_joins_words(hub, cli, words, command):
    """One word is taken as it is, several arrive as they were typed."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        nursery.start_soon(runner.serve)
        assert (await cli.run("exec", "web-1", "--timeout", "9", "--", *words)).returncode == 0
        request = next(frame for frame in runner.heard if frame["type"] == "task.request")
        assert request["payload"]["args"] == {"command": command, "timeout": 9.0}
        nursery.cancel_scope.cancel()


async def test_exec_prints_what_a_plain_runner_only_puts_in_its_result(hub, cli):
    """The seed's runner streams nothing; its output is shown all the same, once."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()

        async def answer() -> None:
            task = (await runner.expect("task.request"))["task_id"]
            await runner.result(task, stdout="only here\n", exit_code=0)

        nursery.start_soon(answer)
        done = await cli.run("exec", "web-1", "--", "x")
        assert (done.returncode, done.stdout) == (0, b"only here\n")


@pytest.mark.parametrize(
    ("result", "status"),
    [
        pytest.param({"success": False, "error": "command denied: rm"}, 126, id="denied in words"),
        pytest.param({"success": False, "error": "no", "error_code": "denied"}, 126, id="denied in code"),
        pytest.param({"success": True, "result": {"timed_out": True, "exit_code": 124}}, 124, id="timed out"),
        pytest.param({"success": False, "error": "command not started: x", "error_code": "refused"}, 125, id="no wall"),
        pytest.param({"success": False, "error": "broken"}, 1, id="failed"),
        pytest.param({"success": True, "exit_code": 137}, 137, id="killed"),
    ],
)
async def test_exec_statuses(hub, cli, result, status):
    """Each end has the documented exit status, and a reason on stderr where the command gave none."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()

        async def answer() -> None:
            task = (await runner.expect("task.request"))["task_id"]
            await runner.send("task.result", {"task_id": task, **result})

        nursery.start_soon(answer)
        done = await cli.run("exec", "web-1", "--", "x")
        assert done.returncode == status, done.stderr
        assert bool(done.stderr) == (status != 137)


async def test_ctrl_c_cancels_the_command(hub, cli):
    """An interrupted exec cancels its task and returns 130."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        process = await trio.lowlevel.open_process(
            [*COMMAND, "exec", "web-1", "--", "sleep 100"],
            env=cli.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A suite that a shell runs in the background has inherited SIGINT ignored; a terminal's command has not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        task = (await runner.expect("task.request"))["task_id"]
        await runner.output(task, b"started")
        with trio.fail_after(30):
            assert await process.stdout.receive_some() == b"started"
        process.send_signal(signal.SIGINT)
        assert (await runner.expect("task.cancel"))["task_id"] == task
        await runner.result(task, exit_code=130, result={"cancelled": True, "exit_code": 130})
        with trio.fail_after(30):
            assert await process.wait() == 130
        assert (await hub.result(task))["state"] == "cancelled"


async def test_drain_guide_and_upgrade(hub, cli):
    """An operator drains until nothing runs, reads the upgrade's steps, and puts the environment to use again."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        task = await hub.start("x")
        await runner.expect("task.request")
        over = await cli.run("env", "drain", "web-1", "--reason", "upgrade", "--wait", "--timeout", "0")
        assert over.returncode == 1
        assert b"1 task still run" in over.stderr
        nursery.start_soon(runner.result, task["id"])
        done = await cli.run("env", "drain", "web-1", "--wait", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "draining"
        assert b"draining" in (await cli.run("env", "list", "--status", "draining")).stdout
        steps = (await cli.run("env", "guide", "web-1", "--section", "upgrade")).stdout.decode()
        assert f"guardhouse env drain {created['environment']['id']} --wait" in steps
        assert json.loads((await cli.run("env", "guide", "web-1", "--json")).stdout)["connect_url"]
        assert b"# Runner of `web-1`" in (await cli.run("env", "guide", "web-1")).stdout
        assert b"online" in (await cli.run("env", "undrain", "web-1")).stderr


async def test_exec_goes_on_when_the_hub_restarts(start_hub, make_cli):
    """A hub that restarts under a following exec loses neither output nor status."""
    done: list[subprocess.CompletedProcess[bytes]] = []
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        async with start_hub() as hub:
            created = await hub.environment()
            port = int(hub.url.rsplit(":", 1)[1])
            cli = make_cli(hub)

            async def follow() -> None:
                done.append(await cli.run("exec", "web-1", "--", "x"))
                ended.set()

            async with connect_v1(hub.url, created["token"]) as runner:
                await hub.until_online()
                nursery.start_soon(follow)
                task = (await runner.expect("task.request"))["task_id"]
                await runner.send("task.accepted", {"task_id": task})
                await runner.output(task, b"before ")

                async def is_stored() -> bool:
                    return (await hub.result(task, wait_s=0))["stdout_bytes"] == 7

                await hub.until(is_stored)
                await trio.sleep(0.3)
        held = {"task_id": task, "state": "running", "stdout_first": 0, "stdout_next": 12}
        async with (
            start_hub(listen_port=port) as hub,
            connect_v1(hub.url, created["token"], tasks=[held]) as runner,
        ):
            await runner.output(task, b"after", offset=7, seq=1)
            await runner.result(task, exit_code=5, stdout_bytes=12, stderr_bytes=0)
            with trio.fail_after(20):
                await ended.wait()
    assert (done[0].returncode, done[0].stdout) == (5, b"before after"), done[0].stderr


async def test_detach_then_wait_output_and_show(hub, cli):
    """A detached command is followed, waited for and shown by its id."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        nursery.start_soon(runner.serve, b"later\n")
        task = (await cli.run("exec", "web-1", "--detach", "--", "x")).stdout.decode().strip()
        assert (await cli.run("task", "wait", task)).returncode == 0
        assert (await cli.run("task", "output", task)).stdout == b"later\n"
        assert (await cli.run("task", "output", task, "--stream", "stdout", "--offset", "3")).stdout == b"er\n"
        assert b"succeeded" in (await cli.run("task", "show", task)).stdout
        listed = json.loads((await cli.run("task", "list", "--text", "x", "--json")).stdout)
        assert [one["id"] for one in listed["tasks"]] == [task]
        ran = await cli.run("task", "run", "web-1", "read", "--args", '{"path":"a"}', "--wait", "--json")
        assert json.loads(ran.stdout)["operation"] == "read"
        nursery.cancel_scope.cancel()


async def test_stdin_is_sent(hub, cli):
    """What is piped in travels with the command."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        nursery.start_soon(runner.serve)
        assert (await cli.run("exec", "web-1", "--stdin", "--", "wc", stdin=b"\x00piped")).returncode == 0
        request = next(frame for frame in runner.heard if frame["type"] == "task.request")
        assert base64.b64decode(request["payload"]["args"]["stdin"]) == b"\x00piped"
        nursery.cancel_scope.cancel()


async def test_tokens_are_made_listed_and_revoked(hub, cli):
    """A token of one scope does what the scope says, until it is revoked."""
    made = await cli.run("token", "create", "ci", "--scope", "env:read", "--expires-in", "3600", "--json")
    created = json.loads(made.stdout)
    environ = {"GUARDHOUSE_API_TOKEN": created["secret"]}
    assert (await cli.run("env", "list", **environ)).returncode == 0
    denied = await cli.run("env", "create", "x", **environ)
    assert denied.returncode == 4
    assert b"lacks the scope 'env:write'" in denied.stderr
    assert created["secret"].encode() not in (await cli.run("token", "list")).stdout
    assert (await cli.run("token", "revoke", "--and-made", created["token"]["id"])).returncode == 0
    assert (await cli.run("env", "list", **environ)).returncode == 4


@pytest.mark.parametrize(
    ("environ", "status", "words"),
    [
        pytest.param({"GUARDHOUSE_HUB_URL": "http://127.0.0.1:1"}, 5, "does not answer", id="nobody listens"),
        pytest.param({"GUARDHOUSE_HUB_URL": ""}, 2, "no hub is known", id="no hub"),
        pytest.param({"GUARDHOUSE_HUB_URL": "http://192.0.2.1"}, 2, "without TLS", id="plain off loopback"),
        pytest.param({"GUARDHOUSE_HUB_URL": "hub"}, 2, "is not like https://", id="no URL"),
        pytest.param({"GUARDHOUSE_API_TOKEN": "wnt_x"}, 4, "is a runner token", id="runner token"),
        pytest.param({"GUARDHOUSE_API_TOKEN": "ght_" + "0" * 48}, 4, "unknown, expired or revoked", id="bad token"),
        pytest.param({"GUARDHOUSE_API_TOKEN_FILE": "/nowhere"}, 4, "cannot read the API token file", id="no file"),
        pytest.param({"GUARDHOUSE_API_TOKEN_FILE": ""}, 4, "no API token is known", id="no token"),
    ],
)
async def test_what_is_wrong_is_said(hub, cli, environ, status, words):
    """Each mistake has its own words and exit status, and never a traceback."""
    done = await cli.run("env", "list", **environ)
    assert done.returncode == status, done.stderr
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


async def test_token_file_that_others_read_is_refused(hub, cli, tmp_path):
    """A token that anybody on the machine could use is not used; closed, it is."""
    path = tmp_path / "t"
    path.write_bytes((hub.state_dir / "owner.token").read_bytes())
    path.chmod(0o644)
    done = await cli.run("env", "list", "--token-file", str(path))
    assert done.returncode == 4
    assert b"chmod 600" in done.stderr
    path.chmod(0o600)
    assert (await cli.run("env", "list", "--token-file", str(path))).returncode == 0


async def test_certificates(start_hub, make_cli, tmp_path, authority):
    """A private CA must be named; with it all is well, with another the error says so."""
    async with start_hub(tls=True) as hub:
        cli = make_cli(hub)
        good, bad = tmp_path / "ca.pem", tmp_path / "other.pem"
        authority.cert_pem.write_to_path(str(good))
        trustme.CA().cert_pem.write_to_path(str(bad))
        assert (await cli.run("env", "list", "--ca-file", str(good))).returncode == 0
        for words in ([], ["--ca-file", str(bad)]):
            done = await cli.run("env", "list", *words)
            assert done.returncode == 5
            assert b"is not trusted" in done.stderr
            assert b"--ca-file" in done.stderr
        plain = await cli.run("env", "list", "--hub", hub.url.replace("https", "http"))
        assert plain.returncode == 5


async def test_client_toml(hub, cli, tmp_path):
    """Hub and token come from client.toml, and from the section that --context names."""
    directory = tmp_path / ".config" / "guardhouse"
    directory.mkdir(parents=True)
    token = hub.state_dir / "owner.token"
    (directory / "client.toml").write_text(
        f'hub_url = "http://127.0.0.1:1"\ntoken_file = "{token}"\n'
        f'[contexts.here]\nhub_url = "{hub.url}"\ntoken_file = "{token}"\n'
    )
    environ = {"GUARDHOUSE_HUB_URL": "", "GUARDHOUSE_API_TOKEN_FILE": ""}
    assert (await cli.run("env", "list", **environ)).returncode == 5
    assert (await cli.run("env", "list", "--context", "here", **environ)).returncode == 0
    assert (await cli.run("env", "list", "--context", "there", **environ)).returncode == 2


async def test_hub_command_serves_and_stops(tmp_path):
    """`guardhouse hub` makes its state, serves, and ends with 0 on SIGTERM."""
    state = tmp_path / "state"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GUARDHOUSE_HUB_STATE_DIR": str(state)}
    made = await trio.run_process([*COMMAND, "hub", "init", "--json"], env=environ, capture_stdout=True)
    assert json.loads(made.stdout) == {"state_dir": str(state), "owner_token_file": str(state / "owner.token")}
    token = (state / "owner.token").read_text()
    process = await trio.lowlevel.open_process(
        [*COMMAND, "hub", "--listen", "127.0.0.1:0"], env=environ, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    seen = b""
    with trio.fail_after(60):
        while b"listening on http" not in seen:
            seen += await process.stderr.receive_some(65_536)
        process.terminate()
        assert await process.wait() == 0
    assert (state / "owner.token").read_text() == token
    assert token.strip().encode() not in seen


async def test_hub_command_refuses_plain_http_for_all(tmp_path):
    """A hub without TLS is not offered to the network; the message says what to do."""
    done = await trio.run_process(
        [*COMMAND, "hub", "--listen", ":0", "--state-dir", str(tmp_path / "s")],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"refusing plain HTTP" in done.stderr
    assert not (tmp_path / "s").exists()
