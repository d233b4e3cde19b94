"""Which tasks have no result yet, by their id and by their environment. Runs in the hub."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from guardhouse.hub.tasks.live import LiveTask

__all__ = ["LiveTasks"]


class LiveTasks:
    """The tasks without a result of one hub, in the order in which they came."""

    def __init__(self) -> None:
        self._by_id: dict[str, LiveTask] = {}
        self._by_environment: dict[str, dict[str, LiveTask]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[LiveTask]:
        return iter(list(self._by_id.values()))

    def find(self, task_id: str) -> LiveTask | None:
        """Return a task, or None."""
        return self._by_id.get(task_id)

    def of(self, environment_id: str) -> list[LiveTask]:
        """Return the tasks of one environment."""
        return list(self._by_environment.get(environment_id, {}).values())

    def environments(self) -> list[str]:
        """Return the ids of the environments that have any."""
        return list(self._by_environment)

    def in_flight(self, environment_id: str) -> int:
        """Return how many tasks the environment's runner has been given and not answered."""
        tasks = self._by_environment.get(environment_id)
        return sum(task.was_sent for task in tasks.values()) if tasks else 0

    def load(self, environment_id: str) -> int:
        """Return how many tasks run or wait for the environment."""
        return len(self._by_environment.get(environment_id, ()))

    def session_loads(self) -> Counter[str]:
        """Return how many tasks of each session run or wait."""
        return Counter(live.record.session_id for live in self._by_id.values() if live.record.session_id is not None)

    def add(self, live: LiveTask) -> None:
        """Take up a task."""
        self._by_id[live.id] = live
        self._by_environment[live.record.environment_id][live.id] = live

    def drop(self, live: LiveTask) -> None:
        """Let go of a task that has its result, or was never stored."""
        self._by_id.pop(live.id, None)
        tasks = self._by_environment.get(live.record.environment_id)
        if tasks is not None:
            tasks.pop(live.id, None)
            if not tasks:
                del self._by_environment[live.record.environment_id]
