"""Signing in through a real OpenID Connect provider, and what an attacker on the way or in the browser tries.

Every refused attack has its twin beside it: the same sign-in unbent, which succeeds.
"""

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
from tests.hub.support import PASSWORD, become_owner
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, SigningKey, rsa_key, run_provider

from guardhouse.errors import SetupError
from guardhouse.hub.oidc.settings import OidcSettings, parse_claim_map, parse_oidc

ALICE = {"sub": "alice", "email": "alice@example.com", "email_verified": True, "name": "Alice"}


@pytest.fixture
async def provider():
    async with run_provider() as found:
        found.user = dict(ALICE)
        yield found


def settings(provider: OidcProvider, **more: Any) -> OidcSettings:
    given = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "provision": "member"}
    return OidcSettings(issuer=provider.issuer, **{**given, **more})


def browser(hub: Any, **more: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=hub.url, timeout=30, **more)


async def leave(http: httpx2.AsyncClient) -> str:
    """Begin a sign-in and return where the provider sends the browser back to."""
    began = await http.get("/api/v1/sign-in/oidc")
    assert began.status_code == 302, began.text
    async with httpx2.AsyncClient(timeout=30) as there:
        back = await there.get(began.headers["location"])
    assert back.status_code == 302
    return back.headers["location"]


async def sign_in(hub: Any) -> tuple[httpx2.Response, dict[str, Any]]:
    """Sign in with a fresh browser; return the hub's last answer and who one is then."""
    async with browser(hub) as http:
        reply = await http.get(await leave(http))
        return reply, (await http.get("/api/v1/self")).json()


async def why(hub: Any) -> str:
    """Return the reason of the newest refused sign-in, which only the audit log has."""
    found = (await hub.http.get("/api/v1/audit", params={"action": "sign_in.fail", "limit": 1})).json()["events"]
    return found[0]["detail"]["reason"]


async def test_sign_in_provisions_and_knows_again(start_hub, provider):
    """A new person becomes a member, with cookies that scripts cannot read; the second time it is the same person."""
    provider.keys.reverse()  # the elliptic key signs
    async with start_hub(oidc=settings(provider)) as hub:
        methods = (await hub.http.get("/api/v1/sign-in/methods")).json()
        assert methods == {"password": True, "oidc_issuer": provider.issuer}
        reply, self = await sign_in(hub)
        assert (reply.status_code, reply.headers["location"]) == (303, f"{hub.url}/")
        cookies = reply.headers.get_list("set-cookie")
        assert all("HttpOnly" in one and "SameSite=Lax" in one for one in cookies)
        assert any("-flow=;" in one and "Max-Age=0" in one for one in cookies)
        assert (self["email"], self["role"], self["name"]) == ("alice@example.com", "member", "Alice")
        # The provider's address changed; issuer and subject did not.
        provider.user = ALICE | {"email": "other@example.com"}
        _, again = await sign_in(hub)
        assert again["id"] == self["id"]
        await hub.http.patch(f"/api/v1/people/{self['id']}", json={"disabled": True})
        refused, _ = await sign_in(hub)
        assert refused.status_code == 401
        assert provider.asked.count("/jwks") == 1
        assert provider.asked.count("/.well-known/openid-configuration") == 1


async def test_signing_out_here_and_at_the_provider(start_hub, provider):
    """The browser is told where to go, with what the provider needs to know who it is; by password it is told nothing.

    A hub that was restarted has forgotten the ID token, and the provider asks; an address that is not the provider's
    kind is not gone to, and a provider that is away keeps nobody signed in here.
    """
    provider.metadata = {"end_session_endpoint": f"{provider.issuer}/logout?ui=de"}
    async with start_hub(oidc=settings(provider)) as hub:
        owner = await become_owner(hub)
        ours = {"sec-fetch-site": "same-origin"}
        async with browser(hub, headers=ours) as http, browser(hub, headers=ours) as later:
            for one in (http, later):
                await one.get(await leave(one))
            left = await http.post("/api/v1/sign-out")
            assert left.status_code == 200
            url = urlsplit(left.json()["end_session_url"])
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            assert (f"{url.scheme}://{url.netloc}{url.path}", query["ui"]) == (f"{provider.issuer}/logout", "de")
            assert (query["client_id"], query["post_logout_redirect_uri"]) == (CLIENT_ID, f"{hub.url}/")
            assert jwt.decode(query["id_token_hint"], options={"verify_signature": False})["sub"] == "alice"
            assert (await http.get("/api/v1/self")).status_code == 401
            kept = dict(later.cookies)
        async with browser(hub, cookies=owner, headers=ours) as http:
            assert (await http.post("/api/v1/sign-out")).status_code == 204
    async with start_hub(oidc=settings(provider)) as hub, browser(hub, cookies=kept, headers=ours) as http:
        left = await http.post("/api/v1/sign-out")
        assert "id_token_hint" not in left.json()["end_session_url"]
        assert "client_id=" in left.json()["end_session_url"]
    provider.metadata = {"end_session_endpoint": "http://evil.example.com/logout"}
    async with start_hub(oidc=settings(provider)) as hub, browser(hub, headers=ours) as http:
        await http.get(await leave(http))
        assert (await http.post("/api/v1/sign-out")).status_code == 204


async def test_what_only_userinfo_tells(start_hub, provider):
    """A provider that keeps to the specification puts address, name and groups into no ID token of a code."""
    provider.user = {"sub": "alice"}
    provider.userinfo = ALICE | {"groups": ["ops"]}
    async with start_hub(oidc=settings(provider, maps=(parse_claim_map("ops=admin"),))) as hub:
        _, self = await sign_in(hub)
        assert (self["email"], self["name"], self["role"]) == ("alice@example.com", "Alice", "admin")
        # An ID token that says all is believed alone, and what it says goes first.
        provider.user = ALICE | {"groups": []}
        assert (await sign_in(hub))[1]["role"] == "member"
        assert provider.asked.count("/userinfo") == 1


@pytest.mark.parametrize(
    ("bent", "reason"),
    [
        pytest.param({"userinfo": ALICE | {"sub": "mallory"}}, "about somebody else", id="another's"),
        pytest.param({"userinfo": {"email": "alice@example.com"}}, "about somebody else", id="nobody's"),
        pytest.param({"userinfo": ALICE | {"email_verified": False}}, "nobody here is known", id="not verified"),
        # The token's address, which nobody verified, beside the word for another one.
        pytest.param(
            {
                "user": {"sub": "alice", "email": "owner@example.com"},
                "userinfo": {"sub": "alice", "email_verified": True},
            },
            "nobody here is known",
            id="two halves",
        ),
        pytest.param(
            {"userinfo": ALICE, "metadata": {"userinfo_endpoint": "http://evil.example.com/userinfo"}},
            "nobody here is known",
            id="elsewhere",
        ),
        pytest.param({"userinfo": ALICE, "answers": {"/userinfo": (401, b"")}}, "access token", id="refused"),
    ],
)
async def test_userinfo_that_vouches_for_nobody(start_hub, provider, bent, reason):
    """Userinfo counts for the ID token's own subject, whole, from an address of the provider's kind."""
    provider.user = {"sub": "alice"}
    for name, value in bent.items():
        setattr(provider, name, value)
    async with start_hub(oidc=settings(provider)) as hub:
        reply, _ = await sign_in(hub)
        assert reply.status_code == 401
        assert reason in await why(hub)


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, None, algorithm="none")


def _with_public_key_as_secret(provider: OidcProvider):
    """The oldest trick: the public key, which everybody has, taken for the secret of an HMAC."""
    public = json.dumps(provider.keys[0].public_jwk()).encode()

    def sign(claims: dict[str, Any]) -> str:
        # By hand: the library refuses to make such a token, too.
        head = {"alg": "HS256", "typ": "JWT", "kid": provider.keys[0].id}
        signed = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(claims).encode())}"
        return f"{signed}.{_part(hmac.digest(public, signed.encode(), 'sha256'))}"

    return sign


def _with_own_key_sent_along(provider: OidcProvider):
    own = SigningKey(provider.keys[0].id, "RS256", rsa_key("another").private)

    def sign(claims: dict[str, Any]) -> str:
        return provider.token(claims, key=own, jwk=own.public_jwk(), jku="https://evil.example.com/jwks")

    return sign


def _cut(provider: OidcProvider):
    def sign(claims: dict[str, Any]) -> str:
        head, body, signature = provider.token(claims).split(".")
        changed = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "owner"}
        return ".".join([head, _part(json.dumps(changed).encode()), signature])

    return sign


async def test_bent_id_tokens_are_refused(start_hub, provider):
    """Each ID token that is not exactly for this client, this sign-in, now, signed by the provider, lets nobody in."""
    now = int(time.time())
    bent: list[tuple[str, dict[str, Any], Any, str]] = [
        ("another audience", {"aud": "other-client"}, None, "Audience"),
        ("audience among others without azp", {"aud": [CLIENT_ID, "other"]}, None, "party"),
        ("made for another party", {"azp": "other"}, None, "party"),
        ("another issuer", {"iss": "https://evil.example.com"}, None, "issuer"),
        ("expired", {"exp": now - 120, "iat": now - 500}, None, "expired"),
        ("kept for later", {"iat": now - 3_000}, None, "too old"),
        ("from the future", {"iat": now + 3_000}, None, "iat"),
        ("another nonce", {"nonce": "stolen"}, None, "nonce"),
        ("no nonce", {"nonce": None}, None, "nonce"),
        ("no expiry", {"exp": None}, None, "exp"),
        ("subject of another type", {"sub": 7}, None, "ubject"),
        ("unsigned", {}, _unsigned, "'none'"),
        ("public key as HMAC secret", {}, _with_public_key_as_secret(provider), "'HS256'"),
        ("own key sent along", {}, _with_own_key_sent_along(provider), "ignature"),
        ("changed after signing", {}, _cut(provider), "ignature"),
        ("unknown key", {}, lambda claims: provider.token(claims, key=rsa_key("rsa-9")), "no key"),
        ("critical header", {}, lambda claims: provider.token(claims, crit=["x"], x=1), "rit"),
        ("an access token", {}, lambda claims: provider.token(claims, typ="at+jwt"), "type"),
        ("huge", {"x": "x" * 20_000}, None, "characters"),
    ]
    async with start_hub(oidc=settings(provider)) as hub:
        for what, claims, sign, reason in bent:
            provider.claims, provider.sign = claims, sign
            reply, self = await sign_in(hub)
            assert reply.status_code == 401, what
            assert "error" in self, what
            assert reason in await why(hub), (what, await why(hub))
        provider.claims, provider.sign = {}, None
        reply, self = await sign_in(hub)
        assert (reply.status_code, self["email"]) == (303, "alice@example.com")


async def test_callbacks_that_this_browser_did_not_ask_for(start_hub, provider):
    """State, browser, issuer and code belong together; none works twice, in another browser, or from elsewhere."""
    async with start_hub(oidc=settings(provider)) as hub:
        async with browser(hub) as victim, browser(hub) as attacker:
            # Login CSRF: the attacker's own answer, opened in the victim's browser.
            attackers = await leave(attacker)
            assert (await victim.get(attackers)).status_code == 401
            await leave(victim)
            assert (await victim.get(attackers)).status_code == 401
            assert "no such sign-in" in await why(hub)
            # The same answer in the browser that began: the twin.
            assert (await attacker.get(attackers)).status_code == 303
        async with browser(hub) as http:
            back = await leave(http)
            kept = http.cookies.get("guardhouse-flow")
            assert (await http.get(back)).status_code == 303
            # Once more, with the cookie that the answer took away.
            async with browser(hub, cookies={"guardhouse-flow": kept}) as again:
                assert (await again.get(back)).status_code == 401
                assert "used already" in await why(hub)
        for wrong, reason in (
            ({"state": "x"}, "no such sign-in"),
            ({"iss": "https://evil.example.com"}, "of the issuer"),
            ({"iss": None}, "of the issuer"),
            ({"code": "stolen"}, "invalid"),
            ({"code": None, "error": "access_denied"}, "access_denied"),
        ):
            provider.callback = wrong
            reply, _ = await sign_in(hub)
            assert reply.status_code == 401, wrong
            assert reason in await why(hub), wrong
        provider.callback = {}
        async with browser(hub) as http:
            began = await http.get("/api/v1/sign-in/oidc", params={"redirect_uri": "https://evil.example.com"})
            assert began.status_code == 400
            location = (await http.get("/api/v1/sign-in/oidc")).headers["location"]
            asked = parse_qs(urlsplit(location).query)
            assert asked["redirect_uri"] == [f"{hub.url}/api/v1/sign-in/oidc/callback"]


async def test_codes_of_another_sign_in_are_no_use(start_hub, provider):
    """A code that was begun with another verifier (injected by an attacker) is refused by PKCE."""
    async with start_hub(oidc=settings(provider)) as hub, browser(hub) as victim, browser(hub) as attacker:
        stolen = parse_qs(urlsplit(await leave(victim)).query)["code"][0]
        provider.callback = {"code": stolen}
        assert (await attacker.get(await leave(attacker))).status_code == 401
        assert "invalid" in await why(hub)


async def test_addresses_take_nobody_over(start_hub, provider):
    """An address alone, verified or not, is nobody's account; invited people, and those who link themselves, get in."""
    async with start_hub(oidc=settings(provider, provision="off", domains=("example.com",))) as hub:
        await become_owner(hub, "owner@example.com")
        for user in (
            ALICE,
            ALICE | {"email": "owner@example.com"},
            ALICE | {"email": "owner@example.com", "email_verified": False},
            ALICE | {"email": "owner@example.com", "email_verified": "true"},
            ALICE | {"email": "alice@evil.example"},
            ALICE | {"email": None},
        ):
            provider.user = user
            reply, _ = await sign_in(hub)
            assert reply.status_code == 401, user
        invited = (await hub.http.post("/api/v1/people", json={"email": "alice@example.com", "role": "admin"})).json()
        provider.user = ALICE | {"email_verified": False}
        assert (await sign_in(hub))[0].status_code == 401
        provider.user = ALICE
        reply, self = await sign_in(hub)
        assert (reply.status_code, self["role"]) == (303, "admin")
        body = {"token": invited["link"].partition("#")[2], "password": PASSWORD}
        async with browser(hub) as http:
            assert (await http.post("/api/v1/links/accept", json=body)).status_code == 401
        # The owner links their own person while signed in; another identity cannot follow.
        provider.user = ALICE | {"sub": "olga", "email": "owner@example.com"}
        async with browser(hub, headers={"origin": hub.url}) as http:
            await http.post("/api/v1/sign-in", json={"email": "owner@example.com", "password": PASSWORD})
            begun = await http.post("/api/v1/self/oidc")
            async with httpx2.AsyncClient() as there:
                back = (await there.get(begun.json()["url"])).headers["location"]
            assert (await http.get(back)).status_code == 303
            assert (await http.get("/api/v1/self")).json()["role"] == "owner"
        assert (await sign_in(hub))[1]["role"] == "owner"
        made = await hub.http.post("/api/v1/self/oidc")
        assert made.status_code == 400  # the account's own token belongs to nobody
        assert (await hub.http.delete("/api/v1/people/owner@example.com/oidc")).status_code == 204
        assert (await sign_in(hub))[0].status_code == 401


async def test_groups_become_role_and_teams(start_hub, provider):
    """What the operator maps follows the provider at each sign-in; what is not mapped is left alone."""
    maps = tuple(parse_claim_map(text) for text in ("ops=admin", "pay=team:payments", "x=team:missing"))
    async with start_hub(oidc=settings(provider, maps=maps)) as hub:
        team = (await hub.http.post("/api/v1/teams", json={"name": "payments"})).json()["id"]
        other = (await hub.http.post("/api/v1/teams", json={"name": "other"})).json()["id"]
        provider.claims = {"groups": ["ops", "pay", "x", 7]}
        _, self = await sign_in(hub)
        assert (self["role"], self["teams"]) == ("admin", [team])
        await hub.http.put(f"/api/v1/teams/other/members/{self['id']}")
        provider.claims = {"groups": "nothing"}
        _, self = await sign_in(hub)
        assert (self["role"], self["teams"]) == ("member", [other])


async def test_new_keys_are_found_and_old_ones_end(start_hub, provider, monkeypatch):
    """A new signing key is fetched when it is met; unknown ones cannot make the hub ask again and again."""
    monkeypatch.setattr("guardhouse.hub.oidc.provider.KEYS_AGAIN_S", 0.0)
    async with start_hub(oidc=settings(provider)) as hub:
        assert (await sign_in(hub))[0].status_code == 303
        old, provider.keys = provider.keys[0], [rsa_key("rsa-2")]
        assert (await sign_in(hub))[0].status_code == 303
        provider.sign = lambda claims: provider.token(claims, key=old)
        assert (await sign_in(hub))[0].status_code == 401
        monkeypatch.setattr("guardhouse.hub.oidc.provider.KEYS_AGAIN_S", 30.0)
        asked = provider.asked.count("/jwks")
        for _ in range(3):
            assert (await sign_in(hub))[0].status_code == 401
        assert provider.asked.count("/jwks") == asked


async def test_a_provider_that_is_broken_or_hostile(start_hub, provider, monkeypatch):
    """Answers that are too large, no JSON, of another issuer, or lead elsewhere are a 503 that says why."""
    monkeypatch.setattr("guardhouse.hub.oidc.provider.FAILED_AGAIN_S", 0.0)
    discovery = "/.well-known/openid-configuration"
    async with start_hub(oidc=settings(provider)) as hub, browser(hub) as http:
        for answers, metadata, said in (
            ({discovery: (200, b"x" * 300_000)}, {}, "over"),
            ({discovery: (200, b"[]")}, {}, "no JSON object"),
            ({discovery: (200, b'{"a":1,"a":2}')}, {}, "no JSON"),
            ({discovery: (302, b"")}, {}, "status 302"),
            ({discovery: (500, b"")}, {}, "status 500"),
            ({}, {"issuer": "https://evil.example.com"}, "not"),
            ({}, {"token_endpoint": "http://192.0.2.1/token"}, "no https address"),
            ({}, {"jwks_uri": "file:///etc/passwd"}, "no https address"),
            ({}, {"authorization_endpoint": "javascript:alert(1)"}, "no https address"),
            ({}, {"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ):
            provider.answers, provider.metadata = answers, metadata
            reply = await http.get("/api/v1/sign-in/oidc")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "provider_unavailable")
            assert said in reply.json()["error"]["message"], reply.text
        provider.answers, provider.metadata = {}, {}
        assert (await sign_in(hub))[0].status_code == 303


async def test_without_a_provider(hub):
    """A hub that has none says so."""
    assert (await hub.http.get("/api/v1/sign-in/methods")).json() == {"password": True, "oidc_issuer": None}
    assert (await hub.http.get("/api/v1/sign-in/oidc")).status_code == 404
    assert (await hub.http.get("/api/v1/sign-in/oidc/callback", params={"state": "x"})).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://accounts.example.com"},
        {"issuer": "https://user@accounts.example.com"},
        {"issuer": "https://accounts.example.com/?x"},
        {"client_id": ""},
        {"scopes": ("email",)},
        {"scopes": ("openid", "a b")},
        {"domains": ("Example",)},
    ],
)
def test_bad_settings_are_refused(wrong):
    """What cannot be sound is refused at start."""
    with pytest.raises(SetupError):
        OidcSettings(**{"issuer": "https://accounts.example.com", "client_id": "x", **wrong})


@pytest.mark.parametrize("text", ["", "x", "x=owner", "=admin", "x=team:"])
def test_bad_maps_are_refused(text):
    """Nobody becomes an owner by a claim."""
    with pytest.raises(SetupError):
        parse_claim_map(text)


def test_secret_file(tmp_path: Path):
    """The secret comes from a file that is not open to everybody, and is not shown."""
    file = tmp_path / "secret"
    file.write_text("s3cret\n")

    def parse() -> OidcSettings:
        return parse_oidc(
            "https://accounts.example.com",
            "x",
            file,
            scopes=(),
            domains=("Example.com",),
            provision="off",
            groups_claim="groups",
            maps=(),
            access_tokens=False,
            ca_file=None,
        )

    file.chmod(0o644)
    with pytest.raises(SetupError, match="open to everybody"):
        parse()
    file.chmod(0o600)
    found = parse()
    assert (found.client_secret, found.domains) == ("s3cret", ("example.com",))
    assert "s3cret" not in repr(found)
