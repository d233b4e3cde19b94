"""Routes of files: read one, put one in its place, ask how far an upload is. As streams, part by part.

Bytes pass through and are kept nowhere: one part of a transfer is in memory at a time. A runner that is away for a
moment is waited for; whoever asks goes on from where it is, with the same transfer and the next offset. Runs in the
hub.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import trio
from msgspec import Meta

from guardhouse.errors import Refusal
from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.audit.policies import policies_of_report
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.gateway.file_calls import ConnectionLost
from guardhouse.hub.store.audit import record_audit_event
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.limits import (
    FILE_BODY_IDLE_S,
    FILE_CALL_TIMEOUT_S,
    FILE_PART_MAX_BYTES,
    FILE_RECONNECT_WAIT_S,
    HUB_TRANSFERS_MAX,
    WIRE_PATH_MAX_CHARS,
)
from guardhouse.wire.messages_files import FileRead, FileResult, FileWrite
from guardhouse.wire.paths import path_as_bytes, path_as_text, path_b64

__all__ = [
    "OCTETS",
    "FileQuery",
    "FileUpload",
    "UploadQuery",
    "UploadStateQuery",
    "away_wait_s",
    "read_file",
    "show_upload",
    "write_file",
]

OCTETS: Final = "application/octet-stream"
_PathText = Annotated[str, Meta(min_length=1, max_length=WIRE_PATH_MAX_CHARS, pattern=r"\A[^\x00]*\Z")]
_TransferId = Annotated[str, Meta(min_length=8, max_length=64, pattern=r"\A[A-Za-z0-9_-]*\Z")]
_Checksum = Annotated[str, Meta(pattern=r"\A(sha256:)?[0-9a-fA-F]{64}\Z|\A\Z")]
_Offset = Annotated[int, Meta(ge=0, le=2**53 - 1)]
# What a runner answers to a path: not the hub's fault, and not a lack of rights in the hub.
_STATUS: Final = {"not_found": 404, "conflict": 409, "checksum": 409, "busy": 429}
_POLL_S: Final = 0.2
_DROP_S: Final = 10.0
_DROP_MAX_BYTES: Final = 64 * 1024 * 1024


class FileQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which file to read, and from where on. ``transfer`` is the header of the answer that is gone on with."""

    path: _PathText
    path_b64: str | None = None
    offset: _Offset = 0
    transfer: _TransferId | None = None


class UploadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Where the body goes.

    ``checksum`` is that of the whole file; it must be there when the body begins at an ``offset``. ``if_checksum``
    writes only over a file that has it, and with ``none`` only where there is none.
    """

    path: _PathText
    path_b64: str | None = None
    transfer: _TransferId | None = None
    offset: _Offset = 0
    checksum: _Checksum | None = None
    if_checksum: Annotated[str, Meta(pattern=r"\A((sha256:)?[0-9a-fA-F]{64}|none)\Z")] | None = None


class UploadStateQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which upload."""

    path: _PathText
    path_b64: str | None = None
    transfer: _TransferId


class FileUpload(msgspec.Struct, frozen=True, kw_only=True):
    """How far an upload is; ``checksum`` and ``notes`` once the file is in its place."""

    path: str
    transfer: str
    size: int
    finished: bool
    checksum: str | None = None
    notes: tuple[str, ...] = ()


async def read_file(call: Call) -> Reply:
    """Answer a file's bytes from ``offset`` on, secrets taken out on its host.

    ``x-guardhouse-transfer`` names the transfer, ``x-guardhouse-size`` is the file's own size. When nothing follows
    (``x-guardhouse-end``), ``x-guardhouse-checksum`` is that of the whole as sent: ask once more at the last offset.
    """
    query: FileQuery = call.query
    environment = _environment(call)
    path = _path(query.path, query.path_b64)
    transfer = query.transfer or mint_id("file")
    asked = _Transfer(call, environment, path, transfer)
    with _held(call):
        if query.transfer is None or query.offset == 0:
            await _audit(call, environment, "file.read", path, transfer)
        first = await asked.read(query.offset)
    headers = {
        "x-guardhouse-transfer": transfer,
        "x-guardhouse-size": str(first.total_size or 0),
        "x-guardhouse-end": "true" if first.end else "false",
        "cache-control": "no-store",
        # Somebody else's bytes under the hub's own address: a browser keeps them and shows or runs nothing.
        "content-disposition": "attachment",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    if first.end:
        headers |= {"x-guardhouse-checksum": first.checksum or "", "x-guardhouse-secrets": str(first.secrets)}
        return Reply(first.content, media_type=OCTETS, headers=headers)
    return Reply(_parts(call, asked, first), media_type=OCTETS, headers=headers)


async def _parts(call: Call, asked: "_Transfer", part: FileResult) -> AsyncIterator[bytes]:
    """Yield ``part`` and all that follow. An error cuts the answer short, which its reader sees and goes on from."""
    # Counted from here on: an answer whose sending never begins never comes here.
    call.services.links.transfers += 1
    try:
        while True:
            if part.content:
                yield part.content
            if part.end:
                return
            part = await asked.read(part.next_offset)
    finally:
        call.services.links.transfers -= 1


async def write_file(call: Call) -> Reply:
    """Put the body in the file's place, whole or not at all.

    What arrived before a cut stays on the host for a day: ask how far it is and send the rest at that ``offset``, with
    the same ``transfer``.
    """
    query: UploadQuery = call.query
    if query.offset and not (query.checksum and query.transfer):
        raise ApiError(
            400,
            "invalid_query",
            "a body that begins at an offset needs the transfer that it goes on with and the whole file's checksum",
            hint="give transfer= and checksum=sha256:HEX",
        )
    environment = _environment(call)
    path = _path(query.path, query.path_b64)
    transfer = query.transfer or mint_id("file")
    asked = _Transfer(call, environment, path, transfer)
    digest = hashlib.sha256()
    with _held(call):
        await _audit(call, environment, "file.write", path, transfer)
        offset = query.offset
        try:
            async for part in _body_parts(call.body):
                digest.update(part)
                offset += len(part)
                await asked.write(offset - len(part), part)
        except ApiError:
            await _drop(call.body)
            raise
        checksum = query.checksum or digest.hexdigest()
        if_checksum = "" if query.if_checksum == "none" else query.if_checksum
        done = await asked.write(offset, b"", last=True, checksum=checksum, if_checksum=if_checksum)
    return Reply(
        FileUpload(
            path=path_as_text(path), transfer=transfer, size=done.next_offset, finished=True, checksum=done.checksum,
            notes=done.notes,
        )
    )  # fmt: skip


async def show_upload(call: Call) -> Reply:
    """Answer how much of an unfinished upload has arrived on the host."""
    query: UploadStateQuery = call.query
    environment = _environment(call)
    path = _path(query.path, query.path_b64)
    with _held(call):
        state = await _Transfer(call, environment, path, query.transfer).write(0, b"")
    return Reply(FileUpload(path=path_as_text(path), transfer=query.transfer, size=state.next_offset, finished=False))


class _Transfer:
    """One file of one environment: asks its runner for parts, over as many connections as it takes."""

    def __init__(self, call: Call, environment: EnvironmentRecord, path: bytes, transfer: str) -> None:
        self._links = call.services.links
        self._environment = environment
        self._away_wait_s = away_wait_s(environment, now_ms=now_ms(), hub_started_ms=call.services.started_ms)
        # Of this caller's own: nobody goes on with the transfer of somebody else.
        self._common: dict[str, Any] = {
            "transfer_id": f"{call.actor.id}.{transfer}",
            "path": path_as_text(path),
            "path_b64": path_b64(path),
        }

    async def read(self, offset: int) -> FileResult:
        """Return the part at ``offset``."""
        return await self._ask(partial(FileRead, **self._common, offset=offset))

    async def write(self, offset: int, content: bytes, **more: Any) -> FileResult:
        """Put a part at ``offset``."""
        return await self._ask(partial(FileWrite, **self._common, offset=offset, content=content, **more))

    async def _ask(self, make: "partial[FileRead] | partial[FileWrite]") -> FileResult:
        until_s = trio.current_time() + self._away_wait_s
        give_up_s = trio.current_time() + FILE_CALL_TIMEOUT_S
        while True:
            link = self._links.find(self._environment.id)
            if link is not None and link.protocol != "guardhouse.v1":
                raise ApiError(
                    409,
                    "plain_protocol",
                    f"the runner of {self._environment.shown_name!r} speaks the plain protocol",
                    hint="it has no file streams: use read and write tasks",
                )
            if link is not None and link.is_ready:
                try:
                    result = await link.ask_file(make(call_id=mint_id("call")))
                except ConnectionLost:
                    # Asking again is safe: a part is the same however often it is asked for.
                    until_s = min(give_up_s, trio.current_time() + FILE_RECONNECT_WAIT_S)
                    await trio.sleep(_POLL_S)
                    continue
                except Refusal as error:
                    raise ApiError(409, "environment_unavailable", str(error), retryable=True) from error
                return _checked(result)
            if trio.current_time() >= until_s:
                raise ApiError(
                    409,
                    "environment_unavailable",
                    f"the runner of {self._environment.shown_name!r} is not connected",
                    hint="'guardhouse env show' says since when and why; ask again from the same offset",
                    retryable=True,
                )
            await trio.sleep(_POLL_S)


def away_wait_s(environment: EnvironmentRecord, *, now_ms: int, hub_started_ms: int) -> float:
    """Return for how many seconds a runner that is not connected is waited for: it may be on its way back.

    Nobody waits for one that has never come, nor for one that has been away for longer than `FILE_RECONNECT_WAIT_S`.
    """
    if environment.first_seen_ms is None:
        return 0.0
    # The hub's start: before it nobody was connected. A heartbeat: a disconnect is written a moment late.
    since_ms = max(hub_started_ms, environment.disconnected_ms or 0, environment.last_heartbeat_ms or 0)
    return min(FILE_RECONNECT_WAIT_S, max(0.0, FILE_RECONNECT_WAIT_S - (now_ms - since_ms) / 1000))


def _checked(result: FileResult) -> FileResult:
    if result.success:
        return result
    code = result.error_code or "refused"
    message = result.error or "the runner refused and gave no reason"
    raise ApiError(_STATUS.get(code, 422), f"file_{code}", message, retryable=code == "busy")


def _environment(call: Call) -> EnvironmentRecord:
    if call.environment is None:
        raise environment_not_found(call.path["environment"])
    return call.environment


def _path(text: str, exact: str | None) -> bytes:
    """Return the path as bytes; PeerError where its two forms disagree."""
    try:
        raw = None if exact is None else msgspec.convert(exact, bytes)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_query", "path_b64 is no base64", hint="leave it out for a UTF-8 path") from error
    return path_as_bytes(text, raw)


async def _body_parts(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the body in parts of one size, holding one at a time."""
    gathered = bytearray()
    while True:
        with trio.move_on_after(FILE_BODY_IDLE_S) as deadline:
            chunk = await anext(chunks, None)
        if deadline.cancelled_caught:
            raise ApiError(
                408,
                "body_timeout",
                f"nothing arrived for {FILE_BODY_IDLE_S:g} s",
                hint="ask how far the upload is and send the rest",
                retryable=True,
            )
        if chunk is None:
            break
        gathered += chunk
        while len(gathered) >= FILE_PART_MAX_BYTES:
            yield bytes(gathered[:FILE_PART_MAX_BYTES])
            del gathered[:FILE_PART_MAX_BYTES]
    if gathered:
        yield bytes(gathered)


async def _drop(chunks: AsyncIterator[bytes]) -> None:
    """Read on for a while: who is still sending looks for an answer only afterwards."""
    dropped = 0
    with trio.move_on_after(_DROP_S):
        async for chunk in chunks:
            dropped += len(chunk)
            if dropped > _DROP_MAX_BYTES:
                return


@contextmanager
def _held(call: Call) -> Iterator[None]:
    """Count a transfer for as long as the block lasts."""
    links = call.services.links
    if links.transfers >= HUB_TRANSFERS_MAX:
        raise ApiError(
            429, "too_many_transfers", f"{links.transfers} files are on their way already", hint="wait", retryable=True
        )
    links.transfers += 1
    try:
        yield
    finally:
        links.transfers -= 1


async def _audit(call: Call, environment: EnvironmentRecord, action: str, path: bytes, transfer: str) -> None:
    await call.services.database.write(
        partial(
            record_audit_event,
            at_ms=now_ms(),
            actor=call.actor.id,
            action=action,
            target=environment.id,
            address=call.address,
            environment=environment.id,
            path=path_as_text(path)[:1024],
            transfer=transfer,
            policies=policies_of_report(call.services.links.reported_policy(environment.id)),
        )
    )
