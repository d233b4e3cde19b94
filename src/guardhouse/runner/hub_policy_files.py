"""The hub's policies as files beside the journal, one for each layer, so that they hold across restarts.

The keeper reads them when it starts a launcher. Knows no message and no proof. Runs in the runner, the boot process
and the keeper.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from guardhouse.errors import SetupError
from guardhouse.limits import POLICY_RULES_MAX
from guardhouse.policy import Policy, PolicyError, restore_policy
from guardhouse.policy.gate_one import PROFILES_BY_WIDTH
from guardhouse.policy.narrowing import chain
from guardhouse.wire.messages_v1 import PolicyLayer

__all__ = ["StoredPolicy", "hold_stored", "read_stored", "replace_stored", "restore_stored", "stored_path"]

# In the order in which they are asked, the widest first.
_FILE_NAMES: Final = {
    PolicyLayer.ACCOUNT: "hub_policy_account.json",
    PolicyLayer.TEAM: "hub_policy_team.json",
    PolicyLayer.ENVIRONMENT: "hub_policy.json",
}
_FILE_MAX_BYTES: Final = 32 * 1024 * 1024


class StoredPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file. ``policy`` is JSON text of a dumped policy."""

    policy_id: str
    digest: str
    policy: str


def stored_path(directory: Path, layer: PolicyLayer) -> Path:
    """Return the file of one layer; ``directory`` is the journal's."""
    return directory / _FILE_NAMES[layer]


def hold_stored(local: Policy, directory: Path, *, profile: str) -> Policy:
    """Return ``local`` with the hub's policies next to it that were in force last; unchanged where there was none.

    Args:
        directory: the journal's.
        profile: the default one, which no rule of the hub's may widen.

    Raises:
        SetupError: a file cannot be read. Starting without it would permit what the hub has taken away.
    """
    held = [policy for _, _, policy in read_stored(directory, profile=profile)]
    return chain(local, held) if held else local


def read_stored(directory: Path, *, profile: str) -> Iterator[tuple[PolicyLayer, StoredPolicy, Policy]]:
    """Yield every layer that has a policy, the widest first.

    Raises:
        SetupError: a file cannot be read.
    """
    for layer in _FILE_NAMES:
        path = stored_path(directory, layer)
        try:
            content = _read(path)
            if content is None:
                continue
            stored = msgspec.json.decode(content, type=StoredPolicy)
            policy = restore_stored(stored, profile=profile)
        except (OSError, msgspec.DecodeError, RecursionError, PolicyError) as error:
            raise SetupError(
                f"the hub's policy cannot be read from {path}: {error}; it is in force until the hub withdraws it."
                " To start without it remove the file: the hub sends it again"
            ) from None
        yield layer, stored, policy


def restore_stored(sent: StoredPolicy, *, profile: str) -> Policy:
    """Build the policy, named by its id.

    Raises:
        PolicyError: it is not what was signed for by its digest, or asks for something that it may not.
    """
    data: Any = msgspec.json.decode(sent.policy)
    if not isinstance(data, dict) or data.keys() & {"narrowing", "shadow"}:
        raise PolicyError("this is not one dumped policy", place="hub policy")
    policy = replace(restore_policy(data), name=sent.policy_id)
    if policy.digest != sent.digest:
        raise PolicyError(f"its digest is {policy.digest}, not {sent.digest}", place="hub policy")
    rules = [rule for section in policy.sections.values() for rule in section.rules]
    if len(rules) > POLICY_RULES_MAX:
        raise PolicyError(f"{len(rules)} rules, at most {POLICY_RULES_MAX} are taken", place="hub policy")
    allowed = _profiles_up_to(profile)
    for rule in rules:
        if rule.profile is not None and rule.profile not in allowed:
            raise PolicyError(
                f"profile {rule.profile!r} is none that a hub may ask for here ({', '.join(allowed)})", place=rule.place
            )
    return policy


def _profiles_up_to(profile: str) -> tuple[str, ...]:
    """The shipped profiles that are no wider than the runner's own; of an operator's profile only that itself."""
    if profile not in PROFILES_BY_WIDTH:
        return (profile,)
    return PROFILES_BY_WIDTH[: PROFILES_BY_WIDTH.index(profile) + 1]


def replace_stored(directory: Path, layer: PolicyLayer, content: bytes | None) -> bytes | None:
    """Write a layer's file whole, or remove it; return what it held.

    Raises:
        SetupError: it cannot be kept.
    """
    path = stored_path(directory, layer)
    try:
        before = _read(path)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, content)
        _sync_directory(directory)
    except OSError as error:
        raise SetupError(f"the hub's policy cannot be kept in {path}: {error.strerror}") from error
    return before


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        content = file.read(_FILE_MAX_BYTES + 1)
    if len(content) > _FILE_MAX_BYTES:
        raise OSError(f"larger than {_FILE_MAX_BYTES} bytes")
    return content


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
