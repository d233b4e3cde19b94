"""A small OpenID Connect provider of real HTTP and real keys, whose every answer a test can bend.

It checks its client as a provider does: secret, redirect address, one use of each code, PKCE. Written by hand, so that
a mistake of the hub's own code cannot hide on both sides.
"""

import base64
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypercorn.config import Config
from hypercorn.trio import serve

CLIENT_ID = "guardhouse-hub"
CLIENT_SECRET = "s3cret/with:odd chars"


@dataclass(frozen=True)
class SigningKey:
    id: str
    algorithm: str
    private: Any

    def public_jwk(self) -> dict[str, Any]:
        made = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        return {**made, "kid": self.id, "use": "sig", "alg": self.algorithm}


@cache
def rsa_key(key_id: str = "rsa-1") -> SigningKey:
    return SigningKey(key_id, "RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048))


@cache
def ec_key(key_id: str = "ec-1") -> SigningKey:
    return SigningKey(key_id, "ES256", ec.generate_private_key(ec.SECP256R1()))


@dataclass
class OidcProvider:
    """``claims`` are laid over an ID token's; ``sign`` and ``answers`` take the place of what it would say."""

    issuer: str
    keys: list[SigningKey]
    user: dict[str, Any] = field(default_factory=dict)
    # What is told at the userinfo endpoint and in no ID token, as the specification has it; None: no such endpoint.
    userinfo: dict[str, Any] | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    callback: dict[str, str | None] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    sign: Callable[[dict[str, Any]], str] | None = None
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def token(self, claims: dict[str, Any], *, key: SigningKey | None = None, **header: Any) -> str:
        key = key or self.keys[0]
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.id, **header})

    def access_token(self, **claims: Any) -> str:
        now = int(time.time())
        return self.token({"iss": self.issuer, "exp": now + 300, "iat": now, **claims}, typ="at+jwt")

    def _document(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **({"userinfo_endpoint": f"{self.issuer}/userinfo"} if self.userinfo is not None else {}),
        } | self.metadata

    def _authorize(self, query: dict[str, str]) -> dict[str, str]:
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        answer: dict[str, str | None] = {"code": code, "state": query["state"], "iss": self.issuer} | self.callback
        return {name: value for name, value in answer.items() if value is not None}

    def _exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        sent = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        expected = urlencode({"": CLIENT_ID})[1:] + ":" + urlencode({"": CLIENT_SECRET})[1:]
        began = self.codes.pop(form.get("code", ""), None)
        if sent != expected or began is None or form["redirect_uri"] != began["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
        if challenge.rstrip("=") != began["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = (
            {
                "iss": self.issuer,
                "aud": CLIENT_ID,
                "sub": "alice",
                "iat": now,
                "exp": now + 300,
                "nonce": began["nonce"],
            }
            | self.user
            | self.claims
        )
        claims = {name: value for name, value in claims.items() if value is not None}
        return 200, {"id_token": self.sign(claims) if self.sign else self.token(claims), "access_token": "x"}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, query = scope["path"], {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        self.asked.append(path)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        extra: list[tuple[bytes, bytes]] = []
        status, content = 200, b""
        if path in self.answers:
            status, content = self.answers[path]
        elif path == "/.well-known/openid-configuration":
            content = json.dumps(self._document()).encode()
        elif path == "/jwks":
            content = json.dumps({"keys": [key.public_jwk() for key in self.keys]}).encode()
        elif path == "/authorize":
            status = 302
            extra.append((b"location", f"{query['redirect_uri']}?{urlencode(self._authorize(query))}".encode()))
        elif path == "/token":
            form = {k: v[0] for k, v in parse_qs(body.decode()).items()}
            status, answer = self._exchange(form, headers.get("authorization", ""))
            content = json.dumps(answer).encode()
        elif path == "/userinfo" and self.userinfo is not None and headers.get("authorization") == "Bearer x":
            content = json.dumps(self.userinfo).encode()
        else:
            status = 404
        await send({"type": "http.response.start", "status": status, "headers": extra})
        await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def run_provider() -> AsyncIterator[OidcProvider]:
    """Serve a provider with an RSA and an elliptic key on loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = Config()
    # The server closes it.
    config.bind = [f"fd://{listening.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0
    provider = OidcProvider(f"http://127.0.0.1:{port}", [rsa_key(), ec_key()])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, provider, config)
        yield provider
        nursery.cancel_scope.cancel()
