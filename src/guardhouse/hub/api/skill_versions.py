"""Routes of a skill's versions: upload, list, fetch, remove. Runs in the hub."""

from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from guardhouse.hub.api import schemas_skills as schemas
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.skills import audit_skill, skill_view, the_skill, version_not_found, version_view
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.skills.upload import CheckedSkill
from guardhouse.hub.store import audit, teams
from guardhouse.hub.store import skills as store
from guardhouse.hub.store.environments import NameTaken
from guardhouse.hub.store.skills import SkillRecord, SkillVersionRecord, VersionTaken
from guardhouse.skills import SkillRefused

__all__ = [
    "create_skill",
    "delete_skill_version",
    "list_skill_versions",
    "read_skill_archive",
    "upload_skill_version",
]

SKILLS_MAX = 500
VERSIONS_MAX = 50


async def create_skill(call: Call) -> Reply:
    """Make a skill of an archive (zip, tar or tar.gz with `SKILL.md` at its top), bound to nothing yet.

    Its name is the one in `SKILL.md`. Another version of a skill that is there goes to its `versions`: nothing is
    replaced because two archives happen to have one name.
    """
    query: schemas.SkillUploadQuery = call.query
    services = call.services
    checked = await _take(call)
    async with services.skills.changing:
        if len(services.skills.all()) >= SKILLS_MAX:
            raise ApiError(409, "too_many_skills", f"{SKILLS_MAX} skills are there", hint="remove some")
        team = None
        if query.team is not None:
            team = await services.database.read(partial(teams.find_team, id_or_name=query.team))
        at_ms = now_ms()
        record = SkillRecord(
            id=mint_id("skl"),
            name=checked.manifest.name,
            team_id=team.id if team is not None else None,
            enabled=True,
            automatic=False,
            tags=(),
            environment_ids=(),
            current=1,
            newest=1,
            created_ms=at_ms,
            created_by=call.actor.id,
            updated_ms=at_ms,
        )
        version = _version(call, record, checked)

        def insert(connection: Connection) -> None:
            store.insert_skill(connection, record)
            store.insert_skill_version(connection, version, checked.archive)
            audit_skill(connection, call, record, "skill.create", **_facts(version))

        try:
            await services.database.write(insert)
        except NameTaken as error:
            raise ApiError(
                409, "name_taken", str(error), hint="'guardhouse skill add --replace' uploads a version"
            ) from error
        services.skills.put_version(version)
        services.skills.put(record)
    return Reply(
        schemas.SkillUploaded(skill=skill_view(call, record), is_new=True, notes=list(checked.notes)),
        status=201,
        headers={"location": f"/api/v1/skills/{record.id}"},
    )


async def upload_skill_version(call: Call) -> Reply:
    """Upload a version, which is the current one from then on; runners that are to have the skill get it at once."""
    services = call.services
    checked = await _take(call)
    async with services.skills.changing:
        record = the_skill(call)
        if checked.manifest.name != record.name:
            raise ApiError(
                409,
                "skill_name_differs",
                f"SKILL.md says that its name is {checked.manifest.name!r}, this skill is {record.name!r}",
                hint="a skill of another name is another skill",
            )
        versions = services.skills.versions(record.id)
        same = next((one for one in versions if one.checksum == checked.checksum), None)
        if same is not None and same.number != record.current:
            raise ApiError(
                409,
                "skill_version_exists",
                f"version {same.number} of skill {record.name!r} is the same bytes",
                hint=f"'guardhouse skill use {record.name} {same.number}' makes it the current one",
            )
        if same is not None:
            view = schemas.SkillUploaded(skill=skill_view(call, record), is_new=False, notes=list(checked.notes))
            return Reply(view)
        if len(versions) >= VERSIONS_MAX:
            raise ApiError(
                409,
                "too_many_skill_versions",
                f"skill {record.name!r} has {VERSIONS_MAX} versions",
                hint="remove old ones first",
            )
        number = record.newest + 1
        changed = msgspec.structs.replace(record, current=number, newest=number, updated_ms=now_ms())
        version = _version(call, changed, checked)

        def insert(connection: Connection) -> None:
            store.insert_skill_version(connection, version, checked.archive)
            store.update_skill(connection, changed)
            audit_skill(connection, call, changed, "skill.upload", **_facts(version))

        try:
            await services.database.write(insert)
        except VersionTaken as error:
            raise ApiError(409, "skill_version_exists", str(error), retryable=True) from error
        services.skills.put_version(version)
        services.skills.put(changed)
    services.skill_courier.nudge_all()
    return Reply(
        schemas.SkillUploaded(skill=skill_view(call, changed), is_new=True, notes=list(checked.notes)), status=201
    )


async def list_skill_versions(call: Call) -> Reply:
    """Answer a skill's versions, newest first: fifty at most."""
    record = the_skill(call)
    versions = [version_view(record, one) for one in call.services.skills.versions(record.id)]
    return Reply(schemas.SkillVersionList(versions=versions))


async def read_skill_archive(call: Call) -> Reply:
    """Answer a version's zip archive as runners get it."""
    record, version = _the_version(call)
    archive = await call.services.database.read(partial(store.read_skill_archive, version_id=version.id))
    if archive is None:
        raise version_not_found(record, str(version.number))
    return Reply(
        archive,
        media_type="application/octet-stream",
        headers={
            "x-guardhouse-checksum": f"sha256:{version.checksum}",
            "content-disposition": f'attachment; filename="{record.name}-{version.number}.zip"',
            "content-security-policy": "default-src 'none'; sandbox",
        },
    )


async def delete_skill_version(call: Call) -> Reply:
    """Remove a version that is not the current one; its number is not given again."""
    services = call.services
    async with services.skills.changing:
        record, version = _the_version(call)
        if version.number == record.current:
            raise ApiError(
                409,
                "skill_version_current",
                f"version {version.number} of skill {record.name!r} is the current one",
                hint="make another the current one first, or remove the skill",
            )

        def delete(connection: Connection) -> None:
            if store.delete_skill_version(connection, version.id):
                audit_skill(connection, call, record, "skill.version.delete", **_facts(version))

        await services.database.write(delete)
        services.skills.drop_version(version)
    return Reply(None, status=204)


async def _take(call: Call) -> CheckedSkill:
    """Return the body as a checked skill; a refused one is written down, for nobody sends one by accident twice."""
    try:
        return await call.services.skill_uploads.take(call.body)
    except SkillRefused as error:
        await call.services.database.write(
            partial(
                audit.record_audit_event,
                at_ms=now_ms(),
                actor=call.actor.id,
                action="skill.refuse",
                target=call.skill.id if call.skill is not None else None,
                address=call.address,
                error=str(error)[:1_024],
                line=error.line,
            )
        )
        raise ApiError(
            422, "skill_refused", str(error), hint="nothing was stored; docs/skills.md says what is taken"
        ) from error


def _the_version(call: Call) -> tuple[SkillRecord, SkillVersionRecord]:
    record, number = the_skill(call), call.path["number"]
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    version = call.services.skills.version(record.id, int(number)) if is_number else None
    if version is None:
        raise version_not_found(record, number)
    return record, version


def _version(call: Call, record: SkillRecord, checked: CheckedSkill) -> SkillVersionRecord:
    return SkillVersionRecord(
        id=mint_id("skv"),
        skill_id=record.id,
        number=record.current,
        checksum=checked.checksum,
        uploaded_checksum=checked.uploaded_checksum,
        size_bytes=len(checked.archive),
        unpacked_bytes=checked.unpacked_bytes,
        files=checked.files,
        manifest=msgspec.json.encode(checked.manifest).decode(),
        created_ms=record.updated_ms,
        created_by=call.actor.id,
    )


def _facts(version: SkillVersionRecord) -> dict[str, Any]:
    return {
        "version": version.number,
        "checksum": version.checksum,
        "uploaded_checksum": version.uploaded_checksum,
        "size": version.size_bytes,
        "files": version.files,
    }
