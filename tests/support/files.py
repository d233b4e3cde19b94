"""A files worker as a plain synchronous class: for tests that ask for operations and look at the answers.

Forks the worker's real main on a directory and speaks its real protocol. Use it as a context manager::

    with FilesWorker(root) as files:                        # also FilesWorker(root, method="careful")
        files.write("a.txt", "hello")
        assert files.read("a.txt").content == b"hello"
        files.list("", recursive=True).entries              # .path, .is_dir, .size, .kind, .target
        files.glob("**/*.txt").matches
        files.grep("hel+o", include=["*.txt"]).matches      # .path, .line_number, .content
        files.sync_skill("demo", "skills/demo", zip_data, checksum)

Every argument can be given by position or by its name on the wire (docs/wire_protocol.md, section 6). Paths and
patterns are text, bytes or `pathlib.Path`; content is text (sent as UTF-8) or bytes of any kind; an archive may be
base64 text, as on the wire. Every method returns the typed result of `guardhouse.wire.operations`. A refused operation
raises WorkspaceRefusal (a `guardhouse.errors.Refusal` with `.code`; PathEscapesWorkspace when the path leaves),
arguments of another shape raise PeerError, a worker that is gone raises ConnectionError. ``method`` is "openat2" or
"careful"; None takes what the kernel has.
"""

import base64
import hashlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from guardhouse.errors import PeerError
from guardhouse.wire import operations as wire
from guardhouse.wire.paths import path_as_text, path_b64
from guardhouse.worker import files as worker
from guardhouse.worker import protocol
from guardhouse.worker.client import error_of
from guardhouse.worker.settings import FilesSettings

__all__ = ["FilesWorker"]

PathText = str | bytes | os.PathLike[str]
Content = str | bytes | bytearray | memoryview


class FilesWorker:
    """One forked worker on ``root``; ``settings`` are those of FilesSettings (``method="careful"``,
    ``quota_bytes=…``).
    """

    def __init__(self, root: Path | str, *, timeout_s: float = 60.0, **settings: Any) -> None:
        settings.setdefault("root_path", os.fspath(root))
        self._root = os.fspath(root)
        self._settings = FilesSettings(**settings)
        self._timeout_s = timeout_s
        self._last_id = 0
        self.pid = 0
        self._sock: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Fork a worker; again after `kill`."""
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                ours.close()
                status = worker.main(root_fd, theirs.detach(), self._settings)
            finally:
                os._exit(status)
        os.close(root_fd)
        theirs.close()
        ours.settimeout(self._timeout_s)
        self._sock = ours

    def __enter__(self) -> "FilesWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, on which the worker ends, and wait for it."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0

    def kill(self) -> None:
        """End the worker with SIGKILL, wherever it is."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def read(self, path: PathText, offset: int = 0, limit: int = 0) -> wire.ReadResult:
        """Return the content (``.content``, bytes) and the file's size (``.total_size``) and ``.checksum``."""
        result, body = self.ask("read", wire.ReadArgs(**_path(path), offset=offset, limit=limit), wire.ReadResult)
        return msgspec.structs.replace(result, content=body)

    def write(self, path: PathText, content: Content = b"", **more: Any) -> wire.SuccessResult:
        """Make ``content`` the file's content; ``more`` are the further fields of WriteArgs."""
        args = wire.WriteArgs(**_path(path), content=b"", **more)
        return self.ask("write", args, wire.SuccessResult, _content(content))[0]

    def edit(self, path: PathText, old: str, new: str, replace_all: bool = False, **more: Any) -> wire.EditResult:
        """Replace text; ``more`` are the further fields of EditArgs."""
        args = wire.EditArgs(**_path(path), old=old, new=new, replace_all=replace_all, **more)
        return self.ask("edit", args, wire.EditResult)[0]

    def list(
        self,
        path: PathText = "",
        recursive: bool = False,
        ignore: Sequence[str] = (),
    ) -> wire.ListResult:
        """List a directory (``.entries``)."""
        args = wire.ListArgs(**_path(path), recursive=recursive, ignore=_texts(ignore))
        return self.ask("list", args, wire.ListResult)[0]

    def glob(self, pattern: PathText) -> wire.GlobResult:
        """Find paths (``.matches``)."""
        raw = os.fsencode(pattern)
        args = wire.GlobArgs(pattern=path_as_text(raw), pattern_b64=path_b64(raw))
        return self.ask("glob", args, wire.GlobResult)[0]

    def grep(
        self, pattern: str | bytes, include: Sequence[str] | str = (), path: PathText = "", **more: Any
    ) -> wire.GrepResult:
        """Search contents (``.matches``); ``more`` are the further fields of GrepArgs."""
        text = pattern.decode("utf-8", "surrogateescape") if isinstance(pattern, bytes) else pattern
        args = wire.GrepArgs(pattern=text, include=_texts(include), **_path(path), **more)
        return self.ask("grep", args, wire.GrepResult)[0]

    def stat(self, path: PathText, checksum: bool = False) -> wire.StatResult:
        """Describe one file; ``checksum`` asks for its SHA-256 too."""
        return self.ask("stat", wire.StatArgs(**_path(path), checksum=checksum), wire.StatResult)[0]

    def move(self, path: PathText, target: PathText, overwrite: bool = False) -> wire.SuccessResult:
        """Rename."""
        args = wire.MoveArgs(**_path(path), **_path(target, "target"), overwrite=overwrite)
        return self.ask("move", args, wire.SuccessResult)[0]

    def remove(self, path: PathText, recursive: bool = False) -> wire.SuccessResult:
        """Remove a file, or a directory with all that is in it."""
        return self.ask("remove", wire.RemoveArgs(**_path(path), recursive=recursive), wire.SuccessResult)[0]

    def sync_skill(
        self,
        skill_name: str,
        skill_dir: PathText,
        zip_data: bytes | bytearray | str | Path,
        checksum: str | None = None,
    ) -> wire.SyncSkillResult:
        """Install a skill from ``zip_data`` (bytes, base64 text, or the path of a zip file).

        The right checksum is filled in where none is given.
        """
        if isinstance(zip_data, Path):
            zip_data = zip_data.read_bytes()
        data = base64.b64decode(zip_data, validate=True) if isinstance(zip_data, str) else bytes(zip_data)
        if checksum is None:
            checksum = hashlib.sha256(data).hexdigest()
        place = os.fsdecode(skill_dir)
        args = wire.SyncSkillArgs(skill_name=skill_name, skill_dir=place, zip_data=b"", checksum=checksum)
        return self.ask("sync_skill", args, wire.SyncSkillResult, data)[0]

    def spill(self, content: bytes, operation: str = "bash", command: str = "") -> tuple[str, protocol.SpillResult]:
        """Bound a text as every result's text is bounded."""
        args = protocol.SpillArgs(operation=operation, command=command)
        result, body = self.ask("spill", args, protocol.SpillResult, content)
        return body.decode(), result

    def clean(self, **more: Any) -> protocol.CleanResult:
        """Remove old outputs and litter."""
        return self.ask("clean", protocol.CleanArgs(**more), protocol.CleanResult)[0]

    def usage(self) -> protocol.UsageResult:
        """Say how much the workspace holds."""
        return self.ask("usage", protocol.UsageArgs(), protocol.UsageResult)[0]

    def ask(self, operation: str, args: msgspec.Struct, kind: type, body: bytes = b"") -> tuple[Any, bytes]:
        """Do one request of the worker's protocol; return its result and body."""
        if self._sock is None:
            raise ConnectionError("the files worker was closed")
        self._last_id += 1
        try:
            raw = msgspec.Raw(msgspec.json.encode(args))
        except UnicodeEncodeError as error:
            raise PeerError(f"invalid {operation} args: text that is not Unicode", code=wire.INVALID_ARGS) from error
        request = protocol.Request(id=self._last_id, operation=operation, deadline_s=self._timeout_s, args=raw)
        self._sock.sendall(protocol.render(request, body) + body)
        header_size, body_size = protocol.parse_lengths(self._exactly(protocol.LENGTHS.size))
        reply = protocol.parse_reply(self._exactly(header_size))
        content = self._exactly(body_size)
        if reply.failure is not None:
            raise error_of(reply.failure)
        return msgspec.json.decode(reply.result, type=kind), content

    def _exactly(self, size: int) -> bytes:
        assert self._sock is not None
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            got = self._sock.recv_into(rest)
            if not got:
                raise ConnectionError("the files worker is gone")
            rest = rest[got:]
        return bytes(data)


def _path(path: PathText, name: str = "path") -> dict[str, Any]:
    raw = os.fsencode(path)
    exact = path_b64(raw)
    return {name: path_as_text(raw)} if exact is None else {name: path_as_text(raw), f"{name}_b64": exact}


def _content(content: Content) -> bytes:
    return content.encode("utf-8", "surrogateescape") if isinstance(content, str) else bytes(content)


def _texts(globs: Sequence[str] | str | None) -> tuple[str, ...]:
    if not globs:
        return ()
    return tuple(map(os.fsdecode, [globs] if isinstance(globs, str | bytes) else globs))
