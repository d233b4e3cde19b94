"""The part of the route table that is about approvals and grants. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import (
    approvals,
    schemas_approvals,
)
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["APPROVAL_ROUTES"]

APPROVAL_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/api/v1/approvals",
        access=Scope.APPROVALS_READ,
        handler=approvals.list_approvals,
        concern=Concern.LISTS,
        summary="List what runners ask people, newest first",
        tag="approvals",
        query=schemas_approvals.ApprovalQuery,
        replies={200: schemas_approvals.ApprovalList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/approvals/{approval}",
        access=Scope.APPROVALS_READ,
        handler=approvals.show_approval,
        concern=Concern.SEE_APPROVAL,
        summary="Show one approval",
        tag="approvals",
        replies={200: schemas_approvals.Approval},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/v1/approvals/{approval}/approve",
        access=Scope.APPROVALS_DECIDE,
        handler=approvals.approve,
        concern=Concern.DECIDE_APPROVAL,
        summary="Approve; 202 where a second person must too",
        tag="approvals",
        body=schemas_approvals.ApprovalDecide,
        replies={200: schemas_approvals.Approval, 202: schemas_approvals.Approval},
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/v1/approvals/{approval}/deny",
        access=Scope.APPROVALS_DECIDE,
        handler=approvals.deny,
        concern=Concern.DECIDE_APPROVAL,
        summary="Deny",
        tag="approvals",
        body=schemas_approvals.ApprovalDecide,
        replies={200: schemas_approvals.Approval, 202: schemas_approvals.Approval},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/api/v1/approval-grants",
        access=Scope.APPROVALS_READ,
        handler=approvals.list_grants,
        concern=Concern.LISTS,
        summary="List what people said for longer than once",
        tag="approvals",
        replies={200: schemas_approvals.ApprovalGrantList},
    ),
    Route(
        method="DELETE",
        path="/api/v1/approval-grants/{grant}",
        access=Scope.APPROVALS_DECIDE,
        handler=approvals.revoke_grant,
        concern=Concern.DECIDE_GRANT,
        summary="End a grant",
        tag="approvals",
        replies={204: None},
        errors=(404,),
    ),
)
