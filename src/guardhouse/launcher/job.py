"""One command that was asked for and has not been answered to the end. Runs in the launcher."""

from dataclasses import dataclass, field

from guardhouse.launcher.lifetime import Lifetime
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.slots import Slot

__all__ = ["Job"]


@dataclass(slots=True)
class Job:
    """What the launcher knows of it.

    Attributes:
        identifier: the runner's number for it.
        began_s: when it was asked for, on the monotonic clock.
        questions: the monitor's numbers of what waits for a person.
    """

    identifier: int
    request: LaunchRequest
    slot: Slot
    lifetime: Lifetime
    began_s: float
    questions: set[int] = field(default_factory=set)
