"""The life of a task in the hub: asked for, given to a runner, followed, ended exactly once."""

from guardhouse.hub.tasks.board import TaskBoard, TaskRequested
from guardhouse.hub.tasks.live import LiveTask

__all__ = ["LiveTask", "TaskBoard", "TaskRequested"]
