"""What the routes of managed sandboxes take and give. Runs in the hub."""

from typing import Annotated

from msgspec import Meta, Struct, field

from guardhouse.hub.api.schemas import Input, Output

__all__ = ["ManagedDomain", "ManagedSandboxes", "ManagedUpdate"]

# A name in lower-case ASCII with at least one dot, or "*." and such a name; no address, which has no letter at its end.
_DomainName = Annotated[
    str,
    Meta(
        max_length=253,
        pattern=r"^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$(?![\s\S])",
    ),
]
_Port = Annotated[int, Meta(ge=1, le=65_535)]


class ManagedDomain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name that managed sandboxes may connect to, at these TCP ports; ``*.name`` is everything below a name."""

    domain: _DomainName
    ports: Annotated[list[_Port], Meta(min_length=1, max_length=64)] = field(default_factory=lambda: [443])


class ManagedUpdate(Input, frozen=True):
    """The whole allow-list; an empty one leaves managed sandboxes without any network."""

    domains: Annotated[list[ManagedDomain], Meta(max_length=200)]


class ManagedSandboxes(Output, frozen=True):
    """The managed sandboxes of this hub: whether there can be a new one, what they may reach and hold.

    ``reason`` says why there can be none now. ``freezer`` is ``cgroup v1`` or ``cgroup v2``, with which idle ones are
    frozen; where it is null their runner is ended, and ``freezer_reason`` says why. Sizes are in bytes.
    """

    available: bool
    reason: str | None
    domains: list[ManagedDomain]
    idle_s: float | None
    reclaim_s: float | None
    size_max: int | None
    files_max: int | None
    tasks_max: int | None
    running: int
    running_max: int | None
    frozen: int
    frozen_max: int | None
    freezer: str | None
    freezer_reason: str | None
    sandboxes: int
    sandboxes_max: int | None
    size_bytes: int
    total_max: int | None
