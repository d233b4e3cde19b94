"""The part of the route table that is about the audit log. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import (
    audit,
    schemas_audit,
)
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Scope

__all__ = ["AUDIT_ROUTES"]

AUDIT_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/api/v1/audit",
        access=Scope.ADMIN,
        handler=audit.list_audit,
        summary="Search what was done, newest first",
        tag="audit",
        query=schemas_audit.AuditQuery,
        replies={200: schemas_audit.AuditList},
    ),
    Route(
        method="GET",
        path="/api/v1/audit/export",
        access=Scope.ADMIN,
        handler=audit.export_audit,
        summary="Export the audit log as signed lines of JSON, oldest first",
        tag="audit",
        query=schemas_audit.AuditExportQuery,
        media_type=audit.NDJSON,
        replies={200: str},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/audit/key",
        access=Scope.ADMIN,
        handler=audit.show_audit_key,
        summary="Show the public key that the audit log is signed with",
        tag="audit",
        replies={200: schemas_audit.AuditKey},
    ),
)
