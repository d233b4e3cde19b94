"""The rows of the route table about skills. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import schemas_skills as schemas
from guardhouse.hub.api import skill_versions, skills
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["SKILL_ROUTES"]

_SKILLS: Final = "/api/v1/skills"
_SKILL: Final = f"{_SKILLS}/{{skill}}"
_VERSION: Final = f"{_SKILL}/versions/{{number}}"
_OF_ENVIRONMENT: Final = "/api/v1/environments/{environment}/skills"

SKILL_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path=_SKILLS,
        access=Scope.ENV_READ,
        handler=skills.list_skills,
        concern=Concern.LISTS,
        summary="List skills",
        tag="skills",
        query=schemas.SkillQuery,
        replies={200: schemas.SkillList},
    ),
    Route(
        method="POST",
        path=_SKILLS,
        access=Scope.ENV_WRITE,
        handler=skill_versions.create_skill,
        concern=Concern.CREATE_SKILL,
        summary="Make a skill of an archive",
        tag="skills",
        query=schemas.SkillUploadQuery,
        streams_body=True,
        replies={201: schemas.SkillUploaded},
        errors=(404, 408, 409, 413, 422, 429),
    ),
    Route(
        method="GET",
        path=_SKILL,
        access=Scope.ENV_READ,
        handler=skills.show_skill,
        concern=Concern.SEE_SKILL,
        summary="Show one skill",
        tag="skills",
        replies={200: schemas.Skill},
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=_SKILL,
        access=Scope.ENV_WRITE,
        handler=skills.update_skill,
        concern=Concern.EDIT_SKILL,
        summary="Bind a skill, switch it on or off, choose its current version",
        tag="skills",
        body=schemas.SkillUpdate,
        replies={200: schemas.Skill},
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path=_SKILL,
        access=Scope.ENV_WRITE,
        handler=skills.delete_skill,
        concern=Concern.EDIT_SKILL,
        summary="Delete a skill, here and on runners",
        tag="skills",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_SKILL}/environments",
        access=Scope.ENV_READ,
        handler=skills.list_skill_copies,
        concern=Concern.SEE_SKILL,
        summary="How a skill stands in each environment",
        tag="skills",
        query=schemas.SkillCopyQuery,
        replies={200: schemas.SkillCopyList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_SKILL}/versions",
        access=Scope.ENV_READ,
        handler=skill_versions.list_skill_versions,
        concern=Concern.SEE_SKILL,
        summary="List a skill's versions",
        tag="skills",
        replies={200: schemas.SkillVersionList},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_SKILL}/versions",
        access=Scope.ENV_WRITE,
        handler=skill_versions.upload_skill_version,
        concern=Concern.EDIT_SKILL,
        summary="Upload a version of a skill",
        tag="skills",
        streams_body=True,
        replies={200: schemas.SkillUploaded, 201: schemas.SkillUploaded},
        errors=(404, 408, 409, 413, 422, 429),
    ),
    Route(
        method="GET",
        path=f"{_VERSION}/archive",
        access=Scope.ENV_READ,
        handler=skill_versions.read_skill_archive,
        concern=Concern.SEE_SKILL,
        summary="Fetch a version's archive",
        tag="skills",
        replies={200: bytes},
        media_type="application/octet-stream",
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=_VERSION,
        access=Scope.ENV_WRITE,
        handler=skill_versions.delete_skill_version,
        concern=Concern.EDIT_SKILL,
        summary="Remove a version of a skill",
        tag="skills",
        replies={204: None},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=_OF_ENVIRONMENT,
        access=Scope.ENV_READ,
        handler=skills.list_environment_skills,
        concern=Concern.SEE_ENVIRONMENT,
        summary="How every skill stands in one environment",
        tag="skills",
        replies={200: schemas.EnvironmentSkillList},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_OF_ENVIRONMENT}/sync",
        access=Scope.ENV_WRITE,
        handler=skills.sync_environment_skills,
        concern=Concern.EDIT_ENVIRONMENT,
        summary="Look at an environment's skills anew, and try again what failed",
        tag="skills",
        replies={202: schemas.EnvironmentSkillList},
        errors=(404, 409),
    ),
)
