"""Which trace something belongs to: W3C trace context in, the ids of our own spans out. Pure. Runs in the hub.

Source: https://www.w3.org/TR/trace-context/, sections 2.2 and 3.2.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

__all__ = ["TraceContext", "child_context", "derived_trace_id", "parse_traceparent", "task_span_id"]

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", re.ASCII)


@dataclass(frozen=True)
class TraceContext:
    """One span: 32 and 16 hexadecimal digits; ``parent_id`` is the span that it lies in, None at the top."""

    trace_id: str
    span_id: str
    parent_id: str | None = None


def parse_traceparent(text: str | None) -> TraceContext | None:
    """Return the caller's span of a ``traceparent`` header; None where there is none that is valid."""
    found = _TRACEPARENT.fullmatch(text) if text is not None and len(text) <= 256 else None
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    if text is not None and text.startswith("00") and len(text) != 55:
        return None
    return TraceContext(found[1], found[2])


def child_context(parent: TraceContext | None) -> TraceContext:
    """Return a new span below ``parent``, or at the top of a new trace."""
    if parent is None:
        return TraceContext(secrets.token_hex(16), secrets.token_hex(8))
    return TraceContext(parent.trace_id, secrets.token_hex(8), parent.span_id)


def task_span_id(task_id: str) -> str:
    """Return the id of a task's span; the same after a restart."""
    return hashlib.sha256(f"span:{task_id}".encode()).hexdigest()[:16]


def derived_trace_id(origin: str) -> str:
    """Return the one trace that all tasks of a fan-out or schedule belong to."""
    return hashlib.sha256(f"trace:{origin}".encode()).hexdigest()[:32]
