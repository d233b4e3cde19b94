"""Signatures on policies: Ed25519 over the digest of what a policy says, in a small JSON file beside it.

The digest covers the resolved policy (every include, no comments or spacing), so a signature survives reformatting
and breaks with any change of meaning. Signed is a text with a name of its own in front, so that the signature is
good for nothing else. A runner that is pinned to keys takes no policy without a signature by one of them.

Keys are PEM files made with `guardhouse policy keygen` or openssl. Reads no file itself. Pure.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from guardhouse.policy.model import Policy, PolicyError

__all__ = ["generate_keys", "key_id", "parse_public_key", "sign_policy", "verify_policy"]

_PURPOSE: Final = b"guardhouse policy signature v1\0"
_ALGORITHM: Final = "ed25519"
_SIGNATURE_FILE_MAX_CHARS: Final = 4_096


def generate_keys() -> tuple[str, str]:
    """Return a new private and its public key, both PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode("ascii"), public.decode("ascii")


def parse_public_key(pem: str, *, name: str) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        PolicyError: it is no Ed25519 public key in PEM.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PolicyError(f"no public key in PEM: {error}", place=name) from None
    if not isinstance(key, Ed25519PublicKey):
        raise PolicyError("the key is not an Ed25519 key; make one with 'guardhouse policy keygen'", place=name)
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Return a short name of a key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def sign_policy(policy: Policy, private_key_pem: str, *, name: str) -> str:
    """Return the signature file's text.

    Raises:
        PolicyError: the key is no unencrypted Ed25519 private key in PEM; ``name`` is its place in the message.
    """
    try:
        key = load_pem_private_key(private_key_pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PolicyError(f"no private key in PEM: {error}", place=name) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise PolicyError("the key is not an Ed25519 key; make one with 'guardhouse policy keygen'", place=name)
    signature = key.sign(_PURPOSE + bytes.fromhex(policy.digest))
    record = {
        "algorithm": _ALGORITHM,
        "digest": policy.digest,
        "key_id": key_id(key.public_key()),
        "signature": base64.b64encode(signature).decode("ascii"),
    }
    return json.dumps(record, indent=2) + "\n"


def verify_policy(policy: Policy, signature_text: str, keys: Iterable[Ed25519PublicKey], *, name: str) -> str:
    """Check that one of ``keys`` signed this very policy, and return that key's id.

    Raises:
        PolicyError: the signature is malformed, of another policy, by another key, or false.
    """
    try:
        if len(signature_text) > _SIGNATURE_FILE_MAX_CHARS:
            raise ValueError("too long")
        record = json.loads(signature_text)
        algorithm, signer, digest = record["algorithm"], record["key_id"], record["digest"]
        signature = base64.b64decode(record["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PolicyError(f"no signature file of ours: {error!r}", place=name) from None
    if algorithm != _ALGORITHM:
        raise PolicyError(f"the signature is of the kind {algorithm!r}; only {_ALGORITHM} is known", place=name)
    if digest != policy.digest:
        raise PolicyError(
            f"the signature is of another policy: it covers sha256 {digest!r}, this policy is {policy.digest}; sign it"
            " again after a change",
            place=name,
        )
    known = {key_id(key): key for key in keys}
    key = known.get(signer) if isinstance(signer, str) else None
    if key is None:
        raise PolicyError(f"signed by the key {signer!r}, which is none of {sorted(known)}", place=name)
    try:
        key.verify(signature, _PURPOSE + bytes.fromhex(policy.digest))
    except InvalidSignature:
        raise PolicyError(f"the signature by the key {signer} is false", place=name) from None
    return str(signer)
