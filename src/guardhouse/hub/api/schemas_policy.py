"""What the routes of an environment's policy take and give. Runs in the hub."""

from typing import Annotated, Literal

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Output

__all__ = ["POLICY_BODY_MAX_BYTES", "EnvironmentPolicyView", "PolicyPut"]

# The dumped form travels in one message to the runner; a policy of thousands of rules fits.
_DOCUMENT_MAX_CHARS = 1024 * 1024
POLICY_BODY_MAX_BYTES = 4 * _DOCUMENT_MAX_CHARS


class PolicyPut(Input, frozen=True):
    """A policy document (YAML or JSON) that narrows what the runner's own policy allows. No ``include``."""

    document: Annotated[str, Meta(min_length=1, max_length=_DOCUMENT_MAX_CHARS)]


class EnvironmentPolicyView(Output, frozen=True):
    """The environment's policy and what its runner said of it.

    ``state``: ``pending`` until the runner answers (it may be offline, or speak the plain protocol only), ``in_force``,
    or ``refused`` with the reason in ``error``. ``reported_digest`` is what the runner last said is in force.
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
