"""Machines join with a one-time token and a key of their own: what the key opens, and what nothing else does."""

import re
import ssl
import stat
from typing import Any

import httpx2
import pytest
import trio
import trio_websocket
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cli_client.conftest import make_cli  # noqa: F401 - a fixture
from tests.hub.support import become_owner, invite

from guardhouse.errors import InvariantError
from guardhouse.hub.gateway.keys import Challenges, host_of, is_signed_by
from guardhouse.runner.config import ConfigError
from guardhouse.runner.credential import Token
from guardhouse.runner.dial import ConnectFailed, Connection, Fault, Form, dial
from guardhouse.runner.hub_url import parse_hub_url
from guardhouse.runner.key import check_key
from guardhouse.wire.proof import KeyProof, connect_text, format_key, join_text, parse_key, parse_proof

NOW = 1_800_000_000_000
ENVIRONMENT = "env_aaaaaaaaaaaaaaaaaaaa"


def join_body(token: str, key: Ed25519PrivateKey, *, signer: Ed25519PrivateKey | None = None) -> dict[str, str]:
    public = key.public_key().public_bytes_raw()
    signature = (signer or key).sign(join_text(token=token, public_key=public))
    return {"token": token, "public_key": public.hex(), "signature": signature.hex()}


async def make_token(hub: Any, **body: Any) -> dict[str, Any]:
    made = await hub.http.post("/api/v1/join-tokens", json=body)
    assert made.status_code == 201, made.text
    return made.json()


async def joined(hub: Any, **body: Any) -> tuple[dict[str, Any], str]:
    """Join with a new key; return what the hub says and the word for the key's file."""
    key = Ed25519PrivateKey.generate()
    token = (await make_token(hub, **body))["secret"]
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
        reply = await http.post("/api/v1/join", json=join_body(token, key))
    assert reply.status_code == 201, reply.text
    found = reply.json()
    return found, format_key(found["environment_id"], key.private_bytes_raw())


async def connect(hub: Any, word: str, *, url: str | None = None) -> str:
    """Dial as a runner does and return the first message."""

    async def converse(connection: Connection) -> str:
        return str(await connection.receive())

    address = parse_hub_url(url or hub.url.replace("http", "ws") + "/api/v1/runner/ws")
    return await dial(address, Token(word), context=ssl.create_default_context(), form=Form.V1, converse=converse)


async def test_a_key_opens_its_environment(hub):
    """The machine that joined connects; scope, tags and name are the token's; who joined is in the audit log."""
    found, word = await joined(hub, name="web-1", tags=["linux"])
    assert found["environment_id"] in await connect(hub, word)
    shown = await hub.status("web-1")
    assert (shown["id"], shown["tags"]) == (found["environment_id"], ["linux"])
    assert (await hub.http.get("/api/v1/environments/web-1/token")).json()["error"]["code"] == "no_runner_token"
    audited = (await hub.http.get("/api/v1/audit", params={"action": "environment.join"})).json()["events"]
    assert audited[0]["target"] == found["environment_id"]
    assert audited[0]["actor"].startswith("jtk_")


async def test_wrong_keys_are_refused(hub):
    """Another machine's key, another environment's, a proof for another host, and a cut key open nothing."""
    first, word = await joined(hub, name="one")
    _, other = await joined(hub, name="two")
    stranger = format_key(first["environment_id"], Ed25519PrivateKey.generate().private_bytes_raw())
    _, seed = parse_key(other) or ("", b"")
    for wrong in (stranger, format_key(first["environment_id"], seed)):
        with pytest.raises(ConnectFailed) as caught:
            await connect(hub, wrong)
        assert caught.value.fault is Fault.AUTHENTICATION
    # The same hub by another name: whoever answers there could pass the proof on.
    with pytest.raises(ConnectFailed):
        await connect(hub, word, url=hub.url.replace("http://127.0.0.1", "ws://localhost") + "/api/v1/runner/ws")
    assert "welcome" in await connect(hub, word)
    with pytest.raises(ConfigError):
        check_key(Token(word[:-1]))


async def test_a_key_is_never_sent(hub):
    """Not as a bearer token, not in the plain protocol's query; and the hub takes it for nothing there."""
    _, word = await joined(hub)

    async def converse(connection: Connection) -> None:
        del connection

    address = parse_hub_url(hub.url.replace("http", "ws") + "/api/v1/runner/ws")
    with pytest.raises(InvariantError):
        await dial(address, Token(word), context=ssl.create_default_context(), form=Form.PLAIN, converse=converse)
    with pytest.raises(trio_websocket.ConnectionRejected):
        async with trio_websocket.open_websocket_url(f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws?token={word}"):
            pass


async def test_a_proof_works_once(hub):
    """A recorded upgrade request, sent again, is answered with a new challenge."""
    found, word = await joined(hub)
    _, seed = parse_key(word) or ("", b"")
    address = f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws"

    async def knock(proof: KeyProof) -> str:
        try:
            headers = [(b"authorization", str(proof).encode())]
            async with trio_websocket.open_websocket_url(address, extra_headers=headers) as websocket:
                return str(await websocket.get_message())
        except trio_websocket.ConnectionRejected as error:
            sent = dict(error.headers)[b"www-authenticate"].decode()
            return re.sub(r'.*challenge="(.*)"', r"\1", sent)

    challenge = await knock(KeyProof(found["environment_id"]))
    host = host_of(hub.url)
    text = connect_text(environment_id=found["environment_id"], host=host, challenge=challenge)
    proof = KeyProof(found["environment_id"], challenge, Ed25519PrivateKey.from_private_bytes(seed).sign(text))
    assert "welcome" in await knock(proof)
    again = await knock(proof)
    assert "welcome" not in again
    assert again != challenge


async def test_join_tokens_end(hub):
    """One use is one machine, a lost answer costs none; used up, deleted, badly signed, of somebody gone: nothing."""
    made = await make_token(hub, uses=2)
    first, second, third = (Ed25519PrivateKey.generate() for _ in range(3))

    async def ask(token: str, key: Ed25519PrivateKey, **more: Any) -> int:
        async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
            return (await http.post("/api/v1/join", json=join_body(token, key, **more))).status_code

    assert await ask(made["secret"], first, signer=third) == 400
    assert await ask(made["secret"], first) == 201
    assert await ask(made["secret"], first) == 201
    assert (await hub.http.get("/api/v1/join-tokens")).json()["join_tokens"][0]["uses_left"] == 1
    assert await ask(made["secret"], second) == 201
    assert await ask(made["secret"], third) == 401
    assert len((await hub.http.get("/api/v1/environments")).json()["environments"]) == 2
    other = await make_token(hub)
    # A key that is known belongs to the token that it came with.
    assert await ask(other["secret"], first) == 401
    assert (await hub.http.delete(f"/api/v1/join-tokens/{other['join_token']['id']}")).status_code == 204
    assert await ask(other["secret"], third) == 401
    assert await ask("ghj_" + "0" * 48, third) == 401
    await become_owner(hub)
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    cookies, person = await invite(hub, "max@example.com", teams=["payments"])
    async with httpx2.AsyncClient(base_url=hub.url, cookies=cookies, headers={"origin": hub.url}) as http:
        assert (await http.post("/api/v1/join-tokens", json={})).status_code == 403
        body = {"scope": {"kind": "team", "team": "payments"}}
        theirs = (await http.post("/api/v1/join-tokens", json=body)).json()
    await hub.http.patch(f"/api/v1/people/{person['id']}", json={"disabled": True})
    assert await ask(theirs["secret"], third) == 401
    await hub.http.patch(f"/api/v1/people/{person['id']}", json={"disabled": False})
    # Nor when they are in that team no more.
    member = f"/api/v1/teams/payments/members/{person['id']}"
    assert (await hub.http.delete(member)).status_code == 204
    assert await ask(theirs["secret"], third) == 401
    assert (await hub.http.put(member)).status_code == 204
    assert await ask(theirs["secret"], third) == 201


async def test_one_use_is_one_machine(hub):
    """Of many machines that bring the same token of one use at the same moment one joins."""
    token = (await make_token(hub))["secret"]
    answers: list[int] = []

    async def ask(http: httpx2.AsyncClient) -> None:
        body = join_body(token, Ed25519PrivateKey.generate())
        answers.append((await http.post("/api/v1/join", json=body)).status_code)

    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask, http)
    assert sorted(answers) == [201, *[401] * 19]
    assert len((await hub.http.get("/api/v1/environments")).json()["environments"]) == 1


async def test_rotating_and_deleting_end_the_key(start_hub):
    """A key works over restarts, until the environment gets a token in its place or is deleted."""
    async with start_hub() as hub:
        _, word = await joined(hub, name="one")
        _, other = await joined(hub, name="two")
    async with start_hub() as hub:
        # The hub's port is another now, and the key signs for the name that it dials.
        assert "welcome" in await connect(hub, word)
        rotated = await hub.http.post("/api/v1/environments/one/token/rotate", json={"overlap_s": 0})
        assert rotated.status_code == 200
        assert (await hub.http.delete("/api/v1/environments/two")).status_code == 204
        for over in (word, other):
            with pytest.raises(ConnectFailed):
                await connect(hub, over)


async def test_the_command(hub, make_cli, tmp_path):  # noqa: F811 - the fixture
    """`guardhouse join` writes a key that only its owner reads, and uses nothing up where it cannot."""
    cli = make_cli(hub)
    made = await cli.run("env", "join-token", "create", "--tag", "a,b")
    assert made.returncode == 0, made.stderr
    file, out = tmp_path / "join", tmp_path / "runner.key"
    file.write_bytes(made.stdout)
    out.touch()
    options = ("--hub", hub.url, "--join-token-file", str(file), "--out", str(out))
    assert (await cli.run("join", *options)).returncode == 2
    out.unlink()
    done = await cli.run("join", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "welcome" in await connect(hub, out.read_text().strip())
    assert out.read_text().strip().encode() not in done.stdout + done.stderr
    used = await cli.run("join", "--hub", hub.url, "--join-token-file", str(file), "--out", str(tmp_path / "second"))
    assert used.returncode == 4
    assert not (tmp_path / "second").exists()
    assert b"uses left" in (await cli.run("env", "join-token", "list")).stdout.lower()


def test_challenges():
    """One is worth something here, for this environment, in time, once; other spellings of it are the same one."""
    challenges = Challenges()
    made = challenges.make(ENVIRONMENT, now_ms=NOW)
    is_open = lambda text=made, who=ENVIRONMENT, at=NOW: challenges.is_open(text, who, now_ms=at)  # noqa: E731 - short
    assert is_open()
    assert not is_open(who="env_bbbbbbbbbbbbbbbbbbbb")
    assert not is_open(at=NOW + 30_000)
    assert not Challenges().is_open(made, ENVIRONMENT, now_ms=NOW)
    assert not is_open(text="A" + made[1:] if made[0] != "A" else "B" + made[1:])
    assert not any(is_open(text=text) for text in ("", "A" * 16, made[:-1], made + "AAAA"))
    challenges.use(made, now_ms=NOW)
    assert not is_open()


def test_signatures_are_of_everything_that_is_signed():
    """A changed environment, host or challenge is another text."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signature = key.sign(connect_text(environment_id=ENVIRONMENT, host="hub.example.com", challenge="c" * 20))
    right = KeyProof(ENVIRONMENT, "c" * 20, signature)
    assert is_signed_by([b"\0" * 32, public], right, host="HUB.example.com")
    assert not is_signed_by([public], right, host="evil.example.com")
    assert not is_signed_by([public], KeyProof("env_bbbbbbbbbbbbbbbbbbbb", "c" * 20, signature), host="hub.example.com")
    assert not is_signed_by([public], KeyProof(ENVIRONMENT, "d" * 20, signature), host="hub.example.com")
    assert not is_signed_by([], right, host="hub.example.com")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hub.example.com", "hub.example.com"),
        ("https://hub.example.com:443/x", "hub.example.com"),
        ("https://hub.example.com:8443", "hub.example.com:8443"),
        ("http://[::1]:80", "[::1]"),
    ],
)
def test_host(url, host):
    """As a runner's Host header says it."""
    assert host_of(url) == host


def test_proofs_read_back():
    """What is written is read; anything else is none."""
    for proof in (KeyProof(ENVIRONMENT), KeyProof(ENVIRONMENT, "c" * 20, b"\1" * 64)):
        assert parse_proof(str(proof).partition(" ")[2]) == proof
    for text in (
        "",
        "environment=env_x",
        f'environment="{ENVIRONMENT}", challenge="c"',
        f'environment="{ENVIRONMENT}" x',
    ):
        assert parse_proof(text) is None
    assert parse_key("ghk_x") is None
