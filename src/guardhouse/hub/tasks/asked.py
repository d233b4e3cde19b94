"""What somebody asked to be run, kept to be started later or many times: checked once, and whose right it was.

Runs in the hub.
"""

import hashlib
from typing import Any

import msgspec

from guardhouse import limits
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Credentials, Principal, Scope, check_access
from guardhouse.hub.concerns import check_runs
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.tasks.board import ENVELOPE_BYTES
from guardhouse.wire import parse_args

__all__ = ["check_still_may", "encode_args", "request_digest"]


def encode_args(operation: str, args: dict[str, Any]) -> bytes:
    """Return checked arguments as they are stored.

    Raises:
        PeerError: operation or args are wrong.
        ApiError: 413.
    """
    parse_args(operation, args)
    encoded = msgspec.json.encode(args)
    if len(encoded) > limits.MESSAGE_MAX_BYTES - ENVELOPE_BYTES:
        raise ApiError(413, "oversized", f"args of {len(encoded)} bytes do not fit a message", hint="send less")
    return encoded


def request_digest(*parts: Any) -> bytes:
    """Return what tells two requests under one idempotency key apart."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).digest()


def check_still_may(
    credentials: Credentials, actor_id: str, environment: EnvironmentRecord, *, now_ms: int
) -> Principal:
    """Return who asked, as they are now, when they still may run in ``environment``.

    Raises:
        AuthenticationFailed: the token was revoked or is over, or the person was disabled.
        AccessDenied: it lost the scope.
        NotVisible: it is narrowed to other environments.
    """
    principal = credentials.standing(actor_id, now_ms=now_ms)
    check_access(principal, Scope.TASKS_RUN)
    check_runs(principal, environment)
    return principal
