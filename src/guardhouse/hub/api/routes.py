"""The route table: every path under which the hub answers HTTP, with the access it asks for.

`guardhouse.hub.api.door` enforces a row, `guardhouse.hub.api.openapi` documents it, a test walks it. Runs in the hub.
"""

from typing import Final

import trio

from guardhouse.hub.api import events, meta, schemas_meta
from guardhouse.hub.api.door import Call, Reply, Route
from guardhouse.hub.api.metrics import METRICS_ROUTES
from guardhouse.hub.api.routes_approvals import APPROVAL_ROUTES
from guardhouse.hub.api.routes_audit import AUDIT_ROUTES
from guardhouse.hub.api.routes_device import DEVICE_ROUTES
from guardhouse.hub.api.routes_environments import ENVIRONMENT_ROUTES
from guardhouse.hub.api.routes_join import JOIN_ROUTES
from guardhouse.hub.api.routes_lifecycle import LIFECYCLE_ROUTES
from guardhouse.hub.api.routes_mcp_servers import MCP_SERVER_ROUTES
from guardhouse.hub.api.routes_oidc import OIDC_ROUTES
from guardhouse.hub.api.routes_people import PEOPLE_ROUTES
from guardhouse.hub.api.routes_policy import POLICY_ROUTES
from guardhouse.hub.api.routes_runs import RUN_ROUTES
from guardhouse.hub.api.routes_sessions import SESSION_ROUTES
from guardhouse.hub.api.routes_skills import SKILL_ROUTES
from guardhouse.hub.api.routes_tasks import TASK_ROUTES
from guardhouse.hub.authorize import Access, Scope
from guardhouse.hub.concerns import Concern

__all__ = ["OPENAPI_PATH", "ROUTES"]

OPENAPI_PATH: Final = "/api/v1/openapi.json"


async def show_openapi(call: Call) -> Reply:
    """Answer the OpenAPI document of this table."""
    return meta.document_reply(await trio.to_thread.run_sync(call.services.openapi))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/",
        access=Access.PUBLIC,
        handler=meta.show_landing,
        summary="A page that says what this is",
        tag="hub",
        media_type="text/html",
        replies={200: str},
    ),
    Route(
        method="GET",
        path="/health",
        access=Access.PUBLIC,
        handler=meta.show_health,
        summary="The process runs (the seed's path)",
        tag="hub",
        replies={200: schemas_meta.Health},
    ),
    Route(
        method="GET",
        path="/healthz",
        access=Access.PUBLIC,
        handler=meta.show_health,
        summary="The process runs",
        tag="hub",
        replies={200: schemas_meta.Health},
    ),
    Route(
        method="GET",
        path="/readyz",
        access=Access.PUBLIC,
        handler=meta.show_readiness,
        summary="The store answers and takes writes, and the hub is not stopping",
        tag="hub",
        replies={200: schemas_meta.Readiness, 503: schemas_meta.Readiness},
    ),
    Route(
        method="GET",
        path=OPENAPI_PATH,
        access=Access.PUBLIC,
        handler=show_openapi,
        summary="This document",
        tag="hub",
        replies={200: dict},
    ),
    Route(
        method="GET",
        path="/api/v1/events",
        access=Scope.ENV_READ,
        handler=events.stream_events,
        concern=Concern.LISTS,
        summary="Follow what changes, as server-sent events",
        tag="hub",
        query=events.EventQuery,
        media_type=events.EVENT_STREAM,
        replies={200: str},
    ),
    *PEOPLE_ROUTES,
    *ENVIRONMENT_ROUTES,
    *POLICY_ROUTES,
    *TASK_ROUTES,
    *APPROVAL_ROUTES,
    *AUDIT_ROUTES,
    *LIFECYCLE_ROUTES,
    *RUN_ROUTES,
    *OIDC_ROUTES,
    *METRICS_ROUTES,
    *SESSION_ROUTES,
    *MCP_SERVER_ROUTES,
    *SKILL_ROUTES,
    *JOIN_ROUTES,
    *DEVICE_ROUTES,
)
