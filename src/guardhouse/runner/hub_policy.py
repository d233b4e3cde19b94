"""The hub's policy: taken when it only narrows, held in force next to the local one, kept across restarts.

A local file always wins: what is allowed, both policies must allow, so nothing that a hub sends can widen anything.
That it would permit nothing more by itself either is proved before it is taken, and the hub is told otherwise. It is
kept as a file beside the journal, which the keeper reads when it starts a launcher. Runs in the runner; `hold_stored`
also in the boot process and the keeper.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from guardhouse.errors import SetupError
from guardhouse.limits import POLICY_RULES_MAX
from guardhouse.policy import Policy, PolicyError, restore_policy
from guardhouse.policy.compare import check_narrowing
from guardhouse.policy.gate_one import PROFILES_BY_WIDTH
from guardhouse.runner.logs import get_logger
from guardhouse.wire.messages_v1 import PolicyAnswer, PolicySet

__all__ = ["HubPolicy", "hold_stored"]

_FILE_NAME: Final = "hub_policy.json"
_FILE_MAX_BYTES: Final = 32 * 1024 * 1024


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. ``policy`` is JSON text of a dumped policy."""

    policy_id: str
    digest: str
    policy: str


def hold_stored(local: Policy, directory: Path, *, profile: str) -> Policy:
    """Return ``local`` with the hub's policy next to it that was in force last; unchanged where there was none.

    Args:
        directory: the journal's.
        profile: the default one, which no rule of the hub's may widen.

    Raises:
        SetupError: the file cannot be read. Starting without it would permit what the hub has taken away.
    """
    path = directory / _FILE_NAME
    try:
        content = _read(path)
        if content is None:
            return local
        stored = msgspec.json.decode(content, type=_Stored)
        return replace(local, narrowing=_restore(stored, profile=profile))
    except (OSError, msgspec.DecodeError, RecursionError, PolicyError) as error:
        raise SetupError(
            f"the hub's policy cannot be read from {path}: {error}; it is in force until the hub withdraws it. To start"
            " without it remove the file: the hub sends it again"
        ) from None


def _restore(sent: _Stored, *, profile: str) -> Policy:
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


def _said(policy: Policy, profile: str) -> Policy:
    """Return the policy with the default wall written into every rule that names none, so that walls compare."""
    section = policy.sections.get("bash")
    if section is None:
        return policy
    rules = tuple(rule if rule.profile else replace(rule, profile=profile) for rule in section.rules)
    return replace(policy, sections={**policy.sections, "bash": replace(section, rules=rules)})


class HubPolicy:
    """Takes what the hub says of its policy, one message after the other."""

    def __init__(
        self,
        directory: Path,
        *,
        profile: str,
        local: Callable[[], Policy],
        reload: Callable[[], Awaitable[None]],
        answer: Callable[[PolicyAnswer], None],
    ) -> None:
        """Keep the parts.

        Args:
            directory: the journal's, as for `hold_stored`.
            profile: as there.
            local: returns the policy in force; what narrows it already is left aside.
            reload: makes what the files say the policy in force, all or nothing; raises SetupError when it cannot.
            answer: sends the answer.
        """
        self._path = directory / _FILE_NAME
        self._profile = profile
        self._local = local
        self._reload = reload
        self._answer = answer
        self._order = trio.StrictFIFOLock()

    async def take(self, message: PolicySet) -> None:
        """Put the policy in force, or withdraw the one in force, and say how that went."""
        log = get_logger()
        async with self._order:
            try:
                await self._take(message)
            except SetupError as error:
                log.warning("the hub's policy was refused", policy_id=message.policy_id, error=str(error))
                self._answer(PolicyAnswer(policy_id=message.policy_id, accepted=False, error=str(error)[:4_000]))
                return
        log.info(
            "the hub's policy is withdrawn" if message.policy is None else "the hub's policy is in force",
            policy_id=message.policy_id,
            policy_digest=message.digest[:16],
        )
        self._answer(PolicyAnswer(policy_id=message.policy_id, accepted=True))

    async def _take(self, message: PolicySet) -> None:
        fresh: bytes | None = None
        if message.policy is not None:
            sent = _Stored(message.policy_id, message.digest, message.policy)
            await trio.to_thread.run_sync(self._prove, sent)
            fresh = msgspec.json.encode(sent)
        # Shielded: a change half done would leave a file that says something else than what is in force.
        with trio.CancelScope(shield=True):
            before = await trio.to_thread.run_sync(self._replace, fresh)
            try:
                await self._reload()
            except SetupError:
                await trio.to_thread.run_sync(self._replace, before)
                raise

    def _prove(self, sent: _Stored) -> None:
        try:
            policy = _restore(sent, profile=self._profile)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PolicyError(f"this is no dumped policy: {error}", place="hub policy") from None
        check_narrowing(_said(self._local(), self._profile), _said(policy, self._profile))

    def _replace(self, content: bytes | None) -> bytes | None:
        """Write the file whole, or remove it; return what it held."""
        try:
            before = _read(self._path)
            if content is None:
                self._path.unlink(missing_ok=True)
            else:
                _write(self._path, content)
            _sync_directory(self._path.parent)
        except OSError as error:
            raise SetupError(f"the hub's policy cannot be kept in {self._path}: {error.strerror}") from error
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
