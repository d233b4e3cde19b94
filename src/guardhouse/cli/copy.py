"""`guardhouse cp`: one file from an environment or to it, of any size, with progress; a cut is gone on from.

Arguments, local files and the loop that tries again. Runs in the `guardhouse` command of whoever operates the hub.
"""

import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, HubUnreachable, decode_reply, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import plain_text

__all__ = ["cp"]

_CHUNK_BYTES: Final = 1024 * 1024
_PART_SUFFIX: Final = ".guardhouse-part"
# Between two tries; how long tries may fail in a row before it is given up.
_RETRY_S: Final = 1.0
_PROGRESS_EVERY_S: Final = 0.5


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--retry-for", "retry_for_s", type=float, default=60.0, show_default=True, help="Seconds to try again.")
@click.option("--if-checksum", metavar="SHA256|none", help="Only over a file with this checksum; none: only if new.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@hub_options
def cp(
    client: HubClient,
    source: str,
    target: str,
    retry_for_s: float,
    if_checksum: str | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy one file: ENVIRONMENT:PATH to LOCAL, or LOCAL to ENVIRONMENT:PATH.

    PATH is below the environment's workspace. Secrets are taken out of what leaves a host, as everywhere. A cut
    connection is gone on from; so is a download that was ended, when it is started again. The result is compared by
    its SHA-256, and stands under its name only when it is whole.
    """
    remote_source, remote_target = _remote(source), _remote(target)
    if (remote_source is None) == (remote_target is None):
        raise click.UsageError("one of SOURCE and TARGET is ENVIRONMENT:PATH, the other a local file (./NAME)")
    progress = _Progress(shown=not quiet and sys.stderr.isatty())
    retry = _Retry(retry_for_s, progress)
    told: dict[str, Any] = {}
    if remote_source is not None:
        if if_checksum is not None:
            raise click.UsageError("--if-checksum is for a copy to an environment")
        told = _download(client, *remote_source, _local_target(target, remote_source[1]), retry, progress)
    elif remote_target is not None:
        told = _upload(client, Path(source), *remote_target, if_checksum, retry, progress)
    progress.end()
    if told.get("secrets"):
        click.echo(f"guardhouse: {told['secrets']} secrets were taken out of it on its host", err=True)
    for note in told.get("notes", ()):
        click.echo(f"guardhouse: {plain_text(note)}", err=True)
    if as_json:
        print_json(told)


def _remote(text: str) -> tuple[str, str] | None:
    """Return environment and path, None for a local file; as with scp, ./a:b is local."""
    environment, colon, path = text.partition(":")
    if not colon or "/" in environment or not environment:
        return None
    return environment, path


def _local_target(target: str, remote: str) -> Path:
    path = Path(target)
    if path.is_dir():
        name = remote.rstrip("/").rpartition("/")[2]
        if not name:
            raise click.UsageError(f"{remote!r} names no file")
        return path / name
    return path


class _Progress:
    """A line on the terminal that says how far it is."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._said_at_s = 0.0
        self._began_s = time.monotonic()

    def at(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if self._shown and now_s - self._said_at_s >= _PROGRESS_EVERY_S:
            self._said_at_s = now_s
            share = f"{100 * done // total} %" if total else "?"
            speed = done / max(now_s - self._began_s, 0.1) / 1e6
            click.echo(f"\r{done / 1e6:.1f} of {total / 1e6:.1f} MB ({share}), {speed:.1f} MB/s   ", err=True, nl=False)

    def end(self) -> None:
        if self._shown and self._said_at_s:
            click.echo("", err=True)


class _Retry:
    """Lets what a cut connection ended be tried again, for as long as there is progress now and then."""

    def __init__(self, for_s: float, progress: _Progress) -> None:
        self._for_s = for_s
        self._progress = progress
        self._failing_since_s: float | None = None

    def worked(self) -> None:
        self._failing_since_s = None

    def failed(self, error: ClientError) -> None:
        """Wait a moment; raise ``error`` when it is none that passes, or has not passed for too long."""
        if not (isinstance(error, HubUnreachable) or error.is_retryable):
            raise error
        now_s = time.monotonic()
        self._failing_since_s = self._failing_since_s or now_s
        if now_s - self._failing_since_s >= self._for_s:
            raise error
        self._progress.end()
        time.sleep(_RETRY_S)


def _files(environment: str, rest: str = "files") -> str:
    return f"/api/v1/environments/{quote(environment, safe='')}/{rest}"


def _query(path: str, **more: Any) -> dict[str, Any]:
    raw = os.fsencode(path)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        import base64

        more["path_b64"] = base64.b64encode(raw).decode("ascii")
    return {"path": raw.decode("utf-8", "replace"), **more}


# From an environment.


def _download(
    client: HubClient, environment: str, path: str, target: Path, retry: _Retry, progress: _Progress
) -> dict[str, Any]:
    part = target.with_name(target.name + _PART_SUFFIX)
    for is_second in (False, True):
        with _opened(part, "ab+") as file:
            file.seek(0, os.SEEK_END)
            told = _fetch(client, environment, path, file, retry, progress)
            file.flush()
            os.fsync(file.fileno())
        if told is not None:
            try:
                part.replace(target)
            except OSError as error:
                raise _local(f"cannot put {target} in place", error) from error
            return told
        # What an earlier try left is of another version of the file.
        part.unlink(missing_ok=True)
        if is_second:
            break
    raise ClientError(
        f"{path!r} changes while it is copied: what arrived has another checksum than what was sent",
        exit_code=ExitCode.FAILED,
        code="changed",
    )


def _fetch(
    client: HubClient, environment: str, path: str, file: BinaryIO, retry: _Retry, progress: _Progress
) -> dict[str, Any] | None:
    """Fill ``file``; return what is told of it, or None when what was in it before does not belong to it."""
    offset = file.tell()
    digest = _digest_of(file)
    transfer = f"cp-{secrets.token_hex(12)}"
    is_resumed = offset > 0
    while True:
        try:
            query = _query(path, offset=offset, transfer=transfer)
            with client.open_stream("GET", _files(environment), query=query) as reply:
                total = int(reply.headers.get("x-guardhouse-size", "0"))
                for chunk in reply.iter_bytes():
                    _write(file, chunk)
                    digest.update(chunk)
                    offset += len(chunk)
                    progress.at(offset, total)
                    retry.worked()
                checksum = reply.headers.get("x-guardhouse-checksum")
                taken_out = int(reply.headers.get("x-guardhouse-secrets", "0"))
        except ClientError as error:
            if error.code == "file_conflict" and is_resumed:
                return None
            retry.failed(error)
            continue
        if checksum is None:
            continue  # all has come; its checksum is told at the end
        if checksum != f"sha256:{digest.hexdigest()}":
            return None
        return {"path": path, "size": offset, "checksum": checksum, "secrets": taken_out}


def _digest_of(file: BinaryIO) -> "hashlib._Hash":
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest


# To an environment.


def _upload(
    client: HubClient,
    source: Path,
    environment: str,
    path: str,
    if_checksum: str | None,
    retry: _Retry,
    progress: _Progress,
) -> dict[str, Any]:
    if not path or path.endswith("/"):
        path += source.name
    with _opened(source, "rb") as file:
        digest = _digest_of(file)
        total = file.tell()
        # The same file to the same place is the same transfer, also when this command is started again.
        transfer = hashlib.sha256(f"{environment}\0{path}\0{digest.hexdigest()}".encode("utf-8", "replace")).hexdigest()
        query = _query(path, transfer=f"cp-{transfer[:40]}")
        while True:
            try:
                state = client.request("GET", _files(environment, "uploads"), query=query)
                # More than we have is not of ours; what is sent again is written again.
                offset = state["size"] if state["size"] <= total else 0
                file.seek(offset)
                more = {"offset": offset, "checksum": f"sha256:{digest.hexdigest()}", "if_checksum": if_checksum}
                body = _chunks(file, offset, total, retry, progress)
                with client.open_stream("PUT", _files(environment), query={**query, **more}, content=body) as reply:
                    return decode_reply(reply.read())
            except ClientError as error:
                retry.failed(error)


def _chunks(file: BinaryIO, done: int, total: int, retry: _Retry, progress: _Progress) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
        done += len(chunk)
        retry.worked()
        progress.at(done, total)


def _opened(path: Path, mode: str) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]  # both modes are binary
    except OSError as error:
        raise _local(f"cannot open {path}", error) from error


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise _local("cannot write what arrives", error) from error


def _local(what: str, error: OSError) -> ClientError:
    return ClientError(f"{what}: {error.strerror}", exit_code=ExitCode.FAILED, code="local")
