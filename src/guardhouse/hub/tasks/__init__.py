"""The life of a task in the hub: asked for, given to a runner, followed, ended exactly once."""

from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.hub.tasks.request import TaskRequested

__all__ = ["LiveTask", "TaskBoard", "TaskRequested"]
