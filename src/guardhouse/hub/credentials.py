"""Tokens and identifiers: how they are made, what is stored of them, and how a sealed one is opened.

docs/decisions/0001-runner-tokens.md says why a runner token is stored twice. Knows nothing of the database.
Runs in the hub.
"""

import base64
import hashlib
import re
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from guardhouse.errors import SetupError

__all__ = [
    "API_TOKEN_PREFIX",
    "DEVICE_PREFIX",
    "JOIN_PREFIX",
    "LINK_PREFIX",
    "RUNNER_TOKEN_PREFIX",
    "SIGN_IN_PREFIX",
    "Sealer",
    "mint_id",
    "mint_token",
    "token_digest",
    "token_hint",
]

RUNNER_TOKEN_PREFIX: Final = "wnt_"  # noqa: S105 - a prefix, no secret
API_TOKEN_PREFIX: Final = "ght_"  # noqa: S105 - a prefix, no secret
SIGN_IN_PREFIX: Final = "ghs_"
LINK_PREFIX: Final = "ghl_"
JOIN_PREFIX: Final = "ghj_"
DEVICE_PREFIX: Final = "ghd_"
# 192 bits: 256-bit hashing and 160 bits at least (SEED_FEATURES S35) leave nothing to guess.
TOKEN_RANDOM_BYTES: Final = 24
# 100 bits, lower case, so that an id survives a DNS label, a file name and a phone call.
ID_RANDOM_BYTES: Final = 12
_NONCE_BYTES: Final = 12

TOKEN_PATTERN: Final = re.compile(r"(?:wnt|ght|ghs|ghl|ghj|ghd)_[0-9a-f]{48}")


def mint_token(prefix: str) -> str:
    """Return a new secret: ``prefix`` and 48 hexadecimal digits, so no shell, URL or header needs to quote it."""
    return prefix + secrets.token_hex(TOKEN_RANDOM_BYTES)


def mint_id(prefix: str) -> str:
    """Return a new identifier such as ``env_k3j…``: not secret, unique for all practical purposes."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(ID_RANDOM_BYTES)).decode().lower().rstrip('=')}"


def token_digest(token: str) -> bytes:
    """Return what is stored of a token. A plain SHA-256 is enough: there is no dictionary of 192-bit secrets."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def token_hint(token: str) -> str:
    """Return the part of a token that people may compare by eye: prefix and last four digits."""
    return f"{token[:4]}…{token[-4:]}"


class Sealer:
    """Encrypts runner tokens at rest with AES-256-GCM under a key that is not in the database."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, token: str, *, owner: str) -> bytes:
        """Return ``token`` sealed to the record ``owner``: it opens nowhere else."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, token.encode(), owner.encode())

    def open(self, sealed: bytes, *, owner: str) -> str:
        """Return the token that `seal` was given.

        Raises:
            SetupError: another key sealed it, it was sealed to another record, or it was changed.
        """
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
        except InvalidTag as error:
            raise SetupError(
                f"the token of {owner} was not sealed with this hub's key; restore sealing.key, or rotate the token"
            ) from error
        return opened.decode()
