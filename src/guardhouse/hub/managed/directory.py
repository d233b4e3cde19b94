"""A managed sandbox's directory on the hub's host: laid out, measured, emptied, removed. Runs in the hub.

::

    DIRECTORY/               0711: accounts of sandboxes pass through and list nothing
      env_…/                 0711
        policy.yaml, managed.yaml   what the runner is started with
        token                0600, there only while the runner starts
        pid                  of the runner, so that a hub that starts can end one that was left over
        runner/              the runner's state, with its journal and workspace/
"""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.hub.state_dir import write_secret_file

__all__ = ["SandboxDirectory", "prepare_directory"]

WORKSPACE: Final = "workspace"


def prepare_directory(path: Path) -> None:
    """Make the directory of all sandboxes where missing, and check that nobody else can write there.

    Raises:
        SetupError: it cannot be made, is no directory, or others can write there.
    """
    try:
        if not path.exists():
            path.mkdir(mode=0o711, parents=True)
            path.chmod(0o711)
        found = path.lstat()
    except OSError as error:
        raise SetupError(f"cannot make {str(path)!r} for managed sandboxes: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise SetupError(
            f"{str(path)!r} for managed sandboxes is not a directory of the hub's user that nobody else can write to;"
            " choose another with --managed-sandbox-dir"
        )


class SandboxDirectory:
    """The directory of one sandbox."""

    def __init__(self, base: Path, environment_id: str) -> None:
        self.path = base / environment_id
        self.state = self.path / "runner"
        self.workspace = self.state / WORKSPACE
        self.policy = self.path / "policy.yaml"
        self.profile = self.path / "managed.yaml"
        self.token = self.path / "token"
        self.pid = self.path / "pid"

    def lay_out(self, *, policy: str, profile: str, token: str) -> None:
        """Write what a runner is started with.

        Raises:
            OSError: the disk is full or failing.
        """
        self.path.mkdir(mode=0o711, exist_ok=True)
        # Not by mkdir alone: a hub's umask may be 077, and the sandbox's account passes through here.
        self.path.chmod(0o711)
        for path, text in ((self.policy, policy), (self.profile, profile)):
            path.unlink(missing_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        self.token.unlink(missing_ok=True)
        write_secret_file(self.token, token.encode() + b"\n")

    def forget_token(self) -> None:
        """Remove the token's file: the runner has read it."""
        self.token.unlink(missing_ok=True)

    def measure(self, *, files_max: int) -> tuple[int, int]:
        """Return the bytes and the number of entries of the workspace; stops counting above ``files_max`` entries.

        What vanishes meanwhile counts for nothing; links are counted and never followed. A directory that cannot be
        read, which a hub that is not root may meet, could hide anything: it counts as ``files_max`` entries.
        """
        size = files = 0
        unreadable: list[OSError] = []
        try:
            for _, directories, names, fd in os.fwalk(self.workspace, onerror=unreadable.append):
                for name in (*directories, *names):
                    try:
                        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    files += 1
                    # What the disk gives it, not what it says: a sparse file holds less, a small one a block.
                    size += found.st_blocks * 512
                if files > files_max:
                    break
        except OSError as error:
            # Of the workspace itself; there is none before the runner's first start.
            unreadable.append(error)
        if any(isinstance(error, PermissionError) for error in unreadable):
            files = max(files, files_max)
        return size, files

    def wipe(self) -> None:
        """Delete the workspace and the runner's state; the runner does not run.

        Raises:
            OSError: something could not be removed.
        """
        if self.state.exists():
            _remove(self.state)

    def remove(self) -> None:
        """Delete all of it.

        Raises:
            OSError: something could not be removed.
        """
        if self.path.exists():
            _remove(self.path)


def _remove(path: Path) -> None:
    # Never through a link that a command left: rmtree works with descriptors where the platform has them, as Linux has.
    if not shutil.rmtree.avoids_symlink_attacks:
        raise SetupError("this platform cannot remove a directory without following links in it")
    if os.geteuid() != 0:
        _let_in(path)
    shutil.rmtree(path)


def _let_in(path: Path) -> None:
    """Make every directory below ours to enter: commands of the same account may have shut them."""
    pending = [path]
    while pending:
        directory = pending.pop()
        directory.chmod(0o700)
        with os.scandir(directory) as entries:
            pending += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
