"""JWT access tokens of the identity provider at the API and at `/mcp`: the hub as an OAuth 2.1 resource server."""

import time
from typing import Any

import httpx2
import jwt
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from tests.hub.test_oidc import ALICE, settings, sign_in
from tests.support.oidc_provider import CLIENT_ID, SigningKey, rsa_key, run_provider


@pytest.fixture
async def provider():
    async with run_provider() as found:
        found.user = dict(ALICE)
        yield found


async def ask(hub: Any, token: str, path: str = "/api/v1/self", **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=hub.url, headers=headers, timeout=30) as http:
        return await http.request(more.pop("method", "GET"), path, **more)


async def test_tokens_for_elsewhere_are_refused(start_hub, provider):
    """Only a token of this provider, for this hub, of somebody known, in time, opens anything."""
    async with start_hub(oidc=settings(provider, access_tokens=True)) as hub:
        good = {"sub": "alice", "aud": hub.url, "scope": "env:read tasks:read elsewhere:all"}
        assert (await ask(hub, provider.access_token(**good))).status_code == 401  # has never signed in
        await sign_in(hub)
        now = int(time.time())
        own = SigningKey(provider.keys[0].id, "RS256", rsa_key("another").private)
        for what, token in {
            "another resource": provider.access_token(**good | {"aud": "https://other.example.com"}),
            "a resource below": provider.access_token(**good | {"aud": f"{hub.url}/api"}),
            "our client id": provider.access_token(**good | {"aud": CLIENT_ID}),
            "no audience": provider.access_token(**{name: good[name] for name in ("sub", "scope")}),
            "another issuer": provider.access_token(**good | {"iss": "https://evil.example.com"}),
            "expired": provider.access_token(**good | {"exp": now - 120}),
            "not yet": provider.access_token(**good | {"nbf": now + 3_600}),
            "somebody unknown": provider.access_token(**good | {"sub": "mallory"}),
            "an ID token": provider.access_token(**good | {"nonce": "x"}),
            "another type": provider.token({"iss": provider.issuer, "exp": now + 60, **good}, typ="logout+jwt"),
            "another key": provider.token({"iss": provider.issuer, "exp": now + 60, **good}, key=own),
            "unsigned": jwt.encode({"iss": provider.issuer, "exp": now + 60, **good}, None, algorithm="none"),
        }.items():
            reply = await ask(hub, token)
            assert reply.status_code == 401, what
            assert reply.headers["www-authenticate"].startswith("Bearer"), what
        for audience in (hub.url, f"{hub.url}/mcp", ["https://other.example.com", hub.url]):
            reply = await ask(hub, provider.access_token(**good | {"aud": audience}))
            assert reply.status_code == 200, reply.text
            assert reply.json()["email"] == "alice@example.com"
            assert reply.json()["scopes"] == ["env:read", "tasks:read"]


async def test_scopes_are_the_least_of_token_and_person(start_hub, provider):
    """A token's scopes open their routes only; ``admin`` in a member's token is no more than the member."""
    async with start_hub(oidc=settings(provider, access_tokens=True)) as hub:
        _, self = await sign_in(hub)
        reader = provider.access_token(sub="alice", aud=hub.url, scp=["env:read"])
        assert (await ask(hub, reader, "/api/v1/environments")).status_code == 200
        assert (await ask(hub, reader, "/api/v1/tasks")).status_code == 403
        admin = provider.access_token(sub="alice", aud=hub.url, scope="admin")
        assert "admin" not in (await ask(hub, admin)).json()["scopes"]
        assert (await ask(hub, admin, "/api/v1/people")).status_code == 403
        none = provider.access_token(sub="alice", aud=hub.url, scope="profile")
        assert (await ask(hub, none, "/api/v1/environments")).status_code == 403
        # It makes no token that would approve what it asked for: that would have another id, and be nobody's own.
        body = {"name": "x", "scopes": ["env:read", "approvals:decide"]}
        assert (await ask(hub, admin, "/api/v1/tokens", method="POST", json=body)).status_code == 403
        # What is made with a short token lives no longer; a disabled person's token ends at once.
        body = {"name": "x", "scopes": ["env:read"]}
        made = await ask(hub, admin, "/api/v1/tokens", method="POST", json=body)
        assert made.json()["token"]["expires_at"] is not None
        await hub.http.patch(f"/api/v1/people/{self['id']}", json={"disabled": True})
        assert (await ask(hub, reader)).status_code == 401


async def test_mcp_is_a_resource_server(start_hub, provider):
    """The 401 leads to metadata that names the provider; who lacks scopes is told which; tools follow scopes."""
    async with start_hub(oidc=settings(provider, access_tokens=True)) as hub:
        await sign_in(hub)
        async with httpx2.AsyncClient(timeout=30) as http:
            refused = await http.post(f"{hub.url}/mcp", json={})
            assert refused.status_code == 401
            where = refused.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
            metadata = (await http.get(where)).json()
            assert metadata["resource"] == f"{hub.url}/mcp"
            assert metadata["authorization_servers"] == [provider.issuer]
            root = (await http.get(f"{hub.url}/.well-known/oauth-protected-resource")).json()
            assert root["resource"] == hub.url
        empty = provider.access_token(sub="alice", aud=f"{hub.url}/mcp", scope="openid")
        forbidden = await ask(hub, empty, "/mcp", method="POST", json={})
        assert forbidden.status_code == 403
        assert 'error="insufficient_scope"' in forbidden.headers["www-authenticate"]
        assert "env:read" in forbidden.headers["www-authenticate"]
        elsewhere = provider.access_token(sub="alice", aud="https://other.example.com/mcp", scope="env:read")
        assert (await ask(hub, elsewhere, "/mcp", method="POST", json={})).status_code == 401
        token = provider.access_token(sub="alice", aud=f"{hub.url}/mcp", scope="env:read")
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30) as http,
            streamable_http_client(f"{hub.url}/mcp", http_client=http) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            assert {tool.name for tool in (await session.list_tools()).tools} == {
                "list_environments",
                "get_environment",
            }
            result = await session.call_tool("list_environments", {})
            assert not result.is_error
            assert (await session.call_tool("run_command", {"environment": "x", "command": "id"})).is_error


async def test_off_by_default(start_hub, provider):
    """A hub that lets people sign in does not thereby take tokens of every client of that provider."""
    async with start_hub(oidc=settings(provider)) as hub:
        await sign_in(hub)
        token = provider.access_token(sub="alice", aud=hub.url, scope="env:read")
        assert (await ask(hub, token)).status_code == 401
        async with httpx2.AsyncClient(timeout=30) as http:
            metadata = (await http.get(f"{hub.url}/.well-known/oauth-protected-resource/mcp")).json()
        assert "authorization_servers" not in metadata
