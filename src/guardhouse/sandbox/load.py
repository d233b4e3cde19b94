"""Find, read and fold profiles: a name or a path in, one `Profile` with everything it extends out.

The only part of this package that reads files, and only those of a sandbox directory and a profile that was named.
Runs at boot and in the CLI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.sandbox.documents import ProfileError, read_document
from guardhouse.sandbox.fold import fold_drafts
from guardhouse.sandbox.load_groups import parse_mask_group, parse_syscall_group
from guardhouse.sandbox.parse_process import extended_process, parse_process
from guardhouse.sandbox.parse_profile import Draft, parse_draft
from guardhouse.sandbox.profile import Mask, ProcessProfile, Profile, SyscallGroup

__all__ = ["Library", "list_processes", "list_profiles", "load_process", "load_profile", "read_library"]

# base, a shipped profile, a site's, a team's, one more.
EXTENDS_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Library:
    """The groups and our own processes of one sandbox directory, by name, and where its profiles are."""

    directory: Path
    groups: Mapping[str, SyscallGroup]
    masks: Mapping[str, tuple[Mask, ...]]
    processes: Mapping[str, ProcessProfile]


def read_library(directory: Path) -> Library:
    """Read every group file beneath ``directory`` (``syscalls/``, ``masks/``) and our own processes (``processes/``).

    Raises:
        ProfileError: a file is wrong, or its name and the group's name differ.
        SetupError: a file cannot be read.
    """
    groups: dict[str, SyscallGroup] = {}
    masks: dict[str, tuple[Mask, ...]] = {}
    for path in sorted((directory / "syscalls").glob("*.yaml")):
        group = parse_syscall_group(_read(path), name=_shown(path, directory))
        _check_file_name(path, group.name, group.place)
        groups[group.name] = group
    for path in sorted((directory / "masks").glob("*.yaml")):
        name, found = parse_mask_group(_read(path), name=_shown(path, directory))
        _check_file_name(path, name, f"{_shown(path, directory)}:1:1")
        masks[name] = found
    if not groups:
        raise SetupError(f"no system call groups in {directory / 'syscalls'}; is this a sandbox directory?")
    return Library(directory=directory, groups=groups, masks=masks, processes=_read_processes(directory, groups))


def _read_processes(directory: Path, groups: Mapping[str, SyscallGroup]) -> dict[str, ProcessProfile]:
    """Read ``processes/``: its own groups can be named there only, so that no command's profile gets at them."""
    known = dict(groups)
    for path in sorted((directory / "processes" / "syscalls").glob("*.yaml")):
        group = parse_syscall_group(_read(path), name=_shown(path, directory))
        _check_file_name(path, group.name, group.place)
        if group.name in groups:
            raise ProfileError(group.place, f"group {group.name!r} is also one of syscalls/; give it another name")
        known[group.name] = group
    documents = {
        path.stem: read_document(_read(path), name=_shown(path, directory))
        for path in sorted((directory / "processes").glob("*.yaml"))
    }
    found: dict[str, ProcessProfile] = {}

    def load(name: str, waiting: tuple[str, ...]) -> ProcessProfile:
        if name in found:
            return found[name]
        extends = extended_process(documents[name])
        if extends is not None and (extends not in documents or extends in (*waiting, name)):
            raise ProfileError(documents[name].place, f"process {name!r} extends {extends!r}, unknown or itself")
        extended = None if extends is None else load(extends, (*waiting, name))
        profile = parse_process(documents[name], groups=known, extended=extended)
        if profile.name != name:
            raise ProfileError(profile.place, f"process {profile.name!r} must be in a file {profile.name}.yaml")
        return found.setdefault(name, profile)

    for name in documents:
        load(name, ())
    return found


def list_processes(directory: Path) -> tuple[str, ...]:
    """Return the names of our own processes that ``directory`` says something of, sorted."""
    return tuple(path.stem for path in sorted((directory / "processes").glob("*.yaml")))


def load_process(name: str, *, directory: Path, library: Library | None = None) -> ProcessProfile:
    """Load how one of our own processes confines itself.

    Raises:
        ProfileError: with ``file:line:column``.
        SetupError: there is no such process.
    """
    processes = (library or read_library(directory)).processes
    if name not in processes:
        raise SetupError(f"unknown process {name!r}; known are {', '.join(processes) or 'none'}")
    return processes[name]


def list_profiles(directory: Path) -> tuple[str, ...]:
    """Return the names of the profiles in ``directory`` that can be run, sorted (``base`` only is extended)."""
    names = (path.stem for path in sorted((directory / "profiles").glob("*.yaml")))
    return tuple(name for name in names if name != "base")


def load_profile(name_or_path: str, *, directory: Path, library: Library | None = None) -> Profile:
    """Load one profile and everything it extends.

    Args:
        name_or_path: the name of a file in ``directory/profiles`` without its suffix, or anything with a ``/`` or
            ending in ``.yaml``: a path. What it extends is looked for beside it first, then in ``directory``.
        directory: a sandbox directory, usually `data_files.shipped_directory("sandbox")`.
        library: its groups, when already read.

    Raises:
        ProfileError: with ``file:line:column``.
        SetupError: a file cannot be found or read.
    """
    library = library or read_library(directory)
    path = _locate(name_or_path, directory, beside=None)
    drafts: list[Draft] = []
    seen: list[Path] = []
    while True:
        if path in seen or len(seen) >= EXTENDS_MAX_DEPTH:
            chain = " -> ".join(str(item) for item in [*seen, path])
            raise SetupError(f"profile extends itself or more than {EXTENDS_MAX_DEPTH} others: {chain}")
        seen.append(path)
        shown = _shown(path, directory)
        draft = parse_draft(read_document(_read(path), name=shown))
        if draft.name != path.stem:
            raise ProfileError(draft.place, f"profile {draft.name!r} must be in a file {draft.name}.yaml")
        drafts.insert(0, draft)
        if draft.extends is None:
            break
        path = _locate(draft.extends, directory, beside=path.parent)
    profile = fold_drafts(drafts, groups=library.groups, masks=library.masks)
    return replace(profile, processes=library.processes)


def _locate(name_or_path: str, directory: Path, *, beside: Path | None) -> Path:
    if "/" in name_or_path or name_or_path.endswith(".yaml"):
        return Path(name_or_path).absolute()
    folders = ([beside] if beside else []) + [directory / "profiles"]
    for folder in folders:
        candidate = folder / f"{name_or_path}.yaml"
        if candidate.is_file():
            return candidate.absolute()
    known = ", ".join(list_profiles(directory))
    raise SetupError(f"unknown profile {name_or_path!r}; shipped are {known}; a path must contain a '/'")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"cannot read {path}: {error}") from error


def _shown(path: Path, directory: Path) -> str:
    base = directory.absolute()
    absolute = path.absolute()
    return f"sandbox/{absolute.relative_to(base)}" if absolute.is_relative_to(base) else str(path)


def _check_file_name(path: Path, name: str, place: str) -> None:
    if path.stem != name:
        raise ProfileError(place, f"group {name!r} must be in a file {name}.yaml")
