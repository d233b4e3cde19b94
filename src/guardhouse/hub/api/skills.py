"""Routes of skills: records, what they are bound to, and how they stand in environments. Runs in the hub."""

from functools import partial
from typing import Any, cast

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from guardhouse.hub.api import schemas_skills as schemas
from guardhouse.hub.api.concern import check_is_no_sandbox, environment_not_found, skill_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import NotVisible, check_edits, check_sees_resource, reach_of
from guardhouse.hub.skills.decide import decide_copy_state, is_for
from guardhouse.hub.store import audit, environments
from guardhouse.hub.store import skills as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.skill_copies import SkillCopyRecord
from guardhouse.hub.store.skills import SkillRecord, SkillVersionRecord

__all__ = [
    "audit_skill",
    "delete_skill",
    "list_environment_skills",
    "list_skill_copies",
    "list_skills",
    "show_skill",
    "skill_view",
    "sync_environment_skills",
    "the_skill",
    "update_skill",
    "version_not_found",
    "version_view",
]

_SCAN_ROWS = 500


async def list_skills(call: Call) -> Reply:
    """Answer one page of the skills that the caller sees."""
    query: schemas.SkillQuery = call.query
    seen = [one for one in call.services.skills.all() if _sees(call, one) and one.name > (query.cursor or "")]
    page = seen[: query.limit]
    next_cursor = page[-1].name if len(seen) > len(page) else None
    return Reply(schemas.SkillList(skills=[skill_view(call, one) for one in page], next_cursor=next_cursor))


def _sees(call: Call, record: SkillRecord) -> bool:
    try:
        check_sees_resource(call.actor, record.team_id)
    except NotVisible:
        return False
    return True


async def show_skill(call: Call) -> Reply:
    """Answer one skill."""
    return Reply(skill_view(call, the_skill(call)))


async def update_skill(call: Call) -> Reply:
    """Switch a skill on or off, bind it, or choose the version that runners are to have; they follow at once."""
    body: schemas.SkillUpdate = call.body
    services = call.services
    async with services.skills.changing:
        record = the_skill(call)
        changes: dict[str, Any] = {
            name: getattr(body, name) for name in ("enabled", "automatic") if getattr(body, name) is not UNSET
        }
        if body.tags is not UNSET:
            changes["tags"] = tuple(dict.fromkeys(body.tags))
        if body.environments is not UNSET:
            changes["environment_ids"] = await _bound(call, record, body.environments)
        if body.current is not UNSET:
            if services.skills.version(record.id, body.current) is None:
                raise version_not_found(record, str(body.current))
            changes["current"] = body.current
        changed = msgspec.structs.replace(record, **changes, updated_ms=now_ms())

        def write(connection: Connection) -> bool:
            if not store.update_skill(connection, changed):
                return False
            audit_skill(connection, call, changed, "skill.update", changed=sorted(changes))
            return True

        if not await services.database.write(write):
            raise skill_not_found(record.id)
        services.skills.put(changed)
    services.skill_courier.nudge_all()
    return Reply(skill_view(call, changed))


async def delete_skill(call: Call) -> Reply:
    """Delete a skill with all its versions; runners lose it, those that are away when they are back."""
    services = call.services
    async with services.skills.changing:
        record = the_skill(call)

        def delete(connection: Connection) -> None:
            if store.delete_skill(connection, record.id):
                audit_skill(connection, call, record, "skill.delete")

        await services.database.write(delete)
        services.skills.drop(record.id)
    services.skill_courier.nudge_all()
    return Reply(None, status=204)


async def list_skill_copies(call: Call) -> Reply:
    """Answer one page of the environments that are to have the skill, or hold it, as far as the caller sees them."""
    query: schemas.SkillCopyQuery = call.query
    record, registry = the_skill(call), call.services.skills
    version = registry.version(record.id, record.current)
    held = {copy.environment_id: copy for copy in registry.copies_of(record.name)}
    found: list[schemas.SkillCopy] = []
    after, is_last = query.cursor, False
    while not is_last and len(found) <= query.limit:
        rows = await call.services.database.read(
            partial(
                environments.list_environments,
                tag=None,
                scope=None,
                text=None,
                kind="byoc",
                after=after,
                limit=_SCAN_ROWS,
                reach=reach_of(call.actor),
            )
        )
        for row in rows:
            copy = held.get(row.id)
            state = decide_copy_state(copy, version if is_for(record, row) else None)
            if state is not None and query.state in (None, state):
                found.append(
                    schemas.SkillCopy(environment_id=row.id, environment_name=row.shown_name, **_standing(copy, state))
                )
        is_last = len(rows) < _SCAN_ROWS
        after = rows[-1].shown_name if rows else after
    page = found[: query.limit]
    more = len(found) > query.limit
    return Reply(schemas.SkillCopyList(copies=page, next_cursor=page[-1].environment_name if more else None))


async def list_environment_skills(call: Call) -> Reply:
    """Answer how every skill stands in one environment that it is to have, or holds."""
    return Reply(_standings(call))


async def sync_environment_skills(call: Call) -> Reply:
    """Look at an environment's skills anew: its runner is asked what it has, and what failed is tried again."""
    environment = _the_environment(call)
    if call.services.links.find(environment.id) is None:
        raise ApiError(
            409,
            "environment_unavailable",
            f"environment {environment.shown_name!r} is not connected",
            hint="nothing to do: it is looked at when its runner connects",
            retryable=True,
        )
    await call.services.database.write(
        partial(
            audit.record_audit_event,
            at_ms=now_ms(),
            actor=call.actor.id,
            action="environment.skills.sync",
            target=environment.id,
            environment=environment.id,
            address=call.address,
        )
    )
    call.services.skill_courier.try_again(environment.id)
    return Reply(_standings(call), status=202)


def _standings(call: Call) -> schemas.EnvironmentSkillList:
    environment, registry = _the_environment(call), call.services.skills
    wanted, copies = registry.wanted(environment), registry.copies(environment.id)
    shown = []
    for name in sorted(wanted.keys() | copies.keys()):
        state = decide_copy_state(copies.get(name), wanted.get(name))
        if state is not None:
            checksum = wanted[name].checksum if name in wanted else None
            shown.append(schemas.EnvironmentSkill(name=name, wanted=checksum, **_standing(copies.get(name), state)))
    return schemas.EnvironmentSkillList(skills=shown)


def _standing(copy: SkillCopyRecord | None, state: str) -> dict[str, Any]:
    return {
        "state": state,
        "checksum": copy.checksum or None if copy is not None else None,
        "version": copy.version if copy is not None else None,
        "error": copy.error if copy is not None else None,
        "changed_at": iso_time(copy.changed_ms) if copy is not None and copy.changed_ms else None,
    }


def the_skill(call: Call) -> SkillRecord:
    """Return the skill of the path as it is by now."""
    found = call.services.skills.find(call.skill.id) if call.skill is not None else None
    if found is None:
        raise skill_not_found(call.path["skill"])
    return found


def _the_environment(call: Call) -> EnvironmentRecord:
    if call.environment is None:
        raise environment_not_found(call.path["environment"])
    return call.environment


async def _bound(call: Call, record: SkillRecord, references: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids of the environments to bind to; each new one takes the right to edit it.

    Raises:
        ApiError: 404, one is not there or not visible; 409, a managed sandbox.
        AccessDenied: one is visible, but not theirs to edit.
    """
    found: dict[str, None] = {}
    for reference in references:
        environment = await call.services.links.lookup(reference)
        if environment is None:
            raise environment_not_found(reference)
        if environment.id not in record.environment_ids:
            try:
                check_edits(call.actor, environment)
            except NotVisible as error:
                raise environment_not_found(reference) from error
            check_is_no_sandbox(environment)
        found[environment.id] = None
    return tuple(found)


def version_not_found(record: SkillRecord, number: str) -> ApiError:
    """Return the 404 of a version."""
    return ApiError(
        404,
        "skill_version_not_found",
        f"skill {record.name!r} has no version {number}",
        hint=f"'guardhouse skill versions {record.name}' shows them",
    )


def audit_skill(connection: Connection, call: Call, record: SkillRecord, action: str, **more: Any) -> None:
    """Write down that a skill was made or changed, in the transaction of that."""
    audit.record_audit_event(
        connection,
        at_ms=now_ms(),
        actor=call.actor.id,
        action=action,
        target=record.id,
        address=call.address,
        name=record.name,
        team=record.team_id,
        enabled=record.enabled,
        automatic=record.automatic,
        bound_to=record.environment_ids,
        tags=record.tags,
        current=record.current,
        **more,
    )


def skill_view(call: Call, record: SkillRecord) -> schemas.Skill:
    """Return a skill as people see it."""
    versions = call.services.skills.versions(record.id)
    current = next(one for one in versions if one.number == record.current)
    return schemas.Skill(
        id=record.id,
        name=record.name,
        team_id=record.team_id,
        enabled=record.enabled,
        automatic=record.automatic,
        environment_ids=list(record.environment_ids),
        tags=list(record.tags),
        current=version_view(record, current),
        versions=len(versions),
        created_at=cast(str, iso_time(record.created_ms)),
        created_by=record.created_by,
        updated_at=cast(str, iso_time(record.updated_ms)),
    )


def version_view(record: SkillRecord, version: SkillVersionRecord) -> schemas.SkillVersion:
    """Return a version as people see it."""
    manifest = msgspec.json.decode(version.manifest, type=dict[str, Any])
    return schemas.SkillVersion(
        number=version.number,
        checksum=version.checksum,
        uploaded_checksum=version.uploaded_checksum,
        size=version.size_bytes,
        unpacked_size=version.unpacked_bytes,
        files=version.files,
        created_at=cast(str, iso_time(version.created_ms)),
        created_by=version.created_by,
        is_current=version.number == record.current,
        **{name: manifest[name] for name in ("description", "version", "author", "license", "tags", "allowed_tools")},
    )
