"""What the routes of the hub's policies take and give. Runs in the hub."""

from typing import Annotated, Literal

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Output

__all__ = [
    "POLICY_BODY_MAX_BYTES",
    "EnvironmentPolicyView",
    "HeldPolicy",
    "HeldPolicyList",
    "PolicyPut",
    "PolicyRefusal",
    "PolicyStates",
    "SharedPolicyView",
]

# The dumped form travels in one message to the runner; a policy of thousands of rules fits.
_DOCUMENT_MAX_CHARS = 1024 * 1024
POLICY_BODY_MAX_BYTES = 4 * _DOCUMENT_MAX_CHARS


class PolicyPut(Input, frozen=True):
    """A policy document (YAML or JSON) that narrows what the runner's own policy allows. No ``include``."""

    document: Annotated[str, Meta(min_length=1, max_length=_DOCUMENT_MAX_CHARS)]


class EnvironmentPolicyView(Output, frozen=True):
    """The environment's policy and what its runner said of it.

    ``state``: ``pending`` until the runner answers (it may be offline, or speak the plain protocol only), ``in_force``,
    or ``refused`` with the reason in ``error``; one that was in force and is no longer proved to narrow the runner's
    own, because that has changed, is refused and still held. ``reported_digest`` is what the runner last said is in
    force of the hub's policies.
    """

    policy_id: str
    document: str
    digest: str
    state: Literal["pending", "in_force", "refused"]
    error: str | None
    set_at: str
    set_by: str
    answered_at: str | None
    reported_digest: str | None


class HeldPolicy(Output, frozen=True):
    """One of the policies that an environment's runner is to hold; ``held``: the runner says that it does, now."""

    layer: Literal["account", "team", "environment"]
    policy_id: str
    digest: str
    state: Literal["pending", "in_force", "refused"]
    error: str | None
    held: bool
    set_at: str
    set_by: str
    answered_at: str | None


class HeldPolicyList(Output, frozen=True):
    """Every policy of the hub's for an environment, the widest layer first; what is allowed, all must allow.

    ``policy_name`` and ``policy_digest`` are of the runner's own, as it reported it last; None while it is away.
    """

    policies: list[HeldPolicy]
    policy_name: str | None
    policy_digest: str | None


class PolicyStates(Output, frozen=True):
    """How many environments are in which state."""

    pending: int
    in_force: int
    refused: int


class PolicyRefusal(Output, frozen=True):
    """An environment whose runner refused, and why."""

    environment_id: str
    error: str | None


class SharedPolicyView(Output, frozen=True):
    """The policy of the account or of a team, and what the runners concerned said of it.

    ``refusals`` has the first of those that refused, ``refusals_left_out`` counts the rest.
    """

    layer: Literal["account", "team"]
    policy_id: str
    document: str
    digest: str
    set_at: str
    set_by: str
    states: PolicyStates
    refusals: list[PolicyRefusal]
    refusals_left_out: int
