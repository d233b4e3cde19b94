"""The hub's policies: taken when they only narrow, held in force next to the local one, proved anew when that changes.

A local file always wins: what is allowed, all of them must allow, so nothing that a hub sends can widen anything. That
each would permit nothing more by itself either is proved before it is taken, and the hub is told otherwise. One that
is no longer proved, because the local policy has changed, still holds: to drop it would permit what the hub has taken
away. The hub is told so. Runs in the runner.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import trio

from guardhouse.errors import SetupError
from guardhouse.limits import WIRE_TEXT_MAX_CHARS
from guardhouse.policy import Policy, PolicyError
from guardhouse.policy.compare import check_narrowing
from guardhouse.runner.hub_policy_files import StoredPolicy, read_stored, replace_stored, restore_stored
from guardhouse.runner.logs import get_logger
from guardhouse.wire.messages_v1 import HubPolicyHeld, PolicyAnswer, PolicySet

__all__ = ["HubPolicy", "NarrowingProofs"]

_ERROR_MAX_CHARS = 4_000


class NarrowingProofs:
    """Proves that policies of the hub permit nothing beyond the local one; what was proved is not proved twice."""

    def __init__(self, directory: Path, *, profile: str) -> None:
        """``directory`` is the journal's, ``profile`` the default one, which no rule of the hub's may widen."""
        self._directory = directory
        self._profile = profile
        self._proved: tuple[str, set[str]] = ("", set())

    def check(self, local: Policy, sent: Policy) -> None:
        """Let a policy pass that permits nothing beyond ``local``; what narrows that already is left aside.

        Raises:
            PolicyError: it permits more, with an example; or the comparison could not finish.
        """
        if self._proved[0] != local.digest:
            self._proved = (local.digest, set())
        if sent.digest not in self._proved[1]:
            check_narrowing(_said(local, self._profile), _said(sent, self._profile))
            self._proved[1].add(sent.digest)

    def held(self, policy: Policy) -> tuple[HubPolicyHeld, ...]:
        """Return what of the hub's is in force next to ``policy``, each with why it is no longer proved, if so.

        Raises:
            SetupError: a file cannot be read any more.
        """
        in_force = {(layer.name, layer.digest) for layer in policy.layers[1:]}
        found = []
        for layer, stored, sent in read_stored(self._directory, profile=self._profile):
            if (stored.policy_id, stored.digest) not in in_force:
                # It is on its way: the reload that puts it in force reports it.
                continue
            unproved = ""
            try:
                self.check(policy, sent)
            except PolicyError as error:
                unproved = f"no longer proved to narrow this host's own policy, and held all the same: {error}"
                get_logger().warning("a policy of the hub's is no longer proved; it still holds", error=str(error))
            found.append(
                HubPolicyHeld(
                    layer=layer,
                    policy_id=stored.policy_id,
                    digest=stored.digest,
                    unproved=unproved[: min(_ERROR_MAX_CHARS, WIRE_TEXT_MAX_CHARS)],
                )
            )
        return tuple(found)


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
        proofs: NarrowingProofs,
        local: Callable[[], Policy],
        reload: Callable[[], Awaitable[None]],
        answer: Callable[[PolicyAnswer], None],
    ) -> None:
        """Keep the parts.

        Args:
            directory: the journal's, as for `hub_policy_files.hold_stored`.
            profile: as there.
            proofs: what was proved already.
            local: returns the policy in force; what narrows it already is left aside.
            reload: makes what the files say the policy in force, all or nothing; raises SetupError when it cannot.
            answer: sends the answer.
        """
        self._directory = directory
        self._profile = profile
        self._proofs = proofs
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
                log.warning(
                    "the hub's policy was refused",
                    policy_id=message.policy_id,
                    policy_layer=message.layer,
                    error=str(error),
                )
                self._answer(
                    PolicyAnswer(
                        policy_id=message.policy_id,
                        accepted=False,
                        error=str(error)[:_ERROR_MAX_CHARS],
                        layer=message.layer,
                    )
                )
                return
        log.info(
            "the hub's policy is withdrawn" if message.policy is None else "the hub's policy is in force",
            policy_id=message.policy_id,
            policy_layer=message.layer,
            policy_digest=message.digest[:16],
        )
        self._answer(PolicyAnswer(policy_id=message.policy_id, accepted=True, layer=message.layer))

    async def _take(self, message: PolicySet) -> None:
        fresh: bytes | None = None
        if message.policy is not None:
            sent = StoredPolicy(message.policy_id, message.digest, message.policy)
            await trio.to_thread.run_sync(self._prove, sent)
            fresh = msgspec.json.encode(sent)
        # Shielded: a change half done would leave a file that says something else than what is in force.
        with trio.CancelScope(shield=True):
            before = await trio.to_thread.run_sync(replace_stored, self._directory, message.layer, fresh)
            try:
                await self._reload()
            except SetupError:
                await trio.to_thread.run_sync(replace_stored, self._directory, message.layer, before)
                raise

    def _prove(self, sent: StoredPolicy) -> None:
        try:
            policy = restore_stored(sent, profile=self._profile)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PolicyError(f"this is no dumped policy: {error}", place="hub policy") from None
        self._proofs.check(self._local(), policy)
