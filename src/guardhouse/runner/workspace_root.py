"""The workspace's directory at boot: made when it is the default one, else checked and never changed.

Knows nothing of the files inside. Runs in the boot process, before privileges are dropped.
"""

import os
import stat
from pathlib import Path

from guardhouse.errors import SetupError
from guardhouse.runner.identity import Account

__all__ = ["check_usable_by", "prepare_state_directory", "prepare_workspace"]


def prepare_state_directory(path: Path, account: Account) -> None:
    """Make the state directory (0700) when it is missing and check that it is the account's own.

    Raises:
        SetupError: it is no directory, belongs to somebody else, or others can write to it.
    """
    _make(path, account, mode=0o700)
    status = _directory_status(path, "state directory", "--state-dir")
    if status.st_uid != account.uid:
        raise SetupError(
            f"state directory {path} belongs to uid {status.st_uid}, not to {account.name};"
            f" run: chown {account.name}: {path}, or name another by --state-dir"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SetupError(
            f"state directory {path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o});"
            f" run: chmod 0700 {path}"
        )


def prepare_workspace(path: Path, account: Account, *, is_default: bool) -> None:
    """Make the default workspace (0700); check a named one, which must be there already.

    Raises:
        SetupError: the workspace is missing, a symlink, no directory, the root of the file system, writable by
            everybody, or not usable by ``account``.
    """
    if is_default:
        _make(path, account, mode=0o700)
    status = _directory_status(path, "workspace", "--workspace")
    if path.resolve() == Path("/"):
        raise SetupError("workspace / is the whole host; name a directory of its own by --workspace")
    if status.st_mode & stat.S_IWOTH:
        raise SetupError(
            f"workspace {path} can be written by everybody (mode {stat.S_IMODE(status.st_mode):04o});"
            f" run: chmod o-w {path}, or name another by --workspace"
        )
    check_usable_by(path, status, account)


def check_usable_by(path: Path, status: os.stat_result, account: Account) -> None:
    """Check that ``account`` may enter, list and change ``path``, by its owner, group and mode.

    Raises:
        SetupError: it may not, and what to do.
    """
    if account.uid == status.st_uid:
        bits = status.st_mode >> 6
    elif status.st_gid in (account.gid, *account.groups):
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    if bits & 0o7 != 0o7:
        raise SetupError(
            f"workspace {path} cannot be used by {account.name} (owner uid {status.st_uid}, gid {status.st_gid},"
            f" mode {stat.S_IMODE(status.st_mode):04o}); run: chown {account.name}: {path},"
            " or name another directory by --workspace"
        )
    for parent in path.parents:
        _check_passable(parent, account, path)


def _check_passable(parent: Path, account: Account, path: Path) -> None:
    status = parent.stat()
    if account.uid == status.st_uid:
        bits = status.st_mode >> 6
    elif status.st_gid in (account.gid, *account.groups):
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    if not bits & 0o1:
        raise SetupError(
            f"workspace {path} cannot be reached by {account.name}: {parent} is closed to it"
            f" (mode {stat.S_IMODE(status.st_mode):04o}); name a directory elsewhere by --workspace"
        )


def _make(path: Path, account: Account, *, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    except OSError as error:
        raise SetupError(f"cannot make {path}: {error.strerror}; check --state-dir") from None
    if os.geteuid() == 0:
        # The name was free a moment ago and its parent is ours: nobody else put a link here.
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _directory_status(path: Path, what: str, flag: str) -> os.stat_result:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise SetupError(f"{what} {path} does not exist; make it, or name another by {flag}") from None
    except OSError as error:
        raise SetupError(f"{what} {path} cannot be looked at: {error.strerror}; name another by {flag}") from None
    if stat.S_ISLNK(status.st_mode):
        raise SetupError(f"{what} {path} is a symbolic link; name the directory itself by {flag}")
    if not stat.S_ISDIR(status.st_mode):
        raise SetupError(f"{what} {path} is not a directory; name one by {flag}")
    return status
