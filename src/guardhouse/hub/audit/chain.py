"""What one audit record is, byte for byte, how records hang together, and what a checkpoint signs.

A record's bytes are its JSON object with sorted keys, no blanks and no floats (docs/hub.md "Audit"); its hash is the
SHA-256 of the hash before it and those bytes, and the first record's predecessor is 32 zero bytes. Pure.
Runs in the hub and in `guardhouse audit verify`.
"""

import base64
import hashlib
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = [
    "GENESIS",
    "AuditRecord",
    "AuditSigner",
    "Checkpoint",
    "ExportEnd",
    "canonical_json",
    "is_signed_by",
    "key_id_of",
    "link_hash",
    "parse_public_key",
    "signed_bytes",
]

GENESIS: Final = bytes(32)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One deed.

    Attributes:
        seq: 1, 2, 3 … without a gap.
        at_ms: Unix ms of the hub's clock.
        actor: the id of a token or a person, ``runner``, ``hub`` or ``anonymous``.
        target: the id of what it was done to.
        environment, task: ids, where there are such.
        command: the command text that it is about.
        executed: what really ran, one program a line, as the exec gate saw it.
        detail: JSON text in canonical form.
        hash: 32 bytes.
    """

    seq: int
    account_id: str
    at_ms: int
    actor: str
    action: str
    target: str | None
    address: str | None
    environment: str | None
    task: str | None
    command: str | None
    executed: str | None
    detail: str
    hash: bytes

    def body(self, *, seq: int | None = None) -> bytes:
        """Return what is hashed; with another ``seq``, what would be if it stood there."""
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in self.__struct_fields__ if name not in {"hash", "detail"}
        }
        fields["detail"] = msgspec.Raw(self.detail.encode("utf-8", "surrogatepass"))
        if seq is not None:
            fields["seq"] = seq
        return msgspec.json.encode(fields, order="sorted")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's word that the chain stood at ``hash`` after record ``seq``.

    Attributes:
        previous: SHA-256 of the signature of the checkpoint before, in hexadecimal; empty for the first.
        key_id: see `key_id_of`.
    """

    seq: int
    at_ms: int
    hash: bytes
    previous: str
    key_id: str
    signature: bytes = b""

    def signed(self) -> bytes:
        """Return the bytes that the signature is over."""
        return signed_bytes(
            "guardhouse-audit-checkpoint",
            seq=self.seq,
            at_ms=self.at_ms,
            hash=self.hash.hex(),
            previous=self.previous,
            key_id=self.key_id,
        )

    @property
    def digest(self) -> str:
        """What the next checkpoint's ``previous`` is."""
        return hashlib.sha256(self.signature).hexdigest()


class ExportEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of an export: the hub's word for which records the file holds."""

    first_seq: int
    last_seq: int
    at_ms: int
    hash: bytes
    key_id: str
    signature: bytes = b""

    def signed(self) -> bytes:
        """Return the bytes that the signature is over."""
        return signed_bytes(
            "guardhouse-audit-export",
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            at_ms=self.at_ms,
            hash=self.hash.hex(),
            key_id=self.key_id,
        )


def signed_bytes(purpose: str, **values: int | str) -> bytes:
    """Return what is signed: canonical JSON that names its purpose, so that no signature serves for another."""
    return msgspec.json.encode({"purpose": purpose, "version": 1, **values}, order="sorted")


def canonical_json(value: Any) -> str:
    """Return ``value`` as the chain writes it: keys sorted, no blanks, floats as text, text that UTF-8 can hold."""
    return msgspec.json.encode(_plain(value), order="sorted").decode()


def _plain(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case float():
            return repr(value)
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
        case msgspec.Struct():
            return _plain(msgspec.to_builtins(value))
        case _:
            return value


def link_hash(previous: bytes, body: bytes) -> bytes:
    """Return the hash of a record whose predecessor's hash is ``previous``."""
    return hashlib.sha256(previous + body).digest()


def key_id_of(public_key: bytes) -> str:
    """Return the short name of a public key: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def parse_public_key(text: str) -> bytes:
    """Return the 32 raw bytes of a public key as `guardhouse audit key` prints it.

    Raises:
        ValueError: it is none.
    """
    try:
        raw = base64.b64decode(text.strip(), validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise ValueError(f"{text.strip()[:60]!r} is no Ed25519 public key in base64: {error}") from error
    return raw


def is_signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether ``signature`` is this key's over ``message``."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


class AuditSigner:
    """The hub's own key, which signs checkpoints and exports."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = key_id_of(self.public_key)

    @property
    def public_text(self) -> str:
        """The public key in base64: what to keep elsewhere, to verify with."""
        return base64.b64encode(self.public_key).decode()

    def checkpoint(self, *, seq: int, at_ms: int, hash_: bytes, previous: Checkpoint | None) -> Checkpoint:
        """Return a signed checkpoint that follows ``previous``."""
        made = Checkpoint(
            seq=seq, at_ms=at_ms, hash=hash_, previous=previous.digest if previous else "", key_id=self.key_id
        )
        return msgspec.structs.replace(made, signature=self._key.sign(made.signed()))

    def export_end(self, *, first_seq: int, last_seq: int, at_ms: int, hash_: bytes) -> ExportEnd:
        """Return the signed last line of an export."""
        made = ExportEnd(first_seq=first_seq, last_seq=last_seq, at_ms=at_ms, hash=hash_, key_id=self.key_id)
        return msgspec.structs.replace(made, signature=self._key.sign(made.signed()))
