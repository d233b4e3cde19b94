"""The part of the route table that is about tasks. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import (
    schemas_tasks,
    tasks,
)
from guardhouse.hub.api.door import Route
from guardhouse.hub.api.schemas_tasks import TASK_BODY_MAX_BYTES
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["TASK_ROUTES"]

_TASK: Final = "/api/v1/tasks/{task}"

TASK_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST",
        path="/api/v1/tasks",
        access=Scope.TASKS_RUN,
        handler=tasks.create_task,
        concern=Concern.RUN_IN_ENVIRONMENT,
        summary="Start a task",
        tag="tasks",
        query=schemas_tasks.WaitQuery,
        body=schemas_tasks.TaskCreate,
        body_max_bytes=TASK_BODY_MAX_BYTES,
        replies={200: schemas_tasks.Task, 202: schemas_tasks.Task},
        errors=(404, 409, 429),
    ),
    Route(
        method="GET",
        path="/api/v1/tasks",
        access=Scope.TASKS_READ,
        handler=tasks.list_tasks,
        concern=Concern.LISTS,
        summary="List tasks, newest first",
        tag="tasks",
        query=schemas_tasks.TaskQuery,
        replies={200: schemas_tasks.TaskList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=_TASK,
        access=Scope.TASKS_READ,
        handler=tasks.show_task,
        concern=Concern.SEE_TASK,
        summary="Show one task as it stands",
        tag="tasks",
        replies={200: schemas_tasks.Task},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_TASK}/result",
        access=Scope.TASKS_READ,
        handler=tasks.show_result,
        concern=Concern.SEE_TASK,
        summary="Wait for a task's result",
        tag="tasks",
        query=schemas_tasks.WaitQuery,
        replies={200: schemas_tasks.Task, 202: schemas_tasks.Task},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_TASK}/output",
        access=Scope.TASKS_READ,
        handler=tasks.follow_task_output,
        concern=Concern.SEE_TASK,
        summary="Read or follow a task's output as lines of JSON",
        tag="tasks",
        query=schemas_tasks.OutputQuery,
        media_type=tasks.NDJSON,
        replies={200: str},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_TASK}/cancel",
        access=Scope.TASKS_RUN,
        handler=tasks.cancel_task,
        concern=Concern.SEE_TASK,
        summary="Ask a task to stop",
        tag="tasks",
        body=schemas_tasks.CancelRequest,
        replies={200: schemas_tasks.Task, 202: schemas_tasks.Task},
        errors=(404,),
    ),
)
