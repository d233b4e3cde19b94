"""The rows of the route table that are an environment's life cycle. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import lifecycle, schemas_environments, schemas_lifecycle
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["LIFECYCLE_ROUTES"]

_ENVIRONMENT: Final = "/api/v1/environments/{environment}"

LIFECYCLE_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST",
        path=f"{_ENVIRONMENT}/drain",
        access=Scope.ENV_WRITE,
        handler=lifecycle.drain_environment,
        concern=Concern.EDIT_ENVIRONMENT,
        summary="Let an environment take no new tasks",
        tag="environments",
        body=schemas_lifecycle.DrainRequest,
        replies={200: schemas_environments.Environment},
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{_ENVIRONMENT}/drain",
        access=Scope.ENV_WRITE,
        handler=lifecycle.undrain_environment,
        concern=Concern.EDIT_ENVIRONMENT,
        summary="Let a drained environment take tasks again",
        tag="environments",
        replies={200: schemas_environments.Environment},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_ENVIRONMENT}/guide",
        access=Scope.ENV_READ,
        handler=lifecycle.show_guide,
        concern=Concern.SEE_ENVIRONMENT,
        summary="How a host becomes this environment's runner, and stops being it",
        tag="environments",
        replies={200: schemas_lifecycle.Guide},
        errors=(404,),
    ),
)
