"""The rows of the route table that are join tokens. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import joins, schemas_join
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Access, Scope
from guardhouse.hub.concerns import Concern

__all__ = ["JOIN_ROUTES"]

JOIN_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST",
        path="/api/v1/join-tokens",
        access=Scope.ENV_WRITE,
        handler=joins.create_join_token,
        concern=Concern.CREATE_ENVIRONMENT,
        summary="Make a token with which machines become environments; its secret is shown this once",
        tag="environments",
        body=schemas_join.JoinTokenCreate,
        replies={201: schemas_join.JoinTokenCreated},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/join-tokens",
        access=Scope.ENV_WRITE,
        handler=joins.list_join_tokens,
        concern=Concern.LISTS,
        summary="List the join tokens that still work",
        tag="environments",
        replies={200: schemas_join.JoinTokenList},
    ),
    Route(
        method="DELETE",
        path="/api/v1/join-tokens/{join_token}",
        access=Scope.ENV_WRITE,
        handler=joins.delete_join_token,
        concern=Concern.OWN_JOIN_TOKEN,
        summary="End a join token",
        tag="environments",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/v1/join",
        access=Access.PUBLIC,
        handler=joins.join,
        summary="Swap a join token for an environment and a machine's own key",
        tag="environments",
        body=schemas_join.JoinRequest,
        replies={201: schemas_join.Joined},
        errors=(401, 409, 429),
    ),
)
