"""Which key signs which part of the audit log: changes of the key, and which keys a verifier may believe.

A change is two records. The first (`KEY_CHANGE`) names the old key and the new one, and a checkpoint of the *old* key
stands at that very record; the second is signed by the new key. Pure. Runs in the hub and in `guardhouse audit verify`.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from guardhouse.hub.audit.chain import AuditRecord, key_id_of

__all__ = ["KEY_CHANGE", "KeyChange", "KeyLine", "change_detail", "parse_key_change"]

KEY_CHANGE: Final = "audit_key.rotate"
PUBLIC_KEY_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True)
class KeyChange:
    """What record ``seq`` says: checkpoints up to it are of the key ``old``, those behind it of ``new`` (raw bytes)."""

    seq: int
    old: bytes
    new: bytes


def change_detail(*, old: bytes, new: bytes, was_lost: bool) -> dict[str, Any]:
    """Return what the record of a change has in its detail; `parse_key_change` reads it.

    Args:
        old, new: public keys, 32 raw bytes each.
        was_lost: the old key could not sign for the new one.
    """
    return {
        "old_key_id": key_id_of(old),
        "old_public_key": base64.b64encode(old).decode(),
        "new_key_id": key_id_of(new),
        "new_public_key": base64.b64encode(new).decode(),
        "old_key_lost": was_lost,
    }


def parse_key_change(record: AuditRecord) -> KeyChange | None:
    """Return the change that ``record`` is of; None where it is of none, or names no two keys."""
    if record.action != KEY_CHANGE:
        return None
    try:
        detail = msgspec.json.decode(record.detail.encode(), type=dict[str, Any])
        old, new = (base64.b64decode(detail[name], validate=True) for name in ("old_public_key", "new_public_key"))
    except (msgspec.DecodeError, UnicodeEncodeError, KeyError, TypeError, ValueError):
        return None
    if len(old) != PUBLIC_KEY_BYTES or len(new) != PUBLIC_KEY_BYTES:
        return None
    return KeyChange(seq=record.seq, old=old, new=new)


class KeyLine:
    """The keys of one log in the order in which they signed, and which of them the key that is believed vouches for.

    A key vouches for the next one by its checkpoint at the record of the change, and for those before by any checkpoint
    behind that record, which covers it.
    """

    def __init__(
        self,
        changes: list[KeyChange],
        believed: bytes,
        *,
        is_signed_at: Callable[[int, bytes], bool],
        signs_behind: Callable[[int, bytes], bool],
    ) -> None:
        """Follow ``changes`` from the key ``believed`` on, both ways.

        Args:
            changes: of the records, in their order.
            believed: the key that the verifier was given; 32 raw bytes.
            is_signed_at: whether a checkpoint at that record is this key's and fits the record.
            signs_behind: whether some checkpoint behind that record is this key's and fits the record where it stands.
        """
        keys = [changes[0].old, *(one.new for one in changes)] if changes else [believed]
        self.problems: list[tuple[int, str]] = []
        if believed not in keys:
            changes, keys = [], [believed]
        self.changes = changes
        place = keys.index(believed)
        self._keys: list[bytes | None] = list(keys)
        for index, change in enumerate(changes):
            if change.old != keys[index]:
                text = f"takes the place of {key_id_of(change.old)}, but {key_id_of(keys[index])} signed until then"
                self.problems.append((change.seq, f"the key that record {change.seq} names {text}"))
            elif is_signed_at(change.seq, change.old):
                continue
            else:
                text = f"at record {change.seq} key {key_id_of(change.new)} takes the place of {key_id_of(change.old)}"
                self.problems.append((change.seq, f"{text} without a checkpoint of that one: nobody vouches for it"))
            if index >= place:
                self._forget(slice(index + 1, None))
                break
        if place > 0 and not self._any_signs(signs_behind, place):
            self.problems.append(
                (changes[place - 1].seq, f"nothing is signed with the key {key_id_of(believed)} that is to be believed")
            )
            self._forget(slice(0, place))

    def _any_signs(self, signs_behind: Callable[[int, bytes], bool], place: int) -> bool:
        after = self.changes[place - 1].seq
        return any(signs_behind(after, key) for key in self._keys[place:] if key is not None)

    def _forget(self, which: slice) -> None:
        self._keys[which] = [None] * len(self._keys[which])

    def at(self, seq: int) -> bytes | None:
        """Return the key that a checkpoint at ``seq`` must be of; None where none that is believed may sign there."""
        return self._keys[sum(1 for one in self.changes if one.seq < seq)]
