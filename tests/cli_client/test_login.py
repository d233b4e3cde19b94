"""`guardhouse login, logout, whoami, context`: as somebody types them, with an approval in a browser elsewhere."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2
import pytest
import trio
from tests.cli_client.conftest import COMMAND
from tests.hub.support import PASSWORD, become_owner

from guardhouse.cli.client import ClientError, find_settings
from guardhouse.cli.logins import Login, LoginsUnusable, change_logins, read_logins

NO_TOKEN = {"GUARDHOUSE_API_TOKEN_FILE": "", "GUARDHOUSE_HUB_URL": ""}


async def test_a_person_signs_in_from_the_terminal_and_out_again(hub, cli, tmp_path):
    """The code is approved elsewhere; commands then need neither hub nor token; out again, the token is nothing."""
    owner = await become_owner(hub)
    words = [*COMMAND, "login", "--hub", hub.url, "--context", "here", "--json"]
    async with trio.open_nursery() as nursery:
        pipes = {"stdin": b"", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        start = partial(trio.run_process, words, **pipes, env=cli.environ | NO_TOKEN, cwd=tmp_path, check=False)
        process = await nursery.start(start)
        shown = b""
        with trio.fail_after(60):
            while (code := re.search(rb"code ([A-Z]{4}-[A-Z]{4})\n", shown)) is None:
                shown += await process.stderr.receive_some()
        assert f"Open {hub.url}/device\n".encode() in shown
        headers = {"sec-fetch-site": "same-origin"}
        async with httpx2.AsyncClient(base_url=hub.url, cookies=owner, headers=headers) as http:
            approved = await http.post(f"/api/v1/device-sign-ins/{code[1].decode()}/approve")
            assert approved.status_code == 204
        out = b""
        with trio.fail_after(60):
            async for chunk in process.stdout:
                out += chunk
    assert process.returncode == 0
    told = json.loads(out)
    assert (told["email"], told["context"], told["hub_url"]) == ("owner@example.com", "here", hub.url)
    file = tmp_path / ".config" / "guardhouse" / "logins.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"ght_" not in out + shown

    who = await cli.run("whoami", "--json", **NO_TOKEN)
    assert (json.loads(who.stdout)["id"], who.returncode) == (told["token_id"], 0)
    listed = json.loads((await cli.run("context", "list", "--json", **NO_TOKEN)).stdout)["contexts"]
    assert [(one["name"], one["current"]) for one in listed] == [("here", True)]
    assert b"ght_" not in (await cli.run("context", "list", "--json", **NO_TOKEN)).stdout
    token = json.loads(file.read_text())["logins"]["here"]["token"]
    gone = await cli.run("logout", **NO_TOKEN)
    assert gone.returncode == 0, gone.stderr
    assert json.loads(file.read_text())["logins"] == {}
    after = await cli.run("whoami", **NO_TOKEN, GUARDHOUSE_API_TOKEN=token)
    assert after.returncode == 2, "no hub is known any more"
    refused = await cli.run("whoami", "--hub", hub.url, **NO_TOKEN, GUARDHOUSE_API_TOKEN=token)
    assert refused.returncode == 4
    assert (await cli.run("logout", **NO_TOKEN)).returncode == 3


async def test_by_password_and_again(hub, cli, tmp_path):
    """From standard input, never from arguments; a second login takes the first one's place, whose token ends."""
    await become_owner(hub)
    words = ["login", "--hub", hub.url, "--password-stdin", "--email", "owner@example.com", "--json"]
    first = await cli.run(*words, "--scope", "env:read", stdin=f"{PASSWORD}\n".encode(), **NO_TOKEN)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["scopes"] == ["env:read"]
    assert (await cli.run("env", "list", **NO_TOKEN)).returncode == 0
    assert (await cli.run("user", "list", **NO_TOKEN)).returncode == 4
    again = await cli.run(*words, stdin=f"{PASSWORD}\n".encode(), **NO_TOKEN)
    assert again.returncode == 0, again.stderr
    tokens = (await hub.http.get("/api/v1/tokens")).json()["tokens"]
    valid = {one["id"]: one["valid"] for one in tokens}
    assert (valid[json.loads(first.stdout)["token_id"]], valid[json.loads(again.stdout)["token_id"]]) == (False, True)
    wrong = await cli.run(*words, stdin=b"wrong\n", **NO_TOKEN)
    assert wrong.returncode == 4
    assert b"address or password is wrong" in wrong.stderr
    (tmp_path / ".config" / "guardhouse" / "logins.json").chmod(0o644)
    unsafe = await cli.run("env", "list", **NO_TOKEN)
    assert unsafe.returncode == 4
    assert b"others may have read" in unsafe.stderr
    assert (await cli.run(*words, stdin=f"{PASSWORD}\n".encode(), **NO_TOKEN)).returncode == 4


def _keep(environ, name: str, url: str, *, expires_at: str = "2999-01-01T00:00:00Z") -> None:
    new = Login(hub_url=url, ca_file=None, token=f"ght_{name}", token_id="tok_x", email="a@b", expires_at=expires_at)

    def put(logins) -> None:
        logins.by_context[name] = new
        logins.current = name

    change_logins(environ, put)


def _settings(environ, **given):
    empty = {"hub": None, "token_file": None, "ca_file": None, "context": None}
    return find_settings(**{**empty, **given}, environ=environ)


def test_a_token_goes_to_its_own_hub_only(tmp_path):
    """By context, by address, or the current one; for another address there is no token, however it was named."""
    environ = {"HOME": str(tmp_path)}
    _keep(environ, "a", "https://a.example.com")
    _keep(environ, "b", "https://b.example.com:8443")
    assert _settings(environ).token == "ght_b"
    assert _settings(environ, context="a").url == "https://a.example.com"
    assert _settings(environ, hub="https://a.example.com/").token == "ght_a"
    for given in ({"hub": "https://evil.example.com"}, {"hub": "https://evil.example.com", "context": "a"}):
        with pytest.raises(ClientError):
            _settings(environ, **given)
    assert _settings({**environ, "GUARDHOUSE_CONTEXT": "a"}).token == "ght_a"
    assert _settings({**environ, "GUARDHOUSE_API_TOKEN": "ght_env"}).token == "ght_env"
    (tmp_path / ".config" / "guardhouse" / "client.toml").write_text('hub_url = "https://a.example.com"\n')
    assert _settings(environ).token == "ght_a", "client.toml names the hub, the login has the token"
    with pytest.raises(ClientError, match=r"neither in client\.toml nor a login"):
        _settings(environ, context="c")
    _keep(environ, "b", "https://b.example.com:8443", expires_at="2020-01-01T00:00:00Z")
    with pytest.raises(ClientError, match="ended at 2020"):
        _settings(environ, context="b")


@pytest.mark.parametrize("what", ["readable by others", "a link", "damaged", "of a newer version", "a FIFO"])
def test_files_that_are_refused(tmp_path, what):
    """Each with a sentence that names the file, and without a token in it; never followed, never waited for."""
    environ = {"HOME": str(tmp_path)}
    _keep(environ, "a", "https://a.example.com")
    file = tmp_path / ".config" / "guardhouse" / "logins.json"
    assert read_logins(environ).current == "a"
    match what:
        case "readable by others":
            file.chmod(0o640)
        case "a link":
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
        case "damaged":
            file.write_text(file.read_text()[:-20])
        case "of a newer version":
            file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
        case _:
            file.unlink()
            subprocess.run(["mkfifo", str(file)], check=True)
    with pytest.raises(LoginsUnusable, match=re.escape(str(file))) as caught:
        read_logins(environ)
    assert "ght_" not in str(caught.value)


def test_two_logins_at_once_lose_nothing(tmp_path):
    """Each reads, changes and replaces the file under a lock."""
    environ = {"HOME": str(tmp_path)}
    names = [f"c{number}" for number in range(20)]
    # The lock is of an opened directory, so it holds between threads as it does between processes.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _keep(environ, name, "https://a.example.com"), names))
    assert set(read_logins(environ).by_context) == set(names)
