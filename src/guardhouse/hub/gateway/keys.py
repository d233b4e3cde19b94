"""Runners' keys: the challenges that they sign at each connection, and whether a signature is theirs.

A challenge is worth something to this process only, for half a minute, for one environment, once. The hub keeps nothing
for one that it gives out, so asking for many costs it nothing. Knows no HTTP and no store. Runs in the hub.
"""

import base64
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from guardhouse.wire.proof import KeyProof, connect_text

__all__ = ["Challenges", "host_of", "is_signed_by"]

VALID_MS: Final = 30_000
_RANDOM_BYTES: Final = 16
_TIME_BYTES: Final = 8
_MAC_BYTES: Final = 32


class Challenges:
    """Gives challenges and takes each back once. Only a right signature makes it remember anything."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._used: OrderedDict[str, int] = OrderedDict()

    def make(self, environment_id: str, *, now_ms: int) -> str:
        """Return a new challenge for one environment."""
        body = (now_ms + VALID_MS).to_bytes(_TIME_BYTES, "big") + secrets.token_bytes(_RANDOM_BYTES)
        return base64.urlsafe_b64encode(body + self._mac(body, environment_id)).decode().rstrip("=")

    def is_open(self, challenge: str, environment_id: str, *, now_ms: int) -> bool:
        """Return whether this process gave ``challenge`` to that environment, in time, and it was not used."""
        try:
            data = base64.b64decode(challenge + "=" * (-len(challenge) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return False
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if len(body) != _TIME_BYTES + _RANDOM_BYTES or not hmac.compare_digest(mac, self._mac(body, environment_id)):
            return False
        return now_ms < int.from_bytes(body[:_TIME_BYTES], "big") and body.hex() not in self._used

    def use(self, challenge: str, *, now_ms: int) -> None:
        """Note that a challenge was answered rightly: it is worth nothing from now on."""
        while self._used and next(iter(self._used.values())) <= now_ms:
            self._used.popitem(last=False)
        data = base64.urlsafe_b64decode(challenge + "=" * (-len(challenge) % 4))
        # By what was decoded: base64 has several texts for the same last bits.
        self._used[data[:-_MAC_BYTES].hex()] = now_ms + VALID_MS

    def _mac(self, body: bytes, environment_id: str) -> bytes:
        return hmac.digest(self._key, body + environment_id.encode(), "sha256")


def host_of(public_url: str) -> str:
    """Return the host that a runner signs, as its Host header says it: without the scheme's own port."""
    parts = urlsplit(public_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    own = 443 if parts.scheme == "https" else 80
    return host if parts.port in (None, own) else f"{host}:{parts.port}"


def is_signed_by(public_keys: Iterable[bytes], proof: KeyProof, *, host: str) -> bool:
    """Return whether one of the environment's keys made the signature."""
    if proof.challenge is None or proof.signature is None:
        return False
    text = connect_text(environment_id=proof.environment_id, host=host, challenge=proof.challenge)
    for public_key in public_keys:
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(proof.signature, text)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False
