"""A runner's key in place of a token: it never leaves this host; each connection signs the hub's challenge with it.

Runs in the runner.
"""

import re
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guardhouse.errors import InvariantError
from guardhouse.runner.config import ConfigError
from guardhouse.runner.credential import Token
from guardhouse.wire.proof import KEY_PREFIX, SCHEME, KeyProof, connect_text, parse_key

__all__ = ["RunnerKey", "check_key", "find_challenge", "is_key"]

_CHALLENGE: Final = re.compile(rb"(?i:" + SCHEME.encode() + rb')\s+challenge="([A-Za-z0-9_-]{16,256})"')


def is_key(token: Token) -> bool:
    """Return whether what stands in the token's place is a key. It must then never be sent anywhere."""
    return token.reveal().startswith(KEY_PREFIX)


def check_key(token: Token) -> None:
    """Refuse what begins like a key and is none, before anything is dialled.

    Raises:
        ConfigError: it is cut or was changed.
    """
    if is_key(token) and parse_key(token.reveal()) is None:
        raise ConfigError("the runner's key is not whole; make another with 'guardhouse join'")


class RunnerKey:
    """The key; ``environment_id`` is whose it is."""

    def __init__(self, token: Token) -> None:
        """``token`` was checked by `check_key`."""
        found = parse_key(token.reveal())
        if found is None:
            raise InvariantError("a key was used that was not checked")
        self.environment_id, seed = found
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    def prove(self, challenge: str | None, *, host: str) -> str:
        """Return the Authorization header: without a challenge it asks for one."""
        if challenge is None:
            return str(KeyProof(self.environment_id))
        text = connect_text(environment_id=self.environment_id, host=host, challenge=challenge)
        return str(KeyProof(self.environment_id, challenge, self._private.sign(text)))


def find_challenge(authenticate: bytes) -> str | None:
    """Return the challenge in a WWW-Authenticate header, or None."""
    found = _CHALLENGE.search(authenticate)
    return found[1].decode("ascii") if found is not None else None
