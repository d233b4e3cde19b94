"""Finished spans to an OpenTelemetry collector, over OTLP/HTTP.

Imported only where the operator names an endpoint: the SDK takes longer to load than the rest of the hub. Its exporter
has a thread of its own and drops what the collector does not take in time. Runs in the hub.
"""

import logging
from typing import Final

import structlog
import trio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from guardhouse import __version__
from guardhouse.hub.traces import FinishedSpan, SpanRole

__all__ = ["OtlpExporter"]

_log = structlog.get_logger("guardhouse.hub.traces")

EXPORT_EVERY_MS: Final = 2_000
EXPORT_TIMEOUT_S: Final = 10
QUEUE_SPANS: Final = 4_096
FLUSH_MS: Final = 3_000
_SCOPE: Final = InstrumentationScope("guardhouse.hub", __version__)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_KINDS: Final = {
    SpanRole.REQUEST: SpanKind.SERVER,
    SpanRole.TASK: SpanKind.PRODUCER,
    SpanRole.RUNNER: SpanKind.CONSUMER,
    SpanRole.PART: SpanKind.INTERNAL,
}


class _ToOurLog(logging.Handler):
    """What the exporter has to say, as events of the hub's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one on."""
        _log.warning("otlp", detail=record.getMessage()[:500])


class OtlpExporter:
    """Posts spans in batches. The headers of ``OTEL_EXPORTER_OTLP_HEADERS`` go with them."""

    def __init__(self, endpoint: str, *, instance_id: str) -> None:
        self._resource = Resource.create(
            {"service.name": "guardhouse-hub", "service.version": __version__, "service.instance.id": instance_id}
        )
        logger = logging.getLogger("opentelemetry")
        if not any(isinstance(handler, _ToOurLog) for handler in logger.handlers):
            logger.addHandler(_ToOurLog())
            logger.propagate = False
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S),
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=EXPORT_EVERY_MS,
        )

    def add(self, span: FinishedSpan) -> None:
        """Put a span in line; never waits."""
        parent = span.context.parent_id
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_span_context(span.context.trace_id, span.context.span_id),
                parent=None if parent is None else _span_context(span.context.trace_id, parent),
                resource=self._resource,
                attributes=span.attributes,
                kind=_KINDS[span.role],
                status=Status(StatusCode.ERROR if span.is_bad else StatusCode.UNSET),
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=_SCOPE,
            )
        )

    async def close(self) -> None:
        """Export what is left, for a few seconds at most."""
        await trio.to_thread.run_sync(self._processor.force_flush, FLUSH_MS)
        await trio.to_thread.run_sync(self._processor.shutdown)


def _span_context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)
