"""One function an operation: typed arguments from the wire in, the workspace library called, a typed result out.

Knows both sides' shapes and nothing of sockets. Runs in the files worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from guardhouse.errors import PeerError
from guardhouse.wire import operations as wire
from guardhouse.wire.paths import path_as_text, path_b64
from guardhouse.worker.settings import FilesSettings
from guardhouse.workspace.entry import Entry, Kind, stat_path
from guardhouse.workspace.handle import Workspace
from guardhouse.workspace.listing import list_directory
from guardhouse.workspace.read import read_file
from guardhouse.workspace.walk import Problem
from guardhouse.workspace.write import edit_file, write_file

__all__ = ["HANDLERS", "Served", "Session", "serve"]

Body = bytes | memoryview


@dataclass(slots=True)
class Session:
    """What every operation of one worker shares."""

    workspace: Workspace
    settings: FilesSettings
    tick: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class Served:
    """A result and the bytes that travel beside it."""

    result: msgspec.Struct
    body: Body = b""


def serve(session: Session, operation: str, args: msgspec.Raw, body: Body) -> Served:
    """Do one operation.

    Raises:
        PeerError: no such operation, or arguments of another shape.
        WorkspaceRefusal: the workspace said no.
    """
    if operation not in HANDLERS:
        raise PeerError(f"unknown operation: {operation[:100]}", code=wire.UNKNOWN_OPERATION)
    kind, handler = HANDLERS[operation]
    try:
        typed = msgspec.json.decode(args, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"invalid {operation} args: {error}", code=wire.INVALID_ARGS) from error
    return handler(session, typed, body)


def _read(session: Session, args: wire.ReadArgs, _body: Body) -> Served:
    part = read_file(session.workspace, args.path_bytes, offset=args.offset, limit=args.limit, tick=session.tick)
    notes: tuple[str, ...] = ()
    if part.bounded:
        end = part.offset + len(part.content)
        notes = (f"{len(part.content)} bytes are all that one answer holds; read on at offset {end}",)
    return Served(wire.ReadResult(total_size=part.total_size, notes=notes), part.content)


def _write(session: Session, args: wire.WriteArgs, body: Body) -> Served:
    written = write_file(session.workspace, args.path_bytes, body, if_checksum=_hex(args.if_checksum))
    return Served(wire.SuccessResult(checksum=f"sha256:{written.checksum}"))


def _edit(session: Session, args: wire.EditArgs, _body: Body) -> Served:
    edited = edit_file(
        session.workspace, args.path_bytes, args.old.encode(), args.new.encode(),
        replace_all=args.replace_all, if_checksum=_hex(args.if_checksum),
    )  # fmt: skip
    return Served(wire.EditResult(replacements=edited.replacements, checksum=f"sha256:{edited.written.checksum}"))


def _list(session: Session, args: wire.ListArgs, _body: Body) -> Served:
    listing = list_directory(
        session.workspace, args.path_bytes, recursive=args.recursive, ignore=args.ignore, tick=session.tick
    )
    return Served(
        wire.ListResult(
            entries=tuple(_list_entry(entry) for entry in listing.entries),
            truncated=listing.left_out > 0,
            left_out=listing.left_out,
            problems=_problems(listing.problems, listing.problem_count),
        )
    )


def _stat(session: Session, args: wire.StatArgs, _body: Body) -> Served:
    entry = stat_path(session.workspace, args.path_bytes)
    return Served(
        wire.StatResult(
            path=path_as_text(entry.path), path_b64=path_b64(entry.path), kind=entry.kind.value, size=entry.size,
            mode=entry.mode, modified_s=entry.mtime_ns / 1e9,
            target=None if entry.target is None else path_as_text(entry.target),
        )
    )  # fmt: skip


def _list_entry(entry: Entry) -> wire.ListEntry:
    plain = entry.kind in (Kind.FILE, Kind.DIRECTORY)
    return wire.ListEntry(
        path=path_as_text(entry.path), path_b64=path_b64(entry.path), is_dir=entry.kind is Kind.DIRECTORY,
        size=entry.size, kind=None if plain else entry.kind.value,
        target=None if entry.target is None else path_as_text(entry.target),
    )  # fmt: skip


def _problems(problems: list[Problem], count: int) -> tuple[wire.WalkProblem, ...]:
    shown = [wire.WalkProblem(path=path_as_text(p.path), path_b64=path_b64(p.path), error=p.reason) for p in problems]
    if count > len(problems):
        shown.append(wire.WalkProblem(path=".", error=f"{count - len(problems)} more places could not be read"))
    return tuple(shown)


def _hex(checksum: str | None) -> str | None:
    return checksum if checksum is None else checksum.removeprefix("sha256:")


Handler = Callable[[Session, Any, Body], Served]
HANDLERS: Final[dict[str, tuple[type[msgspec.Struct], Handler]]] = {
    "read": (wire.ReadArgs, _read),
    "write": (wire.WriteArgs, _write),
    "edit": (wire.EditArgs, _edit),
    "list": (wire.ListArgs, _list),
    "stat": (wire.StatArgs, _stat),
}
