"""Routes of an environment's life cycle: draining, putting to use again, the onboarding guide. Runs in the hub."""

from sqlalchemy import Connection

from guardhouse.hub.api import schemas_lifecycle as schemas
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.environments import environment_not_found, environment_view, find_environment
from guardhouse.hub.clock import now_ms
from guardhouse.hub.guide import TOKEN_FILE, write_guide
from guardhouse.hub.store import audit, environments
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = ["drain_environment", "show_guide", "undrain_environment"]


async def drain_environment(call: Call) -> Reply:
    """Let an environment take no new tasks; running ones end, waiting ones wait. Again: the new reason counts."""
    body: schemas.DrainRequest = call.body
    return await _set_drain(call, drained=True, reason=body.reason or None)


async def undrain_environment(call: Call) -> Reply:
    """Let a drained environment take tasks again; those that waited are given to it."""
    return await _set_drain(call, drained=False, reason=None)


async def _set_drain(call: Call, *, drained: bool, reason: str | None) -> Reply:
    found = await find_environment(call, call.path["environment"])
    services = call.services
    at_ms = now_ms()

    def change(connection: Connection) -> EnvironmentRecord | None:
        record = environments.set_drain(
            connection,
            found.id,
            at_ms=at_ms if drained else None,
            by=call.actor.name[:128] if drained else None,
            reason=reason,
        )
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="environment.drain" if drained else "environment.undrain",
            target=found.id,
            environment=found.id,
            address=call.address,
            reason=reason,
        )
        return record

    record = await services.database.write(change)
    if record is None:
        raise environment_not_found(call.path["environment"])
    services.links.forget_known()
    services.links.set_drained(found.id, reason=reason, drained=drained)
    if not drained:
        services.board.dispatcher.dispatch(found.id)
    return Reply(environment_view(call, record))


async def show_guide(call: Call) -> Reply:
    """Answer how a host becomes this environment's runner: install, by hand, upgrade, uninstall, purge."""
    found = await find_environment(call, call.path["environment"])
    services = call.services
    text = write_guide(
        environment_id=found.id,
        name=found.shown_name,
        public_url=services.public_url,
        connect_url=services.connect_url,
        version=services.config.runner_version,
        install_url=services.config.install_url,
    )
    return Reply(
        schemas.Guide(
            environment_id=found.id,
            connect_url=services.connect_url,
            runner_version=services.config.runner_version,
            token_file=TOKEN_FILE,
            sections=[
                schemas.GuideSection(
                    id=section.id,
                    title=section.title,
                    steps=[schemas.GuideStep(text=step.text, commands=list(step.commands)) for step in section.steps],
                )
                for section in text.sections
            ],
            markdown=text.markdown,
        )
    )
