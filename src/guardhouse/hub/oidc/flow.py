"""A sign-in that is on its way through the provider: what the browser carries meanwhile, and what may come back.

State, nonce and PKCE verifier travel sealed in a cookie of the browser that began, so nobody can make the hub hold
anything by beginning sign-ins, and a callback counts only in that browser. Each works once. Pure but for random
numbers. Runs in the hub.
"""

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import Final
from urllib.parse import urlencode

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from guardhouse.errors import Refusal

__all__ = ["FLOW_VALID_MS", "Flow", "FlowRefused", "Flows", "authorization_url"]

FLOW_VALID_MS: Final = 600_000
COOKIE_MAX_CHARS: Final = 2_048
_NONCE_BYTES: Final = 12
# Finished sign-ins that are remembered until they would be over anyway.
_USED_MAX: Final = 20_000


class FlowRefused(Refusal):
    """What came back belongs to no sign-in that this browser has begun."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in on its way.

    ``person_id`` is who, signed in already, links the provider's identity to themselves; ``to`` is the page of the hub
    that the browser goes to afterwards, by its name.
    """

    state: str
    nonce: str
    verifier: str
    expires_ms: int
    person_id: str | None = None
    to: str | None = None


class Flows:
    """Seals and opens flows under a key of this process; a restart of the hub ends those on their way."""

    def __init__(self) -> None:
        self._cipher = AESGCM(secrets.token_bytes(32))
        self._used: OrderedDict[str, int] = OrderedDict()

    def begin(self, *, now_ms: int, person_id: str | None = None, to: str | None = None) -> tuple[Flow, str]:
        """Return a new flow and the cookie value that carries it."""
        flow = Flow(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            expires_ms=now_ms + FLOW_VALID_MS,
            person_id=person_id,
            to=to,
        )
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.json.encode(flow), b"oidc flow")
        return flow, base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def finish(self, cookie: str | None, *, state: str, now_ms: int) -> Flow:
        """Return the flow that ``cookie`` carries, once, where ``state`` is its own.

        Raises:
            FlowRefused: no cookie, one of another process, another state, too late, or used already.
        """
        flow = self._open(cookie)
        if flow is None or not hmac.compare_digest(flow.state.encode(), state.encode("utf-8", "replace")):
            raise FlowRefused("this browser has begun no such sign-in; begin it anew")
        if flow.expires_ms <= now_ms:
            raise FlowRefused("the sign-in took longer than ten minutes; begin it anew")
        while self._used and next(iter(self._used.values())) <= now_ms:
            self._used.popitem(last=False)
        if flow.state in self._used:
            raise FlowRefused("this sign-in was used already; begin it anew")
        if len(self._used) >= _USED_MAX:
            raise FlowRefused("too many sign-ins at this time; try again in a minute")
        self._used[flow.state] = flow.expires_ms
        return flow

    def _open(self, cookie: str | None) -> Flow | None:
        if cookie is None or len(cookie) > COOKIE_MAX_CHARS:
            return None
        try:
            sealed = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], b"oidc flow")
        except (ValueError, InvalidTag):
            return None
        return msgspec.json.decode(opened, type=Flow)


def authorization_url(endpoint: str, flow: Flow, *, client_id: str, redirect_uri: str, scopes: tuple[str, ...]) -> str:
    """Return where the browser is sent: authorization code with PKCE (RFC 7636), state and nonce."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).decode().rstrip("=")
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": flow.state,
        "nonce": flow.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
