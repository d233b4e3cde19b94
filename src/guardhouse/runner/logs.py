"""The runner's log: key=value lines on standard error, with the token and other secrets taken out whatever writes it.

Libraries log through `logging`; they are kept at warnings, because some print addresses at debug level. Runs in
the runner.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from guardhouse.runner.credential import Token

__all__ = ["get_logger", "hide_in_logs", "redact_logs", "start_logging"]

_secrets: list[str] = []
_redactions: list[Callable[[str], str]] = []


def start_logging(level: str) -> None:
    """Write events of ``level`` (debug, info, warning, error) and above to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redact,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="level=%(levelname)s event=%(message)s")


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the runner's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def hide_in_logs(token: Token) -> None:
    """Replace the token in every line from now on, should anything ever try to write it."""
    _secrets.append(token.reveal())


def redact_logs(redact: Callable[[str], str]) -> None:
    """Pass every text of every line through ``redact`` from now on."""
    _redactions[:] = [redact]


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        text = value if isinstance(value, str) else str(value)
        for secret in _secrets:
            if secret in text:
                event[key] = text = text.replace(secret, "[token]")
        for redact in _redactions:
            redacted = redact(text)
            if redacted != text:
                event[key] = text = redacted
    return event
