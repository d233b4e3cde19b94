"""How a runner proves that it holds its key: the texts that are signed, and how key and proof are written down.

docs/decisions says why. Both sides make the same bytes here; signing and verifying are theirs. Pure. Runs in the
runner, in the hub and in `guardhouse join`.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["KEY_PREFIX", "SCHEME", "KeyProof", "connect_text", "format_key", "join_text", "parse_key", "parse_proof"]

SCHEME: Final = "Guardhouse-Key"
"""The authentication scheme (RFC 9110, 11.1) of the upgrade request, and of the challenge that answers it."""
KEY_PREFIX: Final = "ghk_"
_KEY: Final = re.compile(r"ghk_(env_[a-z2-7]{8,36})_([0-9a-f]{64})")
_FIELDS: Final = re.compile(
    r'environment="(env_[a-z2-7]{8,36})"(?:, *challenge="([A-Za-z0-9_-]{16,256})", *signature="([0-9a-f]{128})")?'
)


@dataclass(frozen=True)
class KeyProof:
    """What a runner sends: who it is and, in answer to a challenge, the Ed25519 signature (64 bytes)."""

    environment_id: str
    challenge: str | None = None
    signature: bytes | None = None

    def __str__(self) -> str:
        """Return the value of the Authorization header."""
        head = f'{SCHEME} environment="{self.environment_id}"'
        if self.challenge is None or self.signature is None:
            return head
        return f'{head}, challenge="{self.challenge}", signature="{self.signature.hex()}"'


def parse_proof(credentials: str) -> KeyProof | None:
    """Return what follows the scheme in an Authorization header, None where it is no proof."""
    found = _FIELDS.fullmatch(credentials.strip())
    if found is None:
        return None
    return KeyProof(found[1], found[2], bytes.fromhex(found[3]) if found[3] else None)


def connect_text(*, environment_id: str, host: str, challenge: str) -> bytes:
    """Return what is signed at each connection. ``host`` as the runner dials it, so that nobody passes a proof on."""
    return b"\0".join([b"guardhouse connect v1", environment_id.encode(), host.lower().encode(), challenge.encode()])


def join_text(*, token: str, public_key: bytes) -> bytes:
    """Return what is signed when a join token is swapped: whoever sends a public key holds the private one."""
    return b"\0".join([b"guardhouse join v1", hashlib.sha256(token.encode()).digest(), public_key])


def format_key(environment_id: str, seed: bytes) -> str:
    """Return a runner's key as one word, for the file that a token would be in."""
    return f"{KEY_PREFIX}{environment_id}_{seed.hex()}"


def parse_key(text: str) -> tuple[str, bytes] | None:
    """Return environment and Ed25519 seed (32 bytes) of a key's word, None where it is none."""
    found = _KEY.fullmatch(text)
    return (found[1], bytes.fromhex(found[2])) if found is not None else None
