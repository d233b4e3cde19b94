"""What `guardhouse login` keeps: for each hub the token of whoever signed in, in one private file.

``logins.json`` lies beside ``client.toml``, mode 0600 in a directory of 0700, and is replaced as a whole, so that a
crash leaves the old one or the new one. A file that others may read is refused, not repaired: the tokens in it are to
be revoked. Knows no hub. Runs in the `guardhouse` command of whoever operates the hub.
"""

import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from guardhouse.errors import GuardhouseError

__all__ = [
    "Login",
    "Logins",
    "LoginsUnusable",
    "change_logins",
    "check_context",
    "config_directory",
    "default_context",
    "read_logins",
]

T = TypeVar("T")

FILE_NAME: Final = "logins.json"
FILE_MAX_BYTES: Final = 1024 * 1024
FORMAT_VERSION: Final = 1
_CONTEXT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class LoginsUnusable(GuardhouseError):  # noqa: N818 - a state of the file, told as it is
    """The file of logins cannot be read or written, or is not safe to use. ``is_unsafe`` where others may read it."""

    def __init__(self, message: str, *, is_unsafe: bool = False) -> None:
        super().__init__(message)
        self.is_unsafe = is_unsafe


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who is signed in at one hub. ``expires_at`` is ISO 8601 in UTC; the token is not in its repr."""

    hub_url: str
    ca_file: str | None
    token: str
    token_id: str
    email: str
    expires_at: str

    def __repr__(self) -> str:
        return f"Login(hub_url={self.hub_url!r}, token_id={self.token_id!r}, token=…)"


@dataclass
class Logins:
    """Every login by the name of its context, and which one counts where nothing else is said."""

    current: str | None
    by_context: dict[str, Login]

    def find(self, context: str | None, hub_url: str | None) -> tuple[str, Login] | None:
        """Return the login for a context, or for a hub's address, or the current one; a token is for its hub only."""
        name = context or (self.current if hub_url is None else None)
        if name is not None:
            found = self.by_context.get(name)
            return (name, found) if found is not None and hub_url in {None, found.hub_url} else None
        of_hub = [(name, one) for name, one in self.by_context.items() if one.hub_url == hub_url]
        # Two logins at one hub: the current one of them, else the first that was made.
        return next((one for one in of_hub if one[0] == self.current), of_hub[0] if of_hub else None)


def config_directory(environ: Mapping[str, str]) -> Path | None:
    """Return ``~/.config/guardhouse`` or where XDG_CONFIG_HOME says; None where there is no home."""
    base = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else "")
    return Path(base) / "guardhouse" if base else None


def default_context(hub_url: str) -> str:
    """Return the name of the context for a hub where nobody chose one: its host, with the port where it has one."""
    return urlsplit(hub_url).netloc.replace("[", "").replace("]", "")


def check_context(name: str) -> str:
    """Return ``name`` where it can be a context's.

    Raises:
        LoginsUnusable: it cannot.
    """
    if not _CONTEXT.fullmatch(name):
        raise LoginsUnusable(f"{name!r} is no name of a context: letters, digits and ._:- only, 128 at most")
    return name


def read_logins(environ: Mapping[str, str]) -> Logins:
    """Return every login; none where there is no file yet.

    Raises:
        LoginsUnusable: the file is no such file, or others than its owner may read it.
    """
    directory = config_directory(environ)
    return Logins(None, {}) if directory is None else _read(directory / FILE_NAME)


def _read(path: Path) -> Logins:
    try:
        # O_NONBLOCK: a FIFO in the file's place would hang every command.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            content = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return Logins(None, {})
    except OSError as error:
        raise LoginsUnusable(f"cannot read {str(path)!r}: {error.strerror}") from error
    if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
        raise LoginsUnusable(f"{str(path)!r} is no file of yours (uid {found.st_uid}); remove it", is_unsafe=True)
    if found.st_mode & 0o077:
        raise LoginsUnusable(
            f"{str(path)!r} has mode {stat.S_IMODE(found.st_mode):04o}: others may have read the tokens in it; revoke"
            f" them ('guardhouse token list'), remove it, and run 'guardhouse login' again",
            is_unsafe=True,
        )
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> Logins:
    try:
        document = json.loads(content)
        if document["version"] != FORMAT_VERSION:
            raise LoginsUnusable(f"{str(path)!r} was written by a newer guardhouse; use that one, or log in again")
        by_context = {str(name): _login(one) for name, one in document["logins"].items()}
        current = document["current"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoginsUnusable(f"{str(path)!r} is damaged ({error}); remove it and log in again") from error
    return Logins(current if current in by_context else None, by_context)


def _login(value: dict[str, Any]) -> Login:
    found = {field.name: value[field.name] for field in fields(Login)}
    for name, one in found.items():
        if not isinstance(one, str) and not (name == "ca_file" and one is None):
            raise ValueError(f"{name} is no text")
    return Login(**found)


def change_logins(environ: Mapping[str, str], change: Callable[[Logins], T]) -> T:
    """Let ``change`` edit the logins, store them, and return what it returns; one process at a time.

    Raises:
        LoginsUnusable: there is no home, or the file cannot be read or written. Nothing was changed then.
    """
    directory = config_directory(environ)
    if directory is None:
        raise LoginsUnusable("there is no place for a login: HOME is not set")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory):
            logins = _read(directory / FILE_NAME)
            value = change(logins)
            _write(directory, logins)
    except OSError as error:
        raise LoginsUnusable(f"cannot write {str(directory / FILE_NAME)!r}: {error.strerror}") from error
    return value


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(directory: Path, logins: Logins) -> None:
    document = {
        "version": FORMAT_VERSION,
        "current": logins.current,
        "logins": {name: asdict(one) for name, one in logins.by_context.items()},
    }
    new = directory / f".{FILE_NAME}.{secrets.token_hex(8)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(directory / FILE_NAME)
    except BaseException:  # whatever ends this, no half-written file stays
        new.unlink(missing_ok=True)
        raise
