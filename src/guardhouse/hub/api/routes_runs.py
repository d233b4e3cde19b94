"""The rows of the route table for fan-outs and schedules. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import events, fanouts, schedules, schemas_runs, schemas_tasks
from guardhouse.hub.api.door import Route
from guardhouse.hub.api.schemas_tasks import TASK_BODY_MAX_BYTES
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["RUN_ROUTES"]

_FANOUT: Final = "/api/v1/fanouts/{fanout}"
_SCHEDULE: Final = "/api/v1/schedules/{schedule}"

RUN_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST",
        path="/api/v1/fanouts",
        access=Scope.TASKS_RUN,
        handler=fanouts.create_fanout,
        concern=Concern.RUN_IN_MANY,
        summary="Start an operation in many environments",
        tag="fanouts",
        body=schemas_runs.FanoutCreate,
        body_max_bytes=TASK_BODY_MAX_BYTES,
        replies={202: schemas_runs.Fanout},
        errors=(404, 409, 429),
    ),
    Route(
        method="GET",
        path="/api/v1/fanouts",
        access=Scope.TASKS_READ,
        handler=fanouts.list_fanouts,
        concern=Concern.LISTS,
        summary="List fan-outs, newest first",
        tag="fanouts",
        query=schemas_runs.FanoutQuery,
        replies={200: schemas_runs.FanoutList},
    ),
    Route(
        method="GET",
        path=_FANOUT,
        access=Scope.TASKS_READ,
        handler=fanouts.show_fanout,
        concern=Concern.SEE_FANOUT,
        summary="Show one fan-out as it stands",
        tag="fanouts",
        replies={200: schemas_runs.Fanout},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_FANOUT}/children",
        access=Scope.TASKS_READ,
        handler=fanouts.list_fanout_children,
        concern=Concern.SEE_FANOUT,
        summary="List a fan-out's environments with what became of each",
        tag="fanouts",
        query=schemas_runs.FanoutChildQuery,
        replies={200: schemas_runs.FanoutChildList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_FANOUT}/events",
        access=Scope.TASKS_READ,
        handler=fanouts.follow_fanout,
        concern=Concern.SEE_FANOUT,
        summary="Follow a fan-out, as server-sent events",
        tag="fanouts",
        media_type=events.EVENT_STREAM,
        replies={200: str},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_FANOUT}/cancel",
        access=Scope.TASKS_RUN,
        handler=fanouts.cancel_fanout,
        concern=Concern.SEE_FANOUT,
        summary="Cancel a fan-out as a whole",
        tag="fanouts",
        body=schemas_tasks.CancelRequest,
        replies={200: schemas_runs.Fanout, 202: schemas_runs.Fanout},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/v1/schedules",
        access=Scope.TASKS_RUN,
        handler=schedules.create_schedule,
        concern=Concern.RUN_IN_ENVIRONMENT,
        summary="Let an operation start later",
        tag="schedules",
        body=schemas_runs.ScheduleCreate,
        body_max_bytes=TASK_BODY_MAX_BYTES,
        replies={201: schemas_runs.Schedule},
        errors=(404, 409, 429),
    ),
    Route(
        method="GET",
        path="/api/v1/schedules",
        access=Scope.TASKS_READ,
        handler=schedules.list_schedules,
        concern=Concern.LISTS,
        summary="List schedules, the latest start first",
        tag="schedules",
        query=schemas_runs.ScheduleQuery,
        replies={200: schemas_runs.ScheduleList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=_SCHEDULE,
        access=Scope.TASKS_READ,
        handler=schedules.show_schedule,
        concern=Concern.SEE_SCHEDULE,
        summary="Show one schedule as it stands",
        tag="schedules",
        replies={200: schemas_runs.Schedule},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_SCHEDULE}/cancel",
        access=Scope.TASKS_RUN,
        handler=schedules.cancel_schedule,
        concern=Concern.SEE_SCHEDULE,
        summary="Cancel a schedule that waits",
        tag="schedules",
        body=schemas_tasks.CancelRequest,
        replies={200: schemas_runs.Schedule},
        errors=(404, 409),
    ),
)
