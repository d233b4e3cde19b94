"""What operators see of a hub from outside: figures for Prometheus, traces for a collector, ids in the log."""

import gzip
import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from tests.hub.support import become_owner, invite
from tests.hub.test_approvals_with_runner import asking_runner
from tests.support.runner_stub import connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.config import check_otlp_endpoint
from guardhouse.hub.trace_context import TraceContext, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"00-{TRACE}-{PARENT}-01", TraceContext(TRACE, PARENT), id="as the recommendation has it"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01-what-comes", TraceContext(TRACE, PARENT), id="of a later version"),
        pytest.param(f"00-{TRACE}-{PARENT}-01-more", None, id="this version has no more"),
        pytest.param(f"ff-{TRACE}-{PARENT}-01", None, id="no version"),
        pytest.param(f"00-{'0' * 32}-{PARENT}-01", None, id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="no span"),
        pytest.param(f"00-{TRACE.upper()}-{PARENT}-01", None, id="capitals"),
        pytest.param(f"00-{TRACE}-{PARENT}-01\n", None, id="a line more"),
        pytest.param(None, None, id="none"),
    ],
)
def test_traceparent(text, expected):
    """Only a valid header of W3C trace context says which trace a request belongs to."""
    assert parse_traceparent(text) == expected


def test_endpoints():
    """An endpoint is an address; a path is added where there is none; secrets do not belong in it."""
    assert check_otlp_endpoint("http://127.0.0.1:4318/") == "http://127.0.0.1:4318/v1/traces"
    assert check_otlp_endpoint("https://collector/otlp/v1/traces") == "https://collector/otlp/v1/traces"
    for wrong in ("collector:4318", "ftp://collector", "https://user:secret@collector", "https://collector/?key=x"):
        with pytest.raises(SetupError, match="otlp-endpoint"):
            check_otlp_endpoint(wrong)


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A tiny OTLP/HTTP receiver: its address, and what was posted."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_one_trace_from_the_api_call_to_the_exec(start_hub):
    """The caller's trace goes on through request, task, runner, gate, launch and exec; no command is in it."""
    with collector() as (url, received):
        async with start_hub(otlp_endpoint=check_otlp_endpoint(url)) as hub:
            created = await hub.environment()
            async with connect_v1(hub.url, created["token"]) as runner:
                await hub.until_online()
                headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
                body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "cat secret-file"}}
                reply = await hub.http.post("/api/v1/tasks", json=body, headers=headers)
                assert reply.headers["x-trace-id"] == TRACE
                asked = await runner.expect("task.request")
                assert asked["trace_id"] == TRACE
                assert re.fullmatch("[0-9a-f]{16}", asked["parent_span_id"])
                now_us = time.time_ns() // 1_000
                spans = [
                    {"name": name, "start_us": now_us, "duration_us": 1_500}
                    for name in ("runner", "gate", "launch", "exec")
                ]
                await runner.result(asked["task_id"], exit_code=3, spans=spans)
                await hub.result(asked["task_id"])
                # A stranger's header does not put anything into the trace.
                async with httpx2.AsyncClient(base_url=hub.url) as http:
                    assert (await http.get("/api/v1/tasks", headers=headers)).headers["x-trace-id"] != TRACE
        # Leaving the hub exported what was left.
        scopes = [scope for one in received for resource in one.resource_spans for scope in resource.scope_spans]
        found = {span.name: span for scope in scopes for span in scope.spans if span.trace_id.hex() == TRACE}
        assert set(found) == {"POST /api/v1/tasks", "task bash", "runner", "gate", "launch", "exec"}
        parents = {name: span.parent_span_id.hex() for name, span in found.items()}
        ids = {name: span.span_id.hex() for name, span in found.items()}
        assert parents["POST /api/v1/tasks"] == PARENT
        assert parents["task bash"] == ids["POST /api/v1/tasks"]
        assert ids["task bash"] == asked["parent_span_id"] == parents["runner"]
        assert parents["gate"] == parents["launch"] == parents["exec"] == ids["runner"]
        assert found["exec"].end_time_unix_nano - found["exec"].start_time_unix_nano == 1_500_000
        attributes = {one.key: one.value for one in found["task bash"].attributes}
        assert attributes["guardhouse.task.exit_code"].int_value == 3
        assert attributes["guardhouse.environment.name"].string_value == "web-1"
        assert b"secret-file" not in b"".join(one.SerializeToString() for one in received)


async def test_a_real_runner_tells_its_parts(start_hub):
    """Gate, launch and exec of a command that really ran are in the trace, and the runner's log names it."""
    with collector() as (url, received):
        async with start_hub(otlp_endpoint=check_otlp_endpoint(url)) as hub, asking_runner(hub) as runner:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "sleep 0.2"}}
            reply = await hub.http.post("/api/v1/tasks", params={"wait_s": 60}, json=body, headers=headers)
            assert reply.json()["state"] == "succeeded", reply.text
            await runner.logged(TRACE)
        scopes = [scope for one in received for resource in one.resource_spans for scope in resource.scope_spans]
        found = {span.name: span for scope in scopes for span in scope.spans if span.trace_id.hex() == TRACE}
        assert {"task bash", "runner", "gate", "slot", "launch", "exec"} <= set(found)
        # The runner may hear late that the command has started: the sleep is in both together.
        assert found["exec"].end_time_unix_nano - found["launch"].start_time_unix_nano >= 200_000_000
        assert found["gate"].end_time_unix_nano <= found["launch"].start_time_unix_nano + 1_000
        assert found["launch"].end_time_unix_nano <= found["exec"].start_time_unix_nano + 1_000


async def test_without_an_endpoint_runners_are_not_asked(hub):
    """No span is asked of a runner, and the SDK is not used, where nobody wants traces; tasks have their trace id."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        await hub.start()
        asked = await runner.expect("task.request")
        assert "parent_span_id" not in asked
        assert re.fullmatch("[0-9a-f]{32}", asked["trace_id"])
        assert not hub.hub.services.traces.is_on


async def test_figures_for_prometheus(hub):
    """They parse, count what happened, and name nobody; a token of their own scope is enough, and needed."""
    created = await hub.environment("host-of-somebody", tags=["secret-tag"])
    await hub.environment("never-seen")
    made = await hub.http.post("/api/v1/tokens", json={"name": "prometheus", "scopes": ["metrics:read"]})
    headers = {"authorization": f"Bearer {made.json()['secret']}"}
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online("host-of-somebody")
        task = await hub.start("cat /etc/private", environment="host-of-somebody")
        asked = await runner.expect("task.request")
        await runner.result(asked["task_id"])
        await hub.result(task["id"])
        running = await hub.start("sleep 9", environment="host-of-somebody")
        await runner.expect("task.request")
        async with httpx2.AsyncClient(base_url=hub.url, headers=headers, timeout=30) as http:
            reply = await http.get("/metrics")
            assert (await http.get("/api/v1/tasks")).status_code == 403
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["guardhouse_tasks_ended_total", "succeeded"] == 1
    assert values["guardhouse_tasks", "sent"] == 1
    assert values["guardhouse_runners_connected", "guardhouse.v1"] == 1
    assert [values["guardhouse_environments", one] for one in ("online", "offline", "pending")] == [1, 0, 1]
    assert values["guardhouse_http_requests_total", "/api/v1/tasks", "202", "POST"] == 2
    newest = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
    assert 0 < values["guardhouse_audit_records",] <= newest
    assert "guardhouse_event_loop_delay_seconds" in families
    for private in ("host-of-somebody", "secret-tag", created["environment"]["id"], "private", running["id"], "ght_"):
        assert private not in reply.text, private
    await become_owner(hub)
    member, _ = await invite(hub, "member@example.com")
    async with httpx2.AsyncClient(base_url=hub.url, cookies=member, headers={"sec-fetch-site": "same-origin"}) as http:
        assert (await http.get("/metrics")).status_code == 403


@pytest.mark.one_store("headers alone")
async def test_every_answer_has_a_trace_id(hub):
    """Also what no route answers, and what agents and probes ask; each one its own, in the log as well."""
    seen = set()
    for path in (
        "/nowhere",
        "/mcp",
        "/healthz",
        "/readyz",
        "/metrics",
        "/device",
        "/api/v1/runner/ws",
        "/api/v1/tasks",
    ):
        reply = await hub.http.get(path, headers={"authorization": "Bearer wrong"} if path == "/api/v1/tasks" else {})
        assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-trace-id"]), path
        assert len(reply.headers.get_list("x-trace-id")) == 1
        seen.add(reply.headers["x-trace-id"])
    assert len(seen) == 8


@pytest.mark.one_store("names and types; test_figures_for_prometheus has the values of both")
async def test_figures_keep_prometheus_conventions(hub):
    """What `promtool check metrics` holds: suffixes by type, base units, a help text; and labels of bounded number.

    Source: https://prometheus.io/docs/practices/naming/ and https://prometheus.io/docs/practices/instrumentation/.
    """
    for path in (
        "/api/v1/tasks/tsk_1",
        "/api/v1/tasks/tsk_2",
        "/nowhere/1",
        "/nowhere/2",
        "/api/v1/environments/a%0Ab",
    ):
        await hub.http.get(path)
    text = (await hub.http.get("/metrics")).text
    families = list(text_string_to_metric_families(text))
    routes = {route.path for route in ROUTES}
    for family in families:
        name = family.name
        assert re.fullmatch(r"(guardhouse|process)_[a-z0-9]+(_[a-z0-9]+)*", name), name
        assert family.documentation, name
        assert not name.endswith(("_created", "_sum", "_count", "_bucket", "_info_total")), name
        assert not re.search(
            r"_(ms|milliseconds|kib|mib|kilobytes|minutes|hours|gauge|counter|histogram)(_|$)", name
        ), name
        assert family.type in {"counter", "gauge", "histogram"}, name
        # The parser takes the suffix from a counter's name, as OpenMetrics has it.
        assert (f"# TYPE {name}_total counter" in text) == (family.type == "counter"), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name
        for sample in family.samples:
            assert set(sample.labels) <= {
                "method", "route", "status", "state", "limit", "reason", "protocol", "version", "le"
            }, sample  # fmt: skip
            assert sample.labels.get("route", "/metrics") in routes, sample
    ended = next(family for family in families if family.name == "guardhouse_tasks_ended")
    assert {sample.labels["state"]: sample.value for sample in ended.samples} == {
        "succeeded": 0, "failed": 0, "cancelled": 0, "timed_out": 0, "lost": 0
    }  # fmt: skip


async def test_log_lines_have_the_trace(hub):
    """The line of a request says which trace it belongs to, and so does what its handler logs."""
    lines: list[dict[str, Any]] = []

    def keep(logger: object, method: str, event: Any) -> Any:
        lines.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    try:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        await hub.http.get("/api/v1/self", headers=headers)

        async def logged() -> bool:
            return any(line.get("trace_id") == TRACE for line in lines)

        await hub.until(logged)
    finally:
        structlog.reset_defaults()
