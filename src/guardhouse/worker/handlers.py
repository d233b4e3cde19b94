"""One function an operation: typed arguments from the wire in, the workspace library called, a typed result out.

Knows both sides' shapes and nothing of sockets. Runs in the files worker.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from guardhouse.errors import PeerError
from guardhouse.limits import GREP_MAX_MATCHES, INLINE_LIMIT_CHARS, READ_MAX_BYTES
from guardhouse.wire import operations as wire
from guardhouse.wire.paths import path_as_text, path_b64
from guardhouse.worker import protocol
from guardhouse.worker.settings import FilesSettings
from guardhouse.workspace.change import move_path, remove_path
from guardhouse.workspace.entry import Kind, stat_path
from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown
from guardhouse.workspace.find import find_paths
from guardhouse.workspace.handle import Workspace
from guardhouse.workspace.hashed import hash_file
from guardhouse.workspace.install import install_skill, is_skill_place, list_skills, remove_skill
from guardhouse.workspace.listing import Listed, list_directory
from guardhouse.workspace.place import Place
from guardhouse.workspace.read import read_chunk, read_file
from guardhouse.workspace.search import Hit, search_files
from guardhouse.workspace.spill import Bounded, bound_text, expire_outputs
from guardhouse.workspace.temporaries import Swept, Temporaries, remove_leftovers
from guardhouse.workspace.upload import Arrived, expire_uploads, write_part
from guardhouse.workspace.usage import Quota, measure
from guardhouse.workspace.walk import Problem
from guardhouse.workspace.write import Written, edit_file, write_file

__all__ = ["HANDLERS", "Served", "Session", "serve"]

Body = bytes | memoryview


@dataclass(slots=True)
class Session:
    """What every operation of one worker shares.

    Attributes:
        workspace: the handle, rules included.
        settings: the operator's.
        tick: called by long operations; raises when the client has cancelled.
        now_s: Unix time.
        say: tells the operator, in one line.
        temporaries: names for unfinished files.
        quota: asked before anything is written.
    """

    workspace: Workspace
    settings: FilesSettings
    tick: Callable[[], None] = lambda: None
    now_s: Callable[[], float] = time.time
    say: Callable[[str], None] = lambda _line: None
    temporaries: Temporaries = field(init=False)
    quota: Quota = field(init=False)

    def __post_init__(self) -> None:
        self.temporaries = Temporaries(self.workspace.without_rules())
        self.quota = Quota(self.workspace, max_bytes=self.settings.quota_bytes, max_entries=self.settings.quota_files)

    def begin(self) -> None:
        """Remove what workers before this one left, and what has expired since."""
        self.report(self.temporaries.sweep())
        own, settings, now_s = self.workspace.without_rules(), self.settings, self.now_s()
        expire_uploads(own, older_than_s=settings.stale_after_s, now_s=now_s)
        expire_outputs(own, max_age_s=settings.spill_max_age_s, max_bytes=settings.spill_max_bytes, now_s=now_s)

    def report(self, swept: Swept) -> None:
        """Have it said where content is now that belongs to somebody and lost its name."""
        for path in swept.kept:
            self.say(f"an unfinished write had taken the place of somebody's file; that is kept as {shown(path)}")

    def bound(self, content: bytes, operation: str, command: str = "") -> Bounded:
        """Return ``content`` as text that fits a message; saved whole first when it does not."""
        own, settings, now_s = self.workspace.without_rules(), self.settings, self.now_s()

        def make_room(size: int) -> None:
            if 0 < settings.spill_max_bytes < size:
                raise WorkspaceRefusal(
                    f"{size} bytes are over the {settings.spill_max_bytes} that saved outputs may have together",
                    code=Code.QUOTA,
                )
            rest = max(settings.spill_max_bytes - size, 1) if settings.spill_max_bytes else 0
            expire_outputs(own, max_age_s=settings.spill_max_age_s, max_bytes=rest, now_s=now_s)

        return bound_text(own, content, operation=operation, command=command, now_s=now_s, make_room=make_room)


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
    checksum = None if part.checksum is None else f"sha256:{part.checksum}"
    return Served(wire.ReadResult(total_size=part.total_size, checksum=checksum, notes=notes), part.content)


def _write(session: Session, args: wire.WriteArgs, body: Body) -> Served:
    if args.upload_id is None and not args.offset and args.last:
        _check_arrived(args, body)
        written: Written | None = write_file(
            session.workspace, args.path_bytes, body, if_checksum=_hex(args.if_checksum),
            temporaries=session.temporaries, admit=session.quota.admit,
        )  # fmt: skip
    elif args.upload_id is None:
        raise PeerError("invalid write args: a part (offset, last) needs an upload_id", code=wire.INVALID_ARGS)
    else:
        written = _write_part(session, args, args.upload_id, body).written
    if written is None:
        return Served(wire.SuccessResult())
    return Served(wire.SuccessResult(checksum=f"sha256:{written.checksum}", notes=written.notes))


def _write_part(session: Session, args: wire.WriteArgs, upload_id: str, body: Body) -> Arrived:
    # The room of those that were given up is there for the next one.
    now_s = session.now_s()
    expire_uploads(session.workspace.without_rules(), older_than_s=session.settings.stale_after_s, now_s=now_s)
    return write_part(
        session.workspace, args.path_bytes, body, upload_id=upload_id, offset=args.offset, last=args.last,
        checksum=_hex(args.checksum), if_checksum=_hex(args.if_checksum), temporaries=session.temporaries,
        admit_growth=session.quota.admit_growth, admit=partial(_admit_uploaded, session.quota), tick=session.tick,
    )  # fmt: skip


def _admit_uploaded(quota: Quota, place: Place, size: int) -> None:
    quota.admit(place, size, uploaded=size)


def _chunk(session: Session, args: protocol.ChunkArgs, _body: Body) -> Served:
    chunk = read_chunk(
        session.workspace, args.path, offset=args.offset, limit=min(args.limit, READ_MAX_BYTES), identity=args.identity,
        tick=session.tick,
    )  # fmt: skip
    result = protocol.ChunkResult(total_size=chunk.total_size, identity=chunk.identity, ended=chunk.ended)
    return Served(result, chunk.content)


def _upload(session: Session, args: wire.WriteArgs, body: Body) -> Served:
    if args.upload_id is None:
        raise PeerError("invalid upload args: an upload needs an upload_id", code=wire.INVALID_ARGS)
    arrived = _write_part(session, args, args.upload_id, body)
    if arrived.written is None:
        return Served(protocol.UploadResult(size=arrived.size))
    checksum, notes = f"sha256:{arrived.written.checksum}", arrived.written.notes
    return Served(protocol.UploadResult(size=arrived.size, checksum=checksum, notes=notes))


def _check_arrived(args: wire.WriteArgs, body: Body) -> None:
    if args.checksum is not None and _hex(args.checksum) != hashlib.sha256(body).hexdigest():
        raise WorkspaceRefusal(
            f"content for {args.path[:200]!r} arrived damaged: its checksum is not {args.checksum[:80]!r}",
            code=Code.CHECKSUM,
        )


def _edit(session: Session, args: wire.EditArgs, _body: Body) -> Served:
    edited = edit_file(
        session.workspace, args.path_bytes, args.old.encode(), args.new.encode(),
        replace_all=args.replace_all, if_checksum=_hex(args.if_checksum),
        temporaries=session.temporaries, admit=session.quota.admit,
    )  # fmt: skip
    return Served(
        wire.EditResult(
            replacements=edited.replacements, checksum=f"sha256:{edited.written.checksum}", notes=edited.written.notes
        )
    )


def _list(session: Session, args: wire.ListArgs, _body: Body) -> Served:
    listing = list_directory(
        session.workspace, args.path_bytes, recursive=args.recursive, ignore=args.ignore, tick=session.tick
    )
    return Served(
        wire.ListResult(
            entries=tuple(map(_list_entry, listing.entries)),
            truncated=listing.left_out > 0,
            left_out=listing.left_out,
            problems=_problems(listing.problems, listing.problem_count),
        )
    )


def _stat(session: Session, args: wire.StatArgs, _body: Body) -> Served:
    entry = stat_path(session.workspace, args.path_bytes)
    checksum: str | None = None
    notes: tuple[str, ...] = ()
    if args.checksum:
        hashed = hash_file(session.workspace, args.path_bytes, entry, tick=session.tick)
        checksum = None if hashed.checksum is None else f"sha256:{hashed.checksum}"
        notes = () if hashed.why_none is None else (f"no checksum: {hashed.why_none}",)
    return Served(
        wire.StatResult(
            path=path_as_text(entry.path), path_b64=path_b64(entry.path), kind=entry.kind.value, size=entry.size,
            mode=entry.mode, modified_s=entry.mtime_ns / 1e9,
            target=None if entry.target is None else path_as_text(entry.target), checksum=checksum, notes=notes,
        )
    )  # fmt: skip


def _glob(session: Session, args: wire.GlobArgs, _body: Body) -> Served:
    found = find_paths(session.workspace, args.pattern_bytes, tick=session.tick)
    exact = {str(number): raw for number, raw in enumerate(found.matches) if path_b64(raw) is not None}
    return Served(
        wire.GlobResult(
            matches=tuple(map(path_as_text, found.matches)), matches_b64=exact, truncated=found.left_out > 0,
            left_out=found.left_out, problems=_problems(found.problems, found.problem_count),
        )
    )  # fmt: skip


def _grep(session: Session, args: wire.GrepArgs, _body: Body) -> Served:
    return _search(session, args, None)


def _grep_listed(session: Session, args: wire.GrepArgs, body: Body) -> Served:
    """As `_grep`, opening only the files that the body names: nothing is to be found in any other."""
    return _search(session, args, frozenset(bytes(body).split(b"\0")))


def _search(session: Session, args: wire.GrepArgs, only: frozenset[bytes] | None) -> Served:
    searched = search_files(
        session.workspace, args.pattern, path=args.path_bytes or b".", include=args.include, context=args.context,
        case=args.case, max_matches=args.max_matches or GREP_MAX_MATCHES, only=only, tick=session.tick,
    )  # fmt: skip
    text = b"".join(
        _one_line(hit.path) + (b"-%d-" if hit.line.is_context else b":%d:") % hit.line.number + hit.line.content + b"\n"
        for hit in searched.hits
    )
    bounded = session.bound(text, "grep")
    hits, hidden = _fitting(searched.hits) if bounded.truncated else (searched.hits, 0)
    problems = _problems(searched.problems, searched.problem_count)
    if searched.counting_stopped:
        problems = (*problems, wire.WalkProblem(path=".", error="too many matches; the search stopped before its end"))
    return Served(
        wire.GrepResult(
            matches=tuple(_grep_match(hit) for hit in hits), content=bounded.text,
            truncated=bounded.truncated or searched.left_out > 0, file_path=bounded.file_path,
            total_size=bounded.total_size, left_out=searched.left_out + hidden,
            binary_skipped=searched.binary_skipped, problems=problems,
        )
    )  # fmt: skip


def _one_line(path: bytes) -> bytes:
    """Return ``path`` for a line of text: a line end in a name would make a line that no file has."""
    return path.replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _fitting(hits: list[Hit]) -> tuple[list[Hit], int]:
    """Return the hits that fit inline beside the preview, and how many matching lines do not."""
    room = INLINE_LIMIT_CHARS
    for number, hit in enumerate(hits):
        room -= len(hit.path) + len(hit.line.content) + 16
        if room < 0:
            return hits[:number], sum(not late.line.is_context for late in hits[number:])
    return hits, 0


def _grep_match(hit: Hit) -> wire.GrepMatch:
    return wire.GrepMatch(
        path=path_as_text(hit.path), path_b64=path_b64(hit.path), line_number=hit.line.number,
        content=hit.line.content.decode("utf-8", "replace"), is_context=hit.line.is_context,
    )  # fmt: skip


def _move(session: Session, args: wire.MoveArgs, _body: Body) -> Served:
    move_path(session.workspace, args.path_bytes, args.target_bytes, overwrite=args.overwrite)
    return Served(wire.SuccessResult())


def _remove(session: Session, args: wire.RemoveArgs, _body: Body) -> Served:
    if args.recursive and is_skill_place(session.workspace, args.path_bytes):
        gone = remove_skill(session.workspace, args.path_bytes)
    else:
        gone = remove_path(session.workspace, args.path_bytes, recursive=args.recursive, tick=session.tick)
    return Served(wire.SuccessResult(notes=(f"{gone} removed",)))


def _sync_skill(session: Session, args: wire.SyncSkillArgs, body: Body) -> Served:
    installed = install_skill(
        session.workspace, args.skill_name, args.skill_dir, body, checksum=args.checksum,
        temporaries=session.temporaries, admit_growth=session.quota.admit_growth, tick=session.tick,
    )  # fmt: skip
    notes = ("replaced the skill that stood there",) if installed.replaced else ()
    return Served(wire.SyncSkillResult(success=True, path=path_as_text(installed.path), notes=notes))


def _remove_skill(session: Session, args: protocol.RemoveSkillArgs, _body: Body) -> Served:
    gone = remove_skill(session.workspace, args.skill_dir)
    return Served(wire.SuccessResult(notes=(f"{gone} removed",)))


def _list_skills(session: Session, args: protocol.ListSkillsArgs, _body: Body) -> Served:
    return Served(
        protocol.ListSkillsResult(
            skills=tuple(
                protocol.SkillEntry(
                    name="" if skill.manifest is None else skill.manifest.name, path=path_as_text(skill.path),
                    description="" if skill.manifest is None else skill.manifest.description,
                    version="" if skill.manifest is None else skill.manifest.version,
                    checksum=skill.checksum, problem=skill.problem,
                )
                for skill in list_skills(session.workspace, args.path or b".", tick=session.tick)
            )
        )
    )  # fmt: skip


def _spill(session: Session, args: protocol.SpillArgs, body: Body) -> Served:
    bounded = session.bound(bytes(body), args.operation, args.command)
    result = protocol.SpillResult(
        truncated=bounded.truncated, file_path=bounded.file_path, total_size=bounded.total_size
    )
    return Served(result, bounded.text.encode("utf-8", "replace"))


def _usage(session: Session, _args: protocol.UsageArgs, _body: Body) -> Served:
    usage = measure(session.workspace.without_rules(), tick=session.tick)
    return Served(
        protocol.UsageResult(
            size_bytes=usage.size_bytes, files=usage.entries, work_size_bytes=usage.work_size_bytes,
            work_files=usage.work_entries, upload_size_bytes=usage.upload_size_bytes,
            quota_bytes=session.settings.quota_bytes, quota_files=session.settings.quota_files,
            problems=usage.problem_count,
        )
    )  # fmt: skip


def _clean(session: Session, args: protocol.CleanArgs, _body: Body) -> Served:
    own = session.workspace.without_rules()
    now_s = session.now_s()
    max_age_s = session.settings.spill_max_age_s if args.max_age_s is None else args.max_age_s
    max_bytes = session.settings.spill_max_bytes if args.max_bytes is None else args.max_bytes
    files, size = expire_outputs(own, max_age_s=max_age_s, max_bytes=max_bytes, now_s=now_s)
    if args.temporaries:
        session.report(session.temporaries.sweep())
        files += expire_uploads(own, older_than_s=session.settings.stale_after_s, now_s=now_s)
        left = remove_leftovers(own, older_than_s=session.settings.stale_after_s, now_s=now_s, tick=session.tick)
        session.report(left)
        files += left.count
    return Served(protocol.CleanResult(files=files, size_bytes=size))


def _list_entry(entry: Listed) -> wire.ListEntry:
    path, kind, size, _target = entry
    if kind is Kind.FILE and path.isascii():
        return wire.ListEntry(path=path.decode("ascii"), is_dir=False, size=size)
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
    "glob": (wire.GlobArgs, _glob),
    "grep": (wire.GrepArgs, _grep),
    "move": (wire.MoveArgs, _move),
    "remove": (wire.RemoveArgs, _remove),
    "sync_skill": (wire.SyncSkillArgs, _sync_skill),
    "remove_skill": (protocol.RemoveSkillArgs, _remove_skill),
    "list_skills": (protocol.ListSkillsArgs, _list_skills),
    "spill": (protocol.SpillArgs, _spill),
    "grep_listed": (wire.GrepArgs, _grep_listed),
    "chunk": (protocol.ChunkArgs, _chunk),
    "upload": (wire.WriteArgs, _upload),
    "usage": (protocol.UsageArgs, _usage),
    "clean": (protocol.CleanArgs, _clean),
}
