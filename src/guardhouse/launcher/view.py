"""Build the view of the file system that a profile plans, and its private parts again for each command.

Knows mount steps (`MountStep`) and how to put each in place by descriptor; what a command may see is the plan's.
Sources are opened in the host's view before anything is covered; targets are resolved as if the new view were
the root, so that an absolute symbolic link in it cannot lead a mount out of it.

Runs in init processes: `build_view` once, `renew_private_parts` in the thread that becomes a command.
"""

# ruff: noqa: PTH102 - paths are relative to descriptors here
import os
from dataclasses import dataclass
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel import mounts
from guardhouse.sandbox.bundle import Identity, MountStep

__all__ = ["PrivatePart", "build_view", "renew_private_parts"]

# Where the new view is put together. Every Linux host has it, and it is covered in our namespace only.
_STAGE: Final = "/tmp"  # noqa: S108 - a mount point, nothing is created in the host's directory
_STAGE_BYTES: Final = 1024 * 1024
_FLAG_NAMES: Final = frozenset(mounts.MOUNT_FLAGS)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_DEV_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_BINDS: Final = frozenset({"bind", "bind_readonly"})
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o444


@dataclass(frozen=True, slots=True)
class PrivatePart:
    """One step that is done again for each command, because the command can write there."""

    step: MountStep
    is_directory: bool


def build_view(steps: tuple[MountStep, ...], identity: Identity) -> tuple[PrivatePart, ...]:
    """Build the view in the calling process's own mount namespace and make it the root.

    Returns:
        What `renew_private_parts` must do for each command, in order.

    Raises:
        SetupError: a step of the plan that cannot be put in place; the message names it and its reason.
        OSError: the surroundings (making mounts private, pivot_root) failed.
    """
    mounts.make_private()
    sources = _open_sources(steps)
    mounts.mount_new("tmpfs", _STAGE, flags=frozenset({"nosuid", "nodev"}), data=f"mode=0700,size={_STAGE_BYTES}")
    builder = _Builder(identity, sources)
    try:
        for index, step in enumerate(steps):
            builder.place(index, step)
        builder.finish()
    finally:
        builder.close()
    mounts.pivot_root_here()
    return _private_parts(steps, builder.placed)


def renew_private_parts(parts: tuple[PrivatePart, ...], identity: Identity) -> None:
    """Cover each writable private file system with an empty one, in the calling thread's mount namespace.

    A later step inside such a file system (the workspace below ``/tmp``) is taken from the template view first
    and put back on top.
    """
    saved = {
        part.step.target: mounts.clone_tree(part.step.target, recursive=True)
        for part in parts
        if part.step.kind in _BINDS
    }
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            step = part.step
            if step.kind == "tmpfs":
                if not part.is_directory:
                    raise SetupError(f"view step {step.target!r} is no directory")
                os.close(_make_missing(root_fd, step.target, is_directory=True))
                mounts.mount_new("tmpfs", step.target, flags=_flags(step), data=_tmpfs_data(step, identity))
            elif step.kind in _BINDS:
                target = _make_missing(root_fd, step.target, is_directory=part.is_directory)
                mounts.move_tree(saved[step.target], target)
                os.close(target)
            else:
                _make_entry(root_fd, step)
    finally:
        os.close(root_fd)
        for tree in saved.values():
            os.close(tree)


def _flags(step: MountStep) -> frozenset[str]:
    return frozenset(step.options) & _FLAG_NAMES


def _value(step: MountStep, key: str) -> str | None:
    for option in step.options:
        name, separator, value = option.partition("=")
        if separator and name == key:
            return value
    return None


def _tmpfs_data(step: MountStep, identity: Identity) -> str:
    words = []
    for key, option in (("mode", "mode"), ("size", "size"), ("inodes", "nr_inodes")):
        value = _value(step, key)
        if value is not None:
            words.append(f"{option}={value}")
    if "owner" in step.options:
        words.append(f"uid={identity.uid},gid={identity.gid}")
    return ",".join(words)


def _open_sources(steps: tuple[MountStep, ...]) -> dict[int, int]:
    """Return, by index of the step, a detached copy of each bind's source; an optional one may be missing."""
    sources: dict[int, int] = {}
    for index, step in enumerate(steps):
        if step.kind not in _BINDS:
            continue
        try:
            sources[index] = mounts.clone_tree(step.source, recursive="recursive" in step.options)
        except FileNotFoundError:
            if not step.optional:
                raise _failed(step, f"{step.source!r} does not exist on this host") from None
        except OSError as error:
            raise _failed(step, f"cannot copy the mount of {step.source!r}: {error}") from error
    return sources


def _failed(step: MountStep, why: str) -> SetupError:
    return SetupError(f"view step {step.kind} at {step.target!r} ({step.why}): {why}")


def _is_directory(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return (mode & 0o170000) == 0o040000


def _make_missing(root_fd: int, target: str, *, is_directory: bool) -> int:
    """Return an O_PATH descriptor of ``target`` in the view, made first with its parents where it is missing."""
    try:
        return mounts.open_in_root(root_fd, target)
    except FileNotFoundError:
        pass
    parent, name = os.path.split(target.rstrip("/"))
    parent_fd = _make_missing(root_fd, parent or "/", is_directory=True)
    try:
        if is_directory:
            os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent_fd)
            # Whatever the umask is: a command of another account must be able to cross what leads to its workspace.
            # SAFE: the parent is ours and nothing else runs in this view yet: no link can stand there.
            os.chmod(name, _DIRECTORY_MODE, dir_fd=parent_fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent_fd))
    finally:
        os.close(parent_fd)
    return mounts.open_in_root(root_fd, target)


def _make_entry(root_fd: int, step: MountStep) -> None:
    """Make the directory, file or symbolic link that ``step`` plans inside an own tmpfs."""
    parent, name = os.path.split(step.target.rstrip("/"))
    parent_fd = _make_missing(root_fd, parent or "/", is_directory=True)
    try:
        match step.kind:
            case "dir":
                os.close(_make_missing(root_fd, step.target, is_directory=True))
                mode = _value(step, "mode")
                if mode is not None:
                    # SAFE: the parent is ours and nothing else runs in this view yet: no link can stand there.
                    os.chmod(name, int(mode, 8), dir_fd=parent_fd)
            case "symlink":
                os.symlink(step.source, name, dir_fd=parent_fd)
            case _:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                with open(os.open(name, flags, _FILE_MODE, dir_fd=parent_fd), "w", encoding="utf-8") as file:
                    os.fchmod(file.fileno(), _FILE_MODE)
                    file.write(step.source)
    finally:
        os.close(parent_fd)


class _Builder:
    """Puts steps in place below the stage; remembers which were placed and as what."""

    def __init__(self, identity: Identity, sources: dict[int, int]) -> None:
        self._identity = identity
        self._sources = sources
        self._root_fd = -1
        self._read_only_later: list[int] = []
        self.placed: dict[int, bool] = {}  # index of the step: is it a directory?
        for name in ("root", "mask_dir"):
            os.mkdir(f"{_STAGE}/{name}", 0o755 if name == "root" else 0)
        os.close(os.open(f"{_STAGE}/mask_file", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))

    def close(self) -> None:
        for descriptor in (*self._sources.values(), *self._read_only_later):
            os.close(descriptor)
        if self._root_fd >= 0:
            os.close(self._root_fd)

    def place(self, index: int, step: MountStep) -> None:
        if (step.target == "/") != (index == 0):
            raise _failed(step, "the first step, and no other, makes the root")
        try:
            placed = self._place_root(step) if index == 0 else self._place(index, step)
        except FileNotFoundError as error:
            if not step.optional:
                raise _failed(step, f"its target does not exist and cannot be made: {error}") from error
            return
        except OSError as error:
            raise _failed(step, str(error)) from error
        if placed is not None:
            self.placed[index] = placed

    def finish(self) -> None:
        """Make read-only what later steps still had to write to, and stand in the new root."""
        for descriptor in self._read_only_later:
            mounts.set_attributes(descriptor, frozenset({"readonly"}), recursive=False)
        os.fchdir(self._root_fd)

    def _place_root(self, step: MountStep) -> bool:
        stage_root = f"{_STAGE}/root"
        if step.kind == "tmpfs":
            if "readonly" not in step.options:
                raise _failed(step, "a root that commands could write to is no view; add 'readonly'")
            data = _tmpfs_data(step, self._identity)
            mounts.mount_new("tmpfs", stage_root, flags=_flags(step) - {"readonly"}, data=data)
        elif step.kind in _BINDS:
            target = os.open(stage_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._attach(self._sources[0], step, target)
            os.close(target)
        else:
            raise _failed(step, "only a tmpfs or a bind can be the root")
        self._root_fd = os.open(stage_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if step.kind == "tmpfs":
            self._read_only_later.append(os.dup(self._root_fd))
        return True

    def _place(self, index: int, step: MountStep) -> bool | None:
        match step.kind:
            case "bind" | "bind_readonly":
                if index not in self._sources:
                    return None
                return self._place_bind(self._sources[index], step)
            case "tmpfs" | "proc":
                self._place_new(step.kind, step)
                return True
            case "dev":
                self._place_dev(step)
                return True
            case "mask":
                return self._place_mask(step)
            case _:
                _make_entry(self._root_fd, step)
                return step.kind == "dir"

    def _place_bind(self, tree_fd: int, step: MountStep) -> bool:
        is_directory = _is_directory(tree_fd)
        target = _make_missing(self._root_fd, step.target, is_directory=is_directory)
        try:
            self._attach(tree_fd, step, target)
        finally:
            os.close(target)
        return is_directory

    def _attach(self, tree_fd: int, step: MountStep, target_fd: int) -> None:
        """Change the detached copy's flags, then show it: there is no moment in which it is writable."""
        names = _flags(step)
        if step.kind == "bind_readonly":
            names |= {"readonly"}
        if names:
            mounts.set_attributes(tree_fd, names, recursive="recursive" in step.options)
        mounts.move_tree(tree_fd, target_fd)

    def _place_new(self, kind: str, step: MountStep) -> None:
        target = _make_missing(self._root_fd, step.target, is_directory=True)
        flags = _flags(step)
        late = kind == "tmpfs" and "readonly" in flags
        data = _tmpfs_data(step, self._identity) if kind == "tmpfs" else ""
        try:
            mounts.mount_new(kind, f"/proc/self/fd/{target}", flags=flags - {"readonly"} if late else flags, data=data)
        finally:
            os.close(target)
        if late:
            self._read_only_later.append(mounts.open_in_root(self._root_fd, step.target))

    def _place_dev(self, step: MountStep) -> None:
        target = _make_missing(self._root_fd, step.target, is_directory=True)
        mounts.mount_new(
            "tmpfs", f"/proc/self/fd/{target}", flags=frozenset({"nosuid", "noexec"}), data="mode=0755,size=64k"
        )
        os.close(target)
        for name in _DEVICES:
            # SAFE: the root is still the host's here, so this is the host's device and not a file of the view.
            node = mounts.clone_tree(f"/dev/{name}", recursive=False)
            target = _make_missing(self._root_fd, f"{step.target}/{name}", is_directory=False)
            mounts.set_attributes(node, frozenset({"nosuid", "noexec"}), recursive=False)
            mounts.move_tree(node, target)
            os.close(node)
            os.close(target)
        target = _make_missing(self._root_fd, f"{step.target}/pts", is_directory=True)
        mounts.mount_new(
            "devpts",
            f"/proc/self/fd/{target}",
            flags=frozenset({"nosuid", "noexec"}),
            data="newinstance,ptmxmode=0666,mode=0600",
        )
        os.close(target)
        # A place for /dev/shm, should a later step put one there: this tmpfs is read-only from `finish` on.
        os.close(_make_missing(self._root_fd, f"{step.target}/shm", is_directory=True))
        parent_fd = mounts.open_in_root(self._root_fd, step.target)
        for name, text in _DEV_LINKS:
            os.symlink(text, name, dir_fd=parent_fd)
        self._read_only_later.append(parent_fd)

    def _place_mask(self, step: MountStep) -> bool | None:
        # SAFE: read-only and without any permission bit; every mask is the same empty thing.
        try:
            target = mounts.open_in_root(self._root_fd, step.target)
        except FileNotFoundError:
            if step.optional:
                return None
            raise
        is_directory = _is_directory(target)
        # The host decides what stands there, not the profile: a directory can only be covered by a directory.
        mask = mounts.clone_tree(f"{_STAGE}/{'mask_dir' if is_directory else 'mask_file'}", recursive=False)
        mounts.set_attributes(mask, _FLAG_NAMES, recursive=False)
        mounts.move_tree(mask, target)
        os.close(mask)
        os.close(target)
        return is_directory


def _private_parts(steps: tuple[MountStep, ...], placed: dict[int, bool]) -> tuple[PrivatePart, ...]:
    """Return the writable tmpfs steps and whatever a later step put inside one of them."""
    private: list[PrivatePart] = []
    tops: list[str] = []
    for index, step in enumerate(steps):
        if index not in placed:
            continue
        fresh = step.kind == "tmpfs" and "readonly" not in step.options
        inside = any(step.target.startswith(f"{top}/") for top in tops)
        if fresh:
            tops.append(step.target.rstrip("/"))
        elif inside and step.kind not in ("bind", "bind_readonly", "dir", "file", "symlink"):
            raise _failed(step, "cannot stand inside a private file system, which is made anew for each command")
        if fresh or inside:
            private.append(PrivatePart(step, is_directory=placed[index]))
    return tuple(private)
