"""What the routes of the audit log take and give. Runs in the hub."""

from typing import Annotated, Any

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Offset, Output, Page, Text

__all__ = [
    "AuditEvent",
    "AuditExportQuery",
    "AuditKey",
    "AuditList",
    "AuditQuery",
]


class AuditQuery(Input, frozen=True):
    """Which of the deeds, newest first.

    ``person`` (id or address) also finds what their API tokens did. ``action`` is the start of one (``task.``),
    ``command`` and ``executed`` are parts of what was asked for and of what really ran, ``text`` is looked for in both
    and in the details; ``since`` and ``until`` are ISO 8601.
    """

    before: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    limit: Page = 100
    actor: Text | None = None
    person: Text | None = None
    action: Text | None = None
    target: Text | None = None
    environment: Text | None = None
    task: Text | None = None
    command: Text | None = None
    executed: Text | None = None
    text: Text | None = None
    since: Text | None = None
    until: Text | None = None


class AuditExportQuery(Input, frozen=True):
    """Behind which record the export begins; 0 exports all."""

    after: Offset = 0


class AuditKey(Output, frozen=True):
    """The Ed25519 public key, 32 bytes in base64; ``key_id`` is 16 digits of its SHA-256."""

    public_key: str
    key_id: str


class AuditEvent(Output, frozen=True):
    """One deed; ``hash`` chains it to the one before."""

    seq: int
    at: str
    actor: str
    action: str
    target: str | None
    address: str | None
    environment: str | None
    task: str | None
    command: str | None
    executed: str | None
    detail: dict[str, Any]
    hash: str


class AuditList(Output, frozen=True):
    """One page; ``next_before`` is null on the last."""

    events: list[AuditEvent]
    next_before: int | None
