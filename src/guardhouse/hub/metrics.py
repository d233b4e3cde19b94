"""Figures of one hub for Prometheus: counted as things happen, and looked up when somebody asks.

Labels are of bounded number: routes of the table, states, protocols. No id, name, command or address. Runs in the hub.
"""

from typing import TYPE_CHECKING, Final

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.process_collector import ProcessCollector
from sqlalchemy import Connection, func, select

from guardhouse import __version__
from guardhouse.hub.clock import now_ms
from guardhouse.hub.schema import approvals, environments
from guardhouse.hub.store import audit
from guardhouse.hub.store.tasks import TERMINAL_STATES
from guardhouse.mcp_server.admission import Kind

if TYPE_CHECKING:
    from guardhouse.hub.services import Services

__all__ = ["Metrics"]

DELAY_EVERY_S: Final = 0.5
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELAY_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """The registry and what is counted in it."""

    def __init__(self) -> None:
        # Gauges of our counters' ages would double what is stored of them, and nobody looks at them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types there
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("guardhouse_build_info", "1, with the version as its label.", ["version"], registry=registry).labels(
            __version__
        ).set(1)
        self._requests = Counter(
            "guardhouse_http_requests",
            "API requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "guardhouse_http_request_duration_seconds",
            "Time to the answer's begin.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        # Looked up by their labels once; there are as many as routes and statuses.
        self._of_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._tasks_ended = Counter(
            "guardhouse_tasks_ended", "Tasks that got their result, by how.", ["state"], registry=registry
        )
        self._mcp_requests = Counter("guardhouse_mcp_requests", "Requests to /mcp that were let in.", registry=registry)
        self._mcp_refusals = Counter(
            "guardhouse_mcp_refusals",
            "Requests to /mcp that were refused with 429, by the limit of their token.",
            ["limit"],
            registry=registry,
        )
        self._dropped = Counter(
            "guardhouse_connections_dropped",
            "Connections that were closed unread, by why: they waited too long, or too many did.",
            ["reason"],
            registry=registry,
        )
        self._dropped_before = {"expired": 0, "pushed_out": 0}
        # A series that only begins with what it counts shows no increase of its first one.
        for counter, values in (
            (self._tasks_ended, TERMINAL_STATES),
            (self._mcp_refusals, ("rate", *(f"{kind}s" for kind in Kind))),
            (self._dropped, self._dropped_before),
        ):
            for value in values:
                counter.labels(value)
        self._loop_delay = Histogram(
            "guardhouse_event_loop_delay_seconds",
            "How late the event loop came to what was due.",
            buckets=_DELAY_SECONDS,
            registry=registry,
        )
        self._tasks = Gauge("guardhouse_tasks", "Tasks without a result.", ["state"], registry=registry)
        self._runners = Gauge("guardhouse_runners_connected", "Connected runners.", ["protocol"], registry=registry)
        self._environments = Gauge("guardhouse_environments", "Environments by status.", ["status"], registry=registry)
        self._plain = {
            name: Gauge(f"guardhouse_{name}", text, registry=registry)
            for name, text in (
                ("approvals_pending", "Questions that wait for people."),
                ("audit_records", "The number of the newest audit record."),
                ("audit_signed_records", "The number of the newest audit record that a checkpoint signs."),
                ("tasks_in_line", "Tasks that wait in the hub for their runner."),
                ("deletions_held", "1 while nothing is deleted for its age, since the clock jumped ahead."),
                ("fanouts_running", "Fan-outs that have not ended."),
                ("schedules_waiting", "Tasks that start later."),
                ("store_writes_in_line", "Writes that wait for the store."),
                ("store_log_bytes", "SQLite's write-ahead log, which grows while a backup reads; 0 on PostgreSQL."),
                ("connections_waiting", "Connections that wait until the hub begins to read them."),
                ("event_streams", "Open streams of server-sent events."),
                ("file_transfers", "Files that are on their way."),
                ("mcp_calls", "Calls under way at /mcp."),
                ("mcp_streams", "Open streams at /mcp."),
                ("mcp_sessions", "Sessions of the older protocol at /mcp."),
            )
        }

    def note_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; ``route`` is the table's path."""
        found = self._of_request.get((method, route, status))
        if found is None:
            found = self._requests.labels(method, route, str(status)), self._request_seconds.labels(method, route)
            self._of_request[method, route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def note_task_end(self, state: str) -> None:
        """Count a task that has ended."""
        self._tasks_ended.labels(state).inc()

    def note_mcp_request(self) -> None:
        """Count a request to `/mcp` that was let in."""
        self._mcp_requests.inc()

    def note_mcp_refusal(self, limit: str) -> None:
        """Count a request to `/mcp` that was over a limit: rate, requests, calls or streams."""
        self._mcp_refusals.labels(limit).inc()

    async def run(self) -> None:
        """Measure, for ever, how late the event loop comes."""
        while True:
            due_s = trio.current_time() + DELAY_EVERY_S
            await trio.sleep_until(due_s)
            self._loop_delay.observe(max(0.0, trio.current_time() - due_s))

    async def render(self, services: "Services") -> bytes:
        """Return everything in Prometheus' text format, looked up now."""
        states = {"queued": 0, "sent": 0, "accepted": 0, "running": 0}
        for live in services.board:
            states[live.record.state] = states.get(live.record.state, 0) + 1
        for state, count in states.items():
            self._tasks.labels(state).set(count)
        protocols = {"guardhouse.v1": 0, "plain": 0}
        online = 0
        for _, link in services.links.all():
            protocols[link.protocol] += 1
            online += link.is_ready
        for protocol, count in protocols.items():
            self._runners.labels(protocol).set(count)
        known, seen, pending, newest, signed = await services.database.read(_count)
        # Connected and taking tasks; the list of environments knows more (silent, degraded).
        for status, count in (("online", online), ("offline", max(0, seen - online)), ("pending", known - seen)):
            self._environments.labels(status).set(count)
        queue = services.accept_queue
        for reason, count in (("expired", queue.expired), ("pushed_out", queue.pushed_out)):
            self._dropped.labels(reason).inc(count - self._dropped_before[reason])
            self._dropped_before[reason] = count
        values = {
            "approvals_pending": pending,
            "audit_records": newest,
            "audit_signed_records": signed,
            "tasks_in_line": states["queued"],
            "deletions_held": services.clock.held_until_ms() is not None,
            "fanouts_running": len(services.fanouts),
            "schedules_waiting": len(services.schedules),
            "store_writes_in_line": services.database.writes_in_line,
            "store_log_bytes": services.database.log_bytes,
            "connections_waiting": len(queue),
            "event_streams": services.event_streams,
            "file_transfers": services.links.transfers,
            **services.mcp_admission.figures(),
        }
        for name, value in values.items():
            self._plain[name].set(value)
        return generate_latest(self._registry)


def _count(connection: Connection) -> tuple[int, int, int, int, int]:
    """Return environments, those ever seen, questions that wait, the newest record and the newest signed one."""
    known = connection.execute(select(func.count()).select_from(environments)).scalar_one()
    seen_query = select(func.count()).select_from(environments).where(environments.c.first_seen_ms.is_not(None))
    seen = connection.execute(seen_query).scalar_one()
    waiting = (approvals.c.state == "pending") & (approvals.c.expires_ms > now_ms())
    pending = connection.execute(select(func.count()).select_from(approvals).where(waiting)).scalar_one()
    newest = audit.read_audit_head(connection)[0]
    signed = audit.last_checkpoint(connection)
    return known, seen, pending, newest, 0 if signed is None else signed.seq
