"""Both sides' session state machines and what they tell, in one place to import from."""

from guardhouse.wire.close_codes import GOING_AWAY, NORMAL, close_code, close_reason
from guardhouse.wire.events import (
    DuplicateRequest,
    Event,
    HeartbeatDue,
    HeartbeatReceived,
    OutputGap,
    OutputReceived,
    OutputRoom,
    ResultAcknowledged,
    ResultReceived,
    Resumed,
    TaskLost,
    TaskNotArrived,
    Warned,
    WelcomeMissing,
    WentOffline,
)
from guardhouse.wire.hub_session import HubSession
from guardhouse.wire.hub_tasks import StoredState, StoredTask
from guardhouse.wire.runner_session import RunnerSession

__all__ = [
    "GOING_AWAY",
    "NORMAL",
    "DuplicateRequest",
    "Event",
    "HeartbeatDue",
    "HeartbeatReceived",
    "HubSession",
    "OutputGap",
    "OutputReceived",
    "OutputRoom",
    "ResultAcknowledged",
    "ResultReceived",
    "Resumed",
    "RunnerSession",
    "StoredState",
    "StoredTask",
    "TaskLost",
    "TaskNotArrived",
    "Warned",
    "WelcomeMissing",
    "WentOffline",
    "close_code",
    "close_reason",
]
