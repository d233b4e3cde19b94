"""Signing a terminal in: a code that a signed-in person approves, a token that its terminal collects once.

Each thing that must not work stands beside the same thing done right.
"""

import httpx2
import pytest
import trio
from tests.hub.support import PASSWORD, become_owner, invite

from guardhouse.hub.people.devices import DEVICE_SIGN_IN_VALID_MS, DeviceSignIns, DeviceSignInUnknown

OURS = {"sec-fetch-site": "same-origin"}


def browser(hub, cookies=None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=hub.url, cookies=cookies, headers=OURS, timeout=30)


async def begin(hub, **more) -> dict:
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
        reply = await http.post("/api/v1/device-sign-ins", json={"name": "login max@laptop", **more})
    assert reply.status_code == 201, reply.text
    return reply.json()


async def collect(hub, device_code: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
        return await http.post("/api/v1/device-token", json={"device_code": device_code})


async def who(hub, secret: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=hub.url, headers={"authorization": f"Bearer {secret}"}) as http:
        return await http.get("/api/v1/self")


async def test_a_terminal_gets_its_token_once_when_somebody_approves(hub):
    """Before: nothing. After: a token of that person's own, once; it ends itself; every step is in the audit log."""
    owner = await become_owner(hub)
    begun = await begin(hub, expires_in_s=600)
    assert begun["verification_uri"] == f"{hub.url}/device"
    assert (await collect(hub, begun["device_code"])).status_code == 202
    async with browser(hub, owner) as http:
        typed = begun["user_code"].replace("-", " ").lower()
        shown = (await http.get(f"/api/v1/device-sign-ins/{typed}")).json()
        assert (shown["name"], shown["address"], shown["token_life_s"]) == ("login max@laptop", "127.0.0.1", 600)
        answers: list[int] = []

        async def approve() -> None:
            answers.append((await http.post(f"/api/v1/device-sign-ins/{typed}/approve")).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(approve)
        await approve()
        assert sorted(answers) == [204, *[404] * 6]
    made = await collect(hub, begun["device_code"])
    assert made.status_code == 201, made.text
    assert made.json()["token"]["scopes"] == ["admin"]
    assert (await collect(hub, begun["device_code"])).status_code == 401
    secret, token_id = made.json()["secret"], made.json()["token"]["id"]
    self = (await who(hub, secret)).json()
    assert (self["email"], self["kind"], self["id"]) == ("owner@example.com", "token", token_id)
    async with httpx2.AsyncClient(base_url=hub.url, headers={"authorization": f"Bearer {secret}"}) as http:
        assert (await http.delete("/api/v1/self/token")).status_code == 204
    assert (await who(hub, secret)).status_code == 401
    async with browser(hub, owner) as http:
        assert (await http.delete("/api/v1/self/token")).status_code == 400
    events = (await hub.http.get("/api/v1/audit", params={"limit": 50})).json()["events"]
    of_it = [(one["action"], one["actor"]) for one in events if token_id in str(one) or "device" in one["action"]]
    person = next(one["person_id"] for one in [made.json()["token"]])
    assert of_it == [("token.revoke", token_id), ("token.create", person), ("device.approve", person)]
    assert secret not in str(events)
    assert begun["device_code"] not in str(events)


async def test_who_may_not_approve(hub):
    """No token, nobody unknown, no other site's page, and nobody what they may not do themselves; a no is final."""
    await become_owner(hub)
    member, _ = await invite(hub, "member@example.com")
    begun = await begin(hub, scopes=["admin"])
    path = f"/api/v1/device-sign-ins/{begun['user_code']}"
    token = await hub.http.post(f"{path}/approve")
    assert (token.status_code, token.json()["error"]["code"]) == (403, "not_signed_in")
    assert (await hub.http.get(path)).status_code == 403
    async with browser(hub) as http:
        assert (await http.post(f"{path}/approve")).status_code == 401
    async with browser(hub, member) as http:
        elsewhere = {"sec-fetch-site": "cross-site"}
        assert (await http.post(f"{path}/approve", headers=elsewhere)).json()["error"]["code"] == "cross_site"
        lacking = await http.post(f"{path}/approve")
        assert (lacking.status_code, lacking.json()["error"]["code"]) == (403, "access_denied")
        assert (await http.post("/api/v1/device-sign-ins/BBBB-BBBB/approve")).status_code == 404
        assert (await collect(hub, begun["device_code"])).status_code == 202
        assert (await http.post(f"{path}/deny")).status_code == 204
        refused = await collect(hub, begun["device_code"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "device_denied")
        # The twin: what a member may do, a member approves, and gets no more than that.
        begun = await begin(hub)
        assert (await http.post(f"/api/v1/device-sign-ins/{begun['user_code']}/approve")).status_code == 204
    made = (await collect(hub, begun["device_code"])).json()
    assert "admin" not in made["token"]["scopes"]
    async with httpx2.AsyncClient(base_url=hub.url, headers={"authorization": f"Bearer {made['secret']}"}) as http:
        assert (await http.get("/api/v1/environments")).status_code == 200
        assert (await http.get("/api/v1/audit")).status_code == 403


async def test_whoever_was_disabled_meanwhile_gets_nothing(hub):
    """Between the yes and the terminal's question, and after it."""
    await become_owner(hub)
    member, person = await invite(hub, "member@example.com")
    begun, early = await begin(hub), await begin(hub)
    async with browser(hub, member) as http:
        for one in (begun, early):
            assert (await http.post(f"/api/v1/device-sign-ins/{one['user_code']}/approve")).status_code == 204
    secret = (await collect(hub, early["device_code"])).json()["secret"]
    assert (await who(hub, secret)).status_code == 200
    await hub.http.patch(f"/api/v1/people/{person['id']}", json={"disabled": True})
    assert (await who(hub, secret)).status_code == 401
    assert (await collect(hub, begun["device_code"])).json()["error"]["code"] == "device_denied"


async def test_address_and_password_are_swapped_for_a_token(hub):
    """Without a browser; a wrong password counts as one, and gives nothing."""
    await become_owner(hub)
    await invite(hub, "member@example.com")
    body = {"email": "Member@example.com", "password": PASSWORD, "name": "login", "scopes": ["env:read"]}
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
        made = await http.post("/api/v1/sign-in/token", json=body)
        assert (made.status_code, made.json()["token"]["scopes"]) == (201, ["env:read"])
        assert "set-cookie" not in made.headers
        assert (await who(hub, made.json()["secret"])).json()["email"] == "member@example.com"
        wider = await http.post("/api/v1/sign-in/token", json=body | {"scopes": ["admin"]})
        assert wider.status_code == 403
        for _ in range(5):
            wrong = await http.post("/api/v1/sign-in/token", json=body | {"password": "x"})
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "sign_in_failed")
        locked = await http.post("/api/v1/sign-in/token", json=body)
        assert (locked.status_code, locked.json()["error"]["code"]) == (429, "locked")


async def test_guessing_codes_is_throttled_and_room_is_bounded(hub):
    """A signed-in person who tries codes is stopped like any other guesser; one source cannot fill the hub's memory."""
    owner = await become_owner(hub)
    async with browser(hub, owner) as http:
        statuses = [(await http.get(f"/api/v1/device-sign-ins/{number:08}")).status_code for number in range(110)]
    assert statuses[:90] == [404] * 90
    assert statuses[-1] == 429
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
        for _ in range(20):
            assert (await http.post("/api/v1/device-sign-ins", json={"name": "x"})).status_code == 201
        full = await http.post("/api/v1/device-sign-ins", json={"name": "x"})
    assert (full.status_code, full.json()["error"]["code"]) == (429, "too_many_devices")
    assert full.headers["retry-after"]


async def test_the_page_runs_its_own_script_only(hub):
    """One policy, that names script and style by their hash, and nothing of other pages'."""
    reply = await hub.http.get("/device")
    policies = reply.headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert "script-src 'sha256-" in policies[0]
    assert "unsafe" not in policies[0]
    assert reply.headers["x-frame-options"] == "DENY"
    assert (await hub.http.get("/")).headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ]
    for markup in ("innerHTML", "insertAdjacent", "document.write", "eval("):
        assert markup not in reply.text


def test_a_code_is_over_after_ten_minutes():
    """For the person and for the terminal, and a later one finds room again."""
    waiting = DeviceSignIns()
    asked = {"name": "x", "scopes": None, "token_life_ms": 1, "source": "192.0.2.1", "address": "192.0.2.1"}
    made, secret = waiting.begin(**asked, now_ms=0)
    end_ms = DEVICE_SIGN_IN_VALID_MS
    assert waiting.find(made.user_code, now_ms=end_ms - 1) == made
    assert waiting.collect(secret, now_ms=end_ms - 1) == made
    for call in (lambda: waiting.find(made.user_code, now_ms=end_ms), lambda: waiting.collect(secret, now_ms=end_ms)):
        try:
            call()
        except DeviceSignInUnknown:
            continue
        raise AssertionError("it was still there")
    for _ in range(20):
        waiting.begin(**asked, now_ms=end_ms)


def test_one_answer_at_a_time():
    """Nobody else finds a terminal while an answer is recorded; left by an error, it waits again; over, it is gone."""
    waiting = DeviceSignIns()
    asked = {"name": "x", "scopes": None, "token_life_ms": 1, "source": "192.0.2.1", "address": "192.0.2.1"}
    made, secret = waiting.begin(**asked, now_ms=0)

    def fail() -> None:
        with waiting.answering(made.user_code, now_ms=1):
            with pytest.raises(DeviceSignInUnknown):
                waiting.find(made.user_code, now_ms=1)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    with waiting.answering(made.user_code, now_ms=2) as held:
        waiting.answer(held, person_id="usr_1")
    with pytest.raises(DeviceSignInUnknown):
        waiting.find(made.user_code, now_ms=3)
    assert waiting.collect(secret, now_ms=3).person_id == "usr_1"
    late, _ = waiting.begin(**asked, now_ms=0)
    with waiting.answering(late.user_code, now_ms=1) as held:
        waiting.begin(**asked, now_ms=DEVICE_SIGN_IN_VALID_MS)
        with pytest.raises(DeviceSignInUnknown, match="over"):
            waiting.answer(held, person_id="usr_1")
    with pytest.raises(DeviceSignInUnknown):
        waiting.find(late.user_code, now_ms=1)
