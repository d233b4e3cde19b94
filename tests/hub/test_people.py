"""People: the first owner's link, signing in, cookies, lockout, invitations, disabling."""

import subprocess
import sys
from collections import Counter

import httpx2
import pytest
import trio
from tests.hub.support import PASSWORD, become_owner, invite

from guardhouse.errors import SetupError
from guardhouse.hub import authorize
from guardhouse.hub.clock import now_ms
from guardhouse.hub.forwarded import client_address, parse_networks
from guardhouse.hub.people.lockout import FREE_TRIES, Lockout
from guardhouse.hub.people.passwords import PasswordRefused, check_password


def browser(hub, **headers: str) -> httpx2.AsyncClient:
    """What a page of the hub sends: no token, the cookie when it has one."""
    fetched = {"sec-fetch-site": "same-origin", **headers}
    verify = hub.ssl_context if hub.ssl_context is not None else True
    return httpx2.AsyncClient(base_url=hub.url, headers=fetched, verify=verify, timeout=30)


async def test_the_first_link_makes_the_owner_once(hub):
    """The link that the hub prints makes one owner; used again, or once there is one, it is nothing."""
    link = hub.hub.owner_link
    assert (hub.state_dir / "owner.link").read_text().strip() == link
    secret = link.partition("#")[2]
    body = {"token": secret, "password": PASSWORD, "email": "Ada@Example.com", "name": "Ada"}
    async with browser(hub) as http:
        reply = await http.post("/api/v1/links/accept", json=body)
        assert (reply.status_code, reply.json()["role"], reply.json()["email"]) == (200, "owner", "ada@example.com")
        assert (await http.get("/api/v1/people")).json()["people"][0]["state"] == "active"
        again = await http.post("/api/v1/links/accept", json=body)
        assert (again.status_code, again.json()["error"]["code"]) == (401, "bad_link")


async def test_the_link_ends_with_the_first_owner_and_the_api_token_stays(start_hub):
    """A hub that has an owner prints no link; the API token of the first start works on."""
    async with start_hub() as hub:
        first = hub.hub.owner_link
        assert await become_owner(hub)
    async with start_hub() as hub:
        assert first is not None
        assert hub.hub.owner_link is None
        assert not (hub.state_dir / "owner.link").exists()
        assert (await hub.http.get("/api/v1/people")).status_code == 200


async def test_signing_in_sets_a_careful_cookie(start_hub):
    """HttpOnly, SameSite, and over TLS Secure with the prefix that binds it to this host."""
    async with start_hub(tls=True) as hub:
        await become_owner(hub)
        async with browser(hub) as http:
            reply = await http.post("/api/v1/sign-in", json={"email": "OWNER@example.com", "password": PASSWORD})
            assert reply.status_code == 200, reply.text
            cookie = reply.headers["set-cookie"]
            assert cookie.startswith("__Host-guardhouse=ghs_")
            for part in ("; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"):
                assert part in cookie
            assert "domain" not in cookie.lower()
            assert (await http.get("/api/v1/self")).json()["kind"] == "person"
            assert (await http.post("/api/v1/sign-out")).status_code == 204
            assert (await http.get("/api/v1/self")).status_code == 401


async def test_a_wrong_password_and_an_unknown_person_read_alike(hub):
    """Nobody learns who is a person of the account."""
    await become_owner(hub)
    answers = []
    async with browser(hub) as http:
        for email in ("owner@example.com", "nobody@example.com"):
            reply = await http.post("/api/v1/sign-in", json={"email": email, "password": "wrong wrong wrong"})
            answers.append((reply.status_code, reply.json()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 401
    events = (await hub.http.get("/api/v1/audit", params={"action": "sign_in.fail"})).json()["events"]
    assert [one["detail"]["email"] for one in events] == ["nobody@example.com", "owner@example.com"]


async def test_too_many_wrong_passwords_lock_for_a_while(hub):
    """Then even the right one is not looked at; a sign-in that stands goes on."""
    cookies = await become_owner(hub)
    async with browser(hub) as http:
        for _ in range(5):
            reply = await http.post("/api/v1/sign-in", json={"email": "owner@example.com", "password": "x" * 20})
            assert reply.status_code == 401
        locked = await http.post("/api/v1/sign-in", json={"email": "owner@example.com", "password": PASSWORD})
        assert (locked.status_code, locked.json()["error"]["code"]) == (429, "locked")
        assert (await http.get("/api/v1/self", cookies=cookies)).status_code == 200


def test_locks_grow_and_end():
    """A minute after five wrong ones, doubling to a quarter of an hour; a right one forgets them."""
    lockout = Lockout()
    for _ in range(4):
        assert not lockout.note("a", right=False, now_ms=0)
        assert lockout.wait_s("a", now_ms=0) == 0
    assert lockout.note("a", right=False, now_ms=0)
    assert lockout.wait_s("a", now_ms=0) == 60
    assert lockout.wait_s("a", now_ms=60_000) == 0
    for _ in range(100):
        lockout.note("a", right=False, now_ms=0)
    assert lockout.wait_s("a", now_ms=0) == 900
    lockout.note("a", right=True, now_ms=0)
    assert lockout.wait_s("a", now_ms=0) == 0


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"sec-fetch-site": "cross-site"}, id="another site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="a sister host"),
        pytest.param({"sec-fetch-site": "none"}, id="no page"),
        pytest.param({"origin": "https://evil.example"}, id="another origin, old browser"),
        pytest.param({"origin": "null"}, id="hidden origin"),
        pytest.param({}, id="nothing said"),
    ],
)
async def test_other_pages_cannot_use_the_cookie(hub, headers):
    """A changing request with the cookie counts only from the hub's own pages; the twins are in the other tests."""
    cookies = await become_owner(hub)
    async with httpx2.AsyncClient(base_url=hub.url, cookies=cookies) as http:
        reply = await http.post("/api/v1/teams", json={"name": "t"}, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "cross_site")
        own = await http.post("/api/v1/teams", json={"name": "t"}, headers={"origin": hub.url})
        assert own.status_code == 201


async def test_another_page_cannot_sign_its_visitor_in(hub):
    """Signing in across sites is refused, so that nobody works in an attacker's account unawares."""
    await become_owner(hub)
    async with httpx2.AsyncClient(base_url=hub.url) as http:
        body = {"email": "owner@example.com", "password": PASSWORD}
        reply = await http.post("/api/v1/sign-in", json=body, headers={"sec-fetch-site": "cross-site"})
        assert reply.status_code == 403


async def test_the_cookie_is_rotated_and_the_old_value_ends(hub, monkeypatch):
    """After its time the answer brings a new value; the old one serves what is on its way, then nothing."""
    cookies = await become_owner(hub)
    monkeypatch.setattr(authorize.credentials, "SIGN_IN_ROTATE_MS", 0)
    monkeypatch.setattr(authorize.credentials, "SIGN_IN_GRACE_MS", 60_000)
    async with httpx2.AsyncClient(base_url=hub.url) as http:
        reply = await http.get("/api/v1/self", cookies=cookies)
        renewed = {reply.headers["set-cookie"].partition("=")[0]: reply.headers["set-cookie"].partition("=")[2][:52]}
    monkeypatch.setattr(authorize.credentials, "SIGN_IN_ROTATE_MS", 10**9)
    assert renewed != dict(cookies)
    for known in (cookies, renewed):
        async with httpx2.AsyncClient(base_url=hub.url, cookies=known) as http:
            assert (await http.get("/api/v1/self")).status_code == 200
    later = now_ms() + 61_000
    credentials = hub.hub.services.credentials
    with pytest.raises(authorize.AuthenticationFailed):
        credentials.signed_in(next(iter(dict(cookies).values())), now_ms=later, address=None)
    assert credentials.signed_in(next(iter(renewed.values())), now_ms=later, address=None)


async def test_sign_ins_end_by_idleness_and_by_age(hub):
    """Eight hours without a request, or three days at all."""
    cookies = await become_owner(hub)
    credentials = hub.hub.services.credentials
    secret = next(iter(dict(cookies).values()))
    start = now_ms()
    hour = 3_600_000
    with pytest.raises(authorize.AuthenticationFailed):
        credentials.signed_in(secret, now_ms=start + 9 * hour, address=None)
    for step in range(7, 72, 7):
        credentials.signed_in(secret, now_ms=start + step * hour, address=None)
    with pytest.raises(authorize.AuthenticationFailed):
        credentials.signed_in(secret, now_ms=start + 73 * hour, address=None)


async def test_sign_ins_survive_a_restart(start_hub):
    """The cookie works with the next hub process too."""
    async with start_hub() as hub:
        cookies = await become_owner(hub)
    async with start_hub() as hub, httpx2.AsyncClient(base_url=hub.url, cookies=cookies) as http:
        assert (await http.get("/api/v1/self")).json()["role"] == "owner"


async def test_disabling_ends_everything_at_once(hub):
    """Cookie and tokens of a disabled person open nothing; enabled again, the token does."""
    await become_owner(hub)
    cookies, person = await invite(hub, "max@example.com")
    async with browser(hub) as http:
        http.cookies.update(cookies)
        made = await http.post("/api/v1/tokens", json={"name": "mine", "scopes": ["env:read"]})
        token = {"authorization": f"Bearer {made.json()['secret']}"}
        assert (await http.get("/api/v1/self")).status_code == 200
    await hub.http.patch(f"/api/v1/people/{person['id']}", json={"disabled": True})
    async with httpx2.AsyncClient(base_url=hub.url) as http:
        assert (await http.get("/api/v1/self", cookies=cookies)).status_code == 401
        assert (await http.get("/api/v1/self", headers=token)).status_code == 401
        await hub.http.patch("/api/v1/people/max@example.com", json={"disabled": False})
        assert (await http.get("/api/v1/self", headers=token)).status_code == 200
        assert (await http.get("/api/v1/self", cookies=cookies)).status_code == 401


async def test_a_persons_token_has_no_more_than_the_person(hub):
    """Who is no admin any more has no admin token any more."""
    await become_owner(hub)
    cookies, person = await invite(hub, "max@example.com", role="admin")
    async with browser(hub) as http:
        http.cookies.update(cookies)
        made = await http.post("/api/v1/tokens", json={"name": "mine", "scopes": ["admin"]})
    token = {"authorization": f"Bearer {made.json()['secret']}"}
    async with httpx2.AsyncClient(base_url=hub.url, headers=token) as http:
        assert (await http.get("/api/v1/people")).status_code == 200
        await hub.http.patch(f"/api/v1/people/{person['id']}", json={"role": "member"})
        assert (await http.get("/api/v1/people")).status_code == 403
        assert (await http.get("/api/v1/environments")).status_code == 200


async def test_only_owners_touch_owners_and_one_stays(hub):
    """An admin makes no owner and disables none; the last owner cannot go."""
    await become_owner(hub)
    cookies, _ = await invite(hub, "admin@example.com", role="admin")
    async with browser(hub) as http:
        http.cookies.update(cookies)
        for body in ({"disabled": True}, {"role": "member"}):
            reply = await http.patch("/api/v1/people/owner@example.com", json=body)
            assert reply.status_code == 403
        made = await http.post("/api/v1/people", json={"email": "x@example.com", "role": "owner"})
        assert made.status_code == 403
        assert (await http.post("/api/v1/people/owner@example.com/reset")).status_code == 403
        assert (await http.patch("/api/v1/people/admin@example.com", json={"role": "owner"})).status_code == 403
    last = await hub.http.patch("/api/v1/people/owner@example.com", json={"role": "member"})
    assert (last.status_code, last.json()["error"]["code"]) == (409, "last_owner")


async def test_a_reset_ends_the_old_password_and_sign_ins(hub):
    """The link sets a new password, once; what was signed in is signed out."""
    await become_owner(hub)
    cookies, _ = await invite(hub, "max@example.com")
    link = (await hub.http.post("/api/v1/people/max@example.com/reset")).json()["link"]
    async with browser(hub) as http:
        assert (await http.get("/api/v1/self", cookies=cookies)).status_code == 200
    new = "another battery horse"
    async with browser(hub) as http:
        body = {"token": link.partition("#")[2], "password": new}
        assert (await http.post("/api/v1/links/accept", json=body)).status_code == 200
    async with browser(hub) as http:
        assert (await http.get("/api/v1/self", cookies=cookies)).status_code == 401
    async with browser(hub) as http:
        for password, status in ((PASSWORD, 401), (new, 200)):
            reply = await http.post("/api/v1/sign-in", json={"email": "max@example.com", "password": password})
            assert reply.status_code == status


async def test_changing_the_password_ends_the_other_sign_ins(hub):
    """The browser that changes it stays signed in, the others do not."""
    cookies = await become_owner(hub)
    async with browser(hub) as one, browser(hub) as other:
        one.cookies.update(cookies)
        await other.post("/api/v1/sign-in", json={"email": "owner@example.com", "password": PASSWORD})
        assert len((await one.get("/api/v1/self/sign-ins")).json()["sign_ins"]) == 2
        wrong = await one.post("/api/v1/self/password", json={"current": "no", "new": "another battery horse"})
        assert wrong.status_code == 403
        short = await one.post("/api/v1/self/password", json={"current": PASSWORD, "new": "short"})
        assert short.json()["error"]["code"] == "password_refused"
        changed = await one.post("/api/v1/self/password", json={"current": PASSWORD, "new": "another battery horse"})
        assert changed.status_code == 204
        assert (await one.get("/api/v1/self")).status_code == 200
        assert (await other.get("/api/v1/self")).status_code == 401


@pytest.mark.parametrize("password", ["short", "x" * 257, "aaaaaaaaaaaaaaaaaa", "max.mustermann 1"])
def test_easy_passwords_are_refused(password):
    """Too short, too long, one letter, or the name itself; the twin is a phrase."""
    with pytest.raises(PasswordRefused):
        check_password(password, email="max.mustermann@example.com", name="Max")
    check_password(PASSWORD, email="max.mustermann@example.com", name="Max")


async def test_a_lock_holds_what_comes_at_once(hub):
    """Many wrong passwords in the same moment are looked at no more often than one after the other; two at a time."""
    cookies = await become_owner(hub)
    found: Counter[str] = Counter()

    async def guess(http: httpx2.AsyncClient, path: str, body: dict[str, str]) -> None:
        reply = await http.post(path, json=body)
        found[reply.json()["error"]["code"]] += 1

    async with trio.open_nursery() as nursery:
        for number in range(40):
            body = {"email": "owner@example.com", "password": f"wrong horse battery {number}"}
            nursery.start_soon(guess, hub.http, "/api/v1/sign-in", body)
    assert FREE_TRIES <= found.pop("sign_in_failed") <= FREE_TRIES + 1
    assert set(found) <= {"locked", "too_busy"}
    found.clear()
    async with httpx2.AsyncClient(base_url=hub.url, cookies=cookies, headers={"origin": hub.url}, timeout=30) as http:
        hub.hub.services.lockout.note("owner@example.com", right=True, now_ms=0)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                body = {"current": f"wrong horse battery {number}", "new": PASSWORD}
                nursery.start_soon(guess, http, "/api/v1/self/password", body)
    assert FREE_TRIES <= found.pop("wrong_password") <= FREE_TRIES + 1
    assert set(found) <= {"locked", "too_busy"}


async def test_passwords_are_argon2id_and_nowhere_else(hub):
    """The database holds a hash of the right kind, and neither password, cookie nor link."""
    cookies = await become_owner(hub)
    _, _ = await invite(hub, "max@example.com")
    from sqlalchemy import text

    stored = await hub.hub.services.database.read(
        lambda c: c.execute(text("SELECT password FROM people")).scalars().all()
    )
    assert all(one.startswith("$argon2id$") for one in stored)
    content = hub.store.dump()
    assert b"max@example.com" in content, "the twin: what is no secret is found"
    for secret in (PASSWORD, next(iter(dict(cookies).values())), hub.hub.owner_link.partition("#")[2]):
        assert secret.encode() not in content


async def test_the_command_accepts_a_link(hub):
    """`guardhouse user accept` makes the owner without a browser."""
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [
                sys.executable, "-m", "guardhouse", "user", "accept", hub.hub.owner_link,
                "--email", "ada@example.com", "--password-stdin",
            ],
            input=PASSWORD + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
    )  # fmt: skip
    assert (done.returncode, "ada@example.com is owner" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        pytest.param("203.0.113.9", ["1.1.1.1"], "203.0.113.9", id="not a trusted proxy"),
        pytest.param("10.0.0.1", ["1.1.1.1"], "1.1.1.1", id="one proxy"),
        pytest.param("10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1", id="what the client wrote is ignored"),
        pytest.param("10.0.0.1", ["1.1.1.1", "10.0.0.2"], "1.1.1.1", id="two proxies, two headers"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="no header"),
        pytest.param("10.0.0.1", ["1.1.1.1, nonsense"], "10.0.0.1", id="nonsense"),
        pytest.param("::ffff:10.0.0.1", ["2001:db8::1"], "2001:db8::1", id="mapped and IPv6"),
        pytest.param("10.0.0.1", ["10.0.0.3"], "10.0.0.3", id="only proxies"),
    ],
)
def test_forwarded_addresses(peer, forwarded, address):
    """The right-most address that no trusted proxy has is the client's."""
    assert client_address(peer, forwarded, parse_networks(["10.0.0.0/8"])) == address


def test_bad_networks_are_refused():
    """A network that cannot be meant is named before the hub starts."""
    with pytest.raises(SetupError, match="trusted-proxy"):
        parse_networks(["10.0.0.1/8"])


async def test_a_trusted_proxys_word_is_recorded(start_hub):
    """The audit log has the client's address, not the proxy's."""
    async with start_hub(trusted_proxies=parse_networks(["127.0.0.1"])) as hub:
        await hub.http.post("/api/v1/teams", json={"name": "t"}, headers={"x-forwarded-for": "6.6.6.6, 192.0.2.7"})
        event = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]
        assert event["address"] == "192.0.2.7"
