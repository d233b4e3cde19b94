"""The hub's log: one event a line, as JSON for machines or as text for people, never with a token in it.

Runs in the hub, once at start.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from guardhouse.hub.credentials import TOKEN_PATTERN

__all__ = ["configure_logs", "redact_tokens"]


def redact_tokens(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace whatever looks like a token: the last net, should a value ever carry one here."""
    del logger, method
    for key, value in event.items():
        if isinstance(value, str) and "_" in value:
            event[key] = TOKEN_PATTERN.sub(lambda found: f"{found.group()[:4]}[redacted]", value)
    return event


def configure_logs(*, level: str, log_format: str) -> None:
    """Write events of ``level`` and above to standard error."""
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, redact_tokens, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
