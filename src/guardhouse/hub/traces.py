"""What is traced, from API call to exec: requests, tasks, and what runners told of theirs.

Spans have no command text, no arguments and no output: a collector has other readers than the hub. Knows the exporter
only as something that takes spans. Runs in the hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from guardhouse.hub.store.tasks import TaskRecord, TaskState
from guardhouse.hub.trace_context import TraceContext, task_span_id
from guardhouse.wire.messages import Span

__all__ = ["FinishedSpan", "SpanExporter", "SpanRole", "Traces"]

_BAD: Final = frozenset({TaskState.FAILED, TaskState.TIMED_OUT, TaskState.LOST})


class SpanRole(StrEnum):
    """Whose a span is: an API request, a task as the hub sees it, the runner's whole of it, a part of that."""

    REQUEST = "request"
    TASK = "task"
    RUNNER = "runner"
    PART = "part"


@dataclass(frozen=True, kw_only=True)
class FinishedSpan:
    """One span; times are Unix nanoseconds, a runner's by its own clock."""

    name: str
    context: TraceContext
    role: SpanRole
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int | bool]
    is_bad: bool = False


class SpanExporter(Protocol):
    """Where spans go."""

    def add(self, span: FinishedSpan) -> None:
        """Put a span in line."""

    async def close(self) -> None:
        """Export what is left."""


class Traces:
    """Makes spans of what has ended; without an exporter it does nothing."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self._exporter = exporter

    @property
    def is_on(self) -> bool:
        """Whether anybody wants spans."""
        return self._exporter is not None

    def note_request(
        self, context: TraceContext, *, method: str, route: str, status: int, start_ns: int, end_ns: int
    ) -> None:
        """Add the span of one API request; ``route`` is the table's path, without what its names stood for."""
        if self._exporter is None:
            return
        self._exporter.add(
            FinishedSpan(
                name=f"{method} {route}",
                context=context,
                role=SpanRole.REQUEST,
                start_ns=start_ns,
                end_ns=end_ns,
                attributes={
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                },
                is_bad=status >= 500,
            )
        )

    def note_task(self, record: TaskRecord, spans: tuple[Span, ...] | None, *, parent_id: str | None) -> None:
        """Add the spans of a task that has ended: the hub's own, and what its runner told."""
        if self._exporter is not None and record.finished_ms is not None:
            for span in task_spans(record, spans or (), parent_id=parent_id):
                self._exporter.add(span)

    async def close(self) -> None:
        """Export what is left."""
        if self._exporter is not None:
            await self._exporter.close()


def task_spans(record: TaskRecord, told: tuple[Span, ...], *, parent_id: str | None) -> list[FinishedSpan]:
    """Return the spans of a task that has ended; the first of what the runner told holds the others."""
    attributes: dict[str, str | int | bool] = {
        "guardhouse.task.id": record.id,
        "guardhouse.task.operation": record.operation,
        "guardhouse.task.state": record.state,
        "guardhouse.environment.id": record.environment_id,
        "guardhouse.environment.name": record.environment_name or "",
    }
    if record.exit_code is not None:
        attributes["guardhouse.task.exit_code"] = record.exit_code
    if record.error_code is not None:
        attributes["error.type"] = record.error_code
    context = TraceContext(record.trace_id, task_span_id(record.id), parent_id)
    found = [
        FinishedSpan(
            name=f"task {record.operation}",
            context=context,
            role=SpanRole.TASK,
            start_ns=record.created_ms * 1_000_000,
            end_ns=(record.finished_ms or record.created_ms) * 1_000_000,
            attributes=attributes,
            is_bad=record.state in _BAD,
        )
    ]
    above = context
    for position, span in enumerate(told):
        own = TraceContext(record.trace_id, task_span_id(f"{record.id}/{position}"), above.span_id)
        found.append(
            FinishedSpan(
                name=span.name,
                context=own,
                role=SpanRole.RUNNER if position == 0 else SpanRole.PART,
                start_ns=span.start_us * 1_000,
                end_ns=(span.start_us + span.duration_us) * 1_000,
                attributes={"guardhouse.environment.id": record.environment_id},
            )
        )
        if position == 0:
            above = own
    return found
