"""Routes of managed sandboxes: how they stand, and what they may reach. Runs in the hub."""

from guardhouse.hub.api import schemas_managed as schemas
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.managed.host import ManagedHost
from guardhouse.hub.managed.settings import Domain

__all__ = ["show_managed", "update_managed"]


def _host(call: Call) -> ManagedHost | None:
    managed = call.services.sessions.managed
    return managed if isinstance(managed, ManagedHost) else None


def _view(call: Call) -> schemas.ManagedSandboxes:
    host, reason = _host(call), call.services.sessions.managed_refusal(call.actor)
    settings = host.settings if host is not None else None
    occupancy = host.occupancy() if host is not None else None
    return schemas.ManagedSandboxes(
        available=reason is None,
        reason=reason,
        domains=[
            schemas.ManagedDomain(domain=one.domain, ports=list(one.ports)) for one in (host.domains if host else ())
        ],
        idle_s=settings.idle_s if settings else None,
        reclaim_s=settings.reclaim_s if settings else None,
        size_max=settings.size_bytes if settings else None,
        files_max=settings.files if settings else None,
        tasks_max=settings.tasks if settings else None,
        running=occupancy.running if occupancy else 0,
        running_max=settings.running if settings else None,
        frozen=host.runners.frozen if host else 0,
        frozen_max=settings.frozen if settings else None,
        freezer=host.runners.freezer if host else None,
        freezer_reason=(host.runners.no_freezer or None) if host else None,
        sandboxes=occupancy.sandboxes if occupancy else 0,
        sandboxes_max=settings.sandboxes if settings else None,
        size_bytes=occupancy.size_bytes if occupancy else 0,
        total_max=settings.total_bytes if settings else None,
    )


async def show_managed(call: Call) -> Reply:
    """Answer how the managed sandboxes stand."""
    return Reply(_view(call))


async def update_managed(call: Call) -> Reply:
    """Replace what managed sandboxes of the account may reach, from the next start of each on."""
    body: schemas.ManagedUpdate = call.body
    host = _host(call)
    if host is None:
        raise ApiError(
            409,
            "managed_sandbox_off",
            "this hub runs no managed sandboxes",
            hint="start it with --managed-sandbox",
        )
    domains = tuple(
        Domain(domain=one.domain, ports=tuple(sorted(set(one.ports))))
        for one in {one.domain: one for one in body.domains}.values()
    )
    await host.set_domains(domains, actor=call.actor.id, address=call.address)
    return Reply(_view(call))
