"""The rows of the route table that are about sessions. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import managed, schemas_managed, schemas_sessions, sessions
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["SESSION_ROUTES"]

_SESSION: Final = "/api/v1/sessions/{session}"

SESSION_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST",
        path="/api/v1/sessions",
        access=Scope.TASKS_RUN,
        handler=sessions.create_session,
        concern=Concern.CREATE_SESSION,
        summary="Make a session; its first task binds it to an environment for good",
        tag="sessions",
        body=schemas_sessions.SessionCreate,
        replies={201: schemas_sessions.Session},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/api/v1/sessions",
        access=Scope.TASKS_READ,
        handler=sessions.list_sessions,
        concern=Concern.LISTS,
        summary="List sessions, newest first",
        tag="sessions",
        query=schemas_sessions.SessionQuery,
        replies={200: schemas_sessions.SessionList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/session-choices",
        access=Scope.TASKS_READ,
        handler=sessions.show_choices,
        concern=Concern.LISTS,
        summary="What a new session would find now: Auto's choice, the managed sandbox",
        tag="sessions",
        query=schemas_sessions.ChoicesQuery,
        replies={200: schemas_sessions.SessionChoices},
    ),
    Route(
        method="GET",
        path=_SESSION,
        access=Scope.TASKS_READ,
        handler=sessions.show_session,
        concern=Concern.SEE_SESSION,
        summary="Show one session, what it is bound to and how that is now",
        tag="sessions",
        replies={200: schemas_sessions.Session},
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=_SESSION,
        access=Scope.TASKS_RUN,
        handler=sessions.update_session,
        concern=Concern.EDIT_SESSION,
        summary="Change title or scope, or before the first task where it is to run",
        tag="sessions",
        body=schemas_sessions.SessionUpdate,
        replies={200: schemas_sessions.Session},
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path=_SESSION,
        access=Scope.TASKS_RUN,
        handler=sessions.delete_session,
        concern=Concern.EDIT_SESSION,
        summary="Delete a session, its finished tasks and their output; the audit log stays",
        tag="sessions",
        query=schemas_sessions.SessionDeleteQuery,
        replies={204: None},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=f"{_SESSION}/history",
        access=Scope.TASKS_READ,
        handler=sessions.show_history,
        concern=Concern.SEE_SESSION,
        summary="What ran in a session, with decisions, approvals and programs, oldest first",
        tag="sessions",
        query=schemas_sessions.HistoryQuery,
        replies={200: schemas_sessions.SessionHistory},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_SESSION}/export",
        access=Scope.TASKS_READ,
        handler=sessions.export,
        concern=Concern.SEE_SESSION,
        summary="Export a session as lines of JSON",
        tag="sessions",
        media_type=sessions.NDJSON,
        replies={200: str},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/managed-sandbox",
        access=Scope.TASKS_READ,
        handler=managed.show_managed,
        summary="How the managed sandboxes stand, what they may reach and hold",
        tag="sessions",
        replies={200: schemas_managed.ManagedSandboxes},
    ),
    Route(
        method="PUT",
        path="/api/v1/managed-sandbox",
        access=Scope.ADMIN,
        handler=managed.update_managed,
        summary="Replace what managed sandboxes may reach",
        tag="sessions",
        body=schemas_managed.ManagedUpdate,
        replies={200: schemas_managed.ManagedSandboxes},
        errors=(409,),
    ),
)
