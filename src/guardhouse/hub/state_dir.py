"""The hub's state directory: who may enter it, what lies in it, and that one hub at a time uses it.

Knows nothing of what the database holds. Runs in the hub, at start.
"""

import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from guardhouse.errors import SetupError

__all__ = ["StateDir"]

SEALING_KEY_BYTES: Final = 32
AUDIT_KEY_BYTES: Final = 32
OWNER_TOKEN_FILE: Final = "owner.token"  # noqa: S105 - a file name


class StateDir:
    """An opened, locked state directory. The lock ends with the process, however it ends."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def open(cls, path: Path) -> "StateDir":
        """Create ``path`` where missing (0700), check who owns it and who can read it, and lock it.

        Raises:
            SetupError: it is a symlink, belongs to somebody else, is open to others, or another hub uses it.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.lstat()
        except OSError as error:
            raise SetupError(f"cannot create state directory {str(path)!r}: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise SetupError(f"state directory {str(path)!r} is a symlink or a file; give a real directory")
        if found.st_uid != os.geteuid():
            raise SetupError(
                f"state directory {str(path)!r} belongs to uid {found.st_uid}, the hub runs as uid {os.geteuid()};"
                " run the hub as its owner"
            )
        if found.st_mode & 0o077:
            raise SetupError(
                f"state directory {str(path)!r} has mode {stat.S_IMODE(found.st_mode):04o}: others could read keys"
                f" and output; run: chmod 700 {path}"
            )
        lock_fd = os.open(path / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock_fd)
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise SetupError(f"another hub uses state directory {str(path)!r}; stop it first") from error
            raise
        return cls(path, lock_fd)

    def close(self) -> None:
        """Give the lock up."""
        os.close(self._lock_fd)

    @property
    def database(self) -> Path:
        """Where the SQLite file is."""
        return self.path / "hub.db"

    def adopt_database(self, built: Path) -> None:
        """Let ``built``, a closed SQLite file of this directory, be the database.

        Raises:
            SetupError: there is one.
        """
        try:
            os.link(built, self.database)
        except FileExistsError as error:
            raise SetupError(f"a database is at {str(self.database)!r} already") from error
        built.unlink()
        _sync_directory(self.path)

    @property
    def owner_token_file(self) -> Path:
        """Where the first API token is written, once."""
        return self.path / OWNER_TOKEN_FILE

    @property
    def owner_link_file(self) -> Path:
        """Where the first owner's one-time link is written while there is no owner."""
        return self.path / "owner.link"

    def sealing_key(self, *, is_in_use: bool) -> bytes:
        """Return the key that runner tokens are sealed with; make it at the first start (0600).

        Args:
            is_in_use: a store exists that was sealed with it.

        Raises:
            SetupError: the file has the wrong length or is open to others; or it is missing although a database exists.
        """
        path = self.path / "sealing.key"
        key = _read_key(path, "sealing key", SEALING_KEY_BYTES)
        if key is not None:
            return key
        if is_in_use:
            raise SetupError(
                f"sealing key {str(path)!r} is missing beside an existing database, so stored runner tokens"
                " cannot be shown; restore it from the backup, or move the database away to start anew"
            )
        key = secrets.token_bytes(SEALING_KEY_BYTES)
        write_secret_file(path, key)
        return key

    @property
    def next_sealing_key_file(self) -> Path:
        """Where the key lies that is about to take the sealing key's place."""
        return self.path / "sealing.key.next"

    def next_sealing_key(self) -> bytes | None:
        """Return the key that is about to take the sealing key's place, or None."""
        return _read_key(self.next_sealing_key_file, "sealing key", SEALING_KEY_BYTES)

    def adopt_next_sealing_key(self) -> None:
        """Let the next sealing key be the sealing key."""
        self.next_sealing_key_file.replace(self.path / "sealing.key")
        _sync_directory(self.path)

    def drop_next_sealing_key(self) -> None:
        """Forget the next sealing key."""
        self.next_sealing_key_file.unlink(missing_ok=True)
        _sync_directory(self.path)

    def audit_key(self) -> bytes:
        """Return the seed of the key that the audit log is signed with; make it at the first start (0600).

        Raises:
            SetupError: the file has the wrong length or is open to others; or it is missing and the log was signed.
        """
        path = self.audit_key_file
        key = _read_key(path, "audit key", AUDIT_KEY_BYTES)
        if key is None:
            if self.audit_head.exists():
                raise SetupError(
                    f"audit key {str(path)!r} is missing, and the audit log was signed with it (audit.head is there);"
                    " restore it from the backup that the database is from; if it is lost for good, 'guardhouse hub"
                    " rotate-audit-key --key-lost' goes on with a new one, and the log says so for ever"
                )
            key = secrets.token_bytes(AUDIT_KEY_BYTES)
            write_secret_file(path, key)
        return key

    @property
    def audit_key_file(self) -> Path:
        """Where the seed of the audit log's key lies."""
        return self.path / "audit.key"

    @property
    def next_audit_key_file(self) -> Path:
        """Where the key lies that is about to take the audit key's place."""
        return self.path / "audit.key.next"

    def next_audit_key(self) -> bytes | None:
        """Return the key that is about to take the audit key's place, or None."""
        return _read_key(self.next_audit_key_file, "audit key", AUDIT_KEY_BYTES)

    def adopt_next_audit_key(self) -> None:
        """Let the next audit key be the audit key."""
        self.next_audit_key_file.replace(self.audit_key_file)
        _sync_directory(self.path)

    def drop_next_audit_key(self) -> None:
        """Forget the next audit key."""
        self.next_audit_key_file.unlink(missing_ok=True)
        _sync_directory(self.path)

    @property
    def audit_head(self) -> Path:
        """Where the newest signed checkpoint of the audit log is kept."""
        return self.path / "audit.head"


def _sync_directory(path: Path) -> None:
    directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)


def _read_key(path: Path, name: str, size: int) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        key = file.read(size + 1)
    if mode & 0o077:
        raise SetupError(f"{name} {str(path)!r} has mode {mode:04o}; run: chmod 600 {path}")
    if len(key) != size:
        raise SetupError(f"{name} {str(path)!r} is not {size} bytes; restore it from the backup")
    return key


def write_secret_file(path: Path, content: bytes) -> None:
    """Write ``content`` to a new file of mode 0600 and make it durable, under a temporary name first.

    Raises:
        SetupError: the disk says no.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SetupError(f"cannot write {str(path)!r}: {error.strerror}") from error
