"""The view of a profile as ordered mount steps for one workspace.

Order is the design: the profile's view, masks, grants that show a part again, the workspace, and last the masks
that lie beneath a grant or the workspace. Knows paths as text only. Runs at boot and in the CLI.
"""

from collections.abc import Mapping
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import MountKind, MountStep
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.facts import HostFacts, Surroundings
from guardhouse.sandbox.profile import Profile, ViewEntry

__all__ = ["check_absolute", "is_beneath", "plan_mounts"]

# A directory that covers a secret and leads to something shown again: passable, not listable, nothing to write.
_LEADING_DIRECTORY: Final = ("nosuid", "nodev", "noexec", "readonly", "mode=0711", "size=65536", "inodes=64")
_SYSTEM_BIND: Final = ("nosuid", "nodev")
_GUARDED: Final = "what the runner is made of, and told by, is not changed by a command"
_PINNED: Final = "leads to the runner's own files: a mount point cannot be renamed away"
# The workspace holds scripts that may be run, never devices or set-user-id files that count.
_WORKSPACE_OPTIONS: Final = ("nosuid", "nodev")


def plan_mounts(
    profile: Profile, *, workspace: str, words: Mapping[str, str], host: HostFacts, around: Surroundings
) -> tuple[MountStep, ...]:
    """Return the steps of the view.

    Args:
        profile: with a view; ``base`` has none.
        workspace: absolute path on the host and in the view.
        words: what ``{name}`` in texts and options stands for.
        host: which of ``/bin`` and its like are links.
        around: protected paths.

    Raises:
        ProfileError: a placeholder is unknown, or the view is empty.
        SetupError: the workspace is a place that cannot be one.
    """
    if not profile.view:
        raise ProfileError(profile.place, f"profile {profile.name!r} shows nothing: it is only for extending")
    check_absolute(workspace, "workspace")
    if workspace == "/" or any(is_beneath(workspace, place) for place in ("/proc", "/sys", "/dev", "/etc", "/usr")):
        raise SetupError(f"workspace {workspace!r} is part of the system; choose a directory of its own")
    shown = [grant.path for grant in profile.grants]
    if profile.workspace != "none":
        shown.append(workspace)
    steps = [_view_step(entry, words, host) for entry in profile.view]
    early, late = _masks(profile, shown, around)
    steps += early
    for grant in profile.grants:
        kind: MountKind = "bind" if grant.writable else "bind_readonly"
        options = ("nosuid", "nodev", "noexec") if grant.kind != "path" else ("recursive", *_SYSTEM_BIND)
        steps.append(MountStep(kind, grant.path, grant.path, options, grant.reason.why, grant.optional))
    if profile.workspace != "none":
        kind = "bind" if profile.workspace == "read_write" else "bind_readonly"
        steps.append(
            MountStep(kind, workspace, workspace, _WORKSPACE_OPTIONS, profile.workspace_reason.why, optional=False)
        )
    return _guarded(steps + late, around)


def _guarded(steps: list[MountStep], around: Surroundings) -> tuple[MountStep, ...]:
    """Return ``steps`` with what no command may change made read-only wherever a step would show it writable.

    A directory above it that could be renamed would take it along and leave its name to somebody else. A mount point
    cannot be renamed, so each directory on the way is bound onto itself.
    """
    for path in around.guarded_paths:
        check_absolute(path, "guarded path")
    added: dict[int, dict[str, MountStep]] = {}
    for path in sorted({*around.guarded_paths, *around.protected_paths}):
        covered = _last_over(steps, path)
        is_hidden = covered is not None and steps[covered].kind in {"mask", "tmpfs"}
        anchor = steps[covered].target if covered is not None and is_hidden else path
        base = _last_over(steps, anchor, above=True) if is_hidden else covered
        if base is None or steps[base].kind != "bind" or (steps[base].target == path and not is_hidden):
            continue
        own = added.setdefault(base, {})
        if any(step.kind == "bind_readonly" and is_beneath(anchor, step.target) for step in own.values()):
            continue
        for directory in _between(steps[base].target, anchor):
            pin = MountStep("bind", directory, directory, steps[base].options, _PINNED, optional=True)
            own.setdefault(directory, pin)
        if not is_hidden:
            own[path] = MountStep("bind_readonly", path, path, ("recursive", *_SYSTEM_BIND), _GUARDED, optional=True)
    found: list[MountStep] = []
    for index, step in enumerate(steps):
        found.append(step)
        found += sorted(added.get(index, {}).values(), key=lambda one: one.target)
    return tuple(found)


def _last_over(steps: list[MountStep], path: str, *, above: bool = False) -> int | None:
    """Return the index of the last step that decides what is at ``path``; with ``above``, at what it lies in."""
    found: int | None = None
    for index, step in enumerate(steps):
        if step.kind != "symlink" and is_beneath(path, step.target) and not (above and step.target == path):
            found = index
    return found


def _between(top: str, path: str) -> list[str]:
    """Return the directories that lie below ``top`` and lead to ``path``, the outermost first."""
    parts = path.split("/")[1:-1]
    leading = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]
    return [directory for directory in leading if directory != top and is_beneath(directory, top)]


def check_absolute(path: str, what: str) -> None:
    """Check that ``path`` is absolute and in its shortest spelling.

    Raises:
        SetupError: naming ``what`` and the path.
    """
    parts = path.split("/")[1:]
    if not path.startswith("/") or "\0" in path or (path != "/" and any(part in {"", ".", ".."} for part in parts)):
        raise SetupError(f"{what} {path!r} must be an absolute path in its shortest spelling")


def is_beneath(path: str, directory: str) -> bool:
    """Say whether ``path`` is ``directory`` or lies in it, by its text."""
    return directory == "/" or path == directory or path.startswith(f"{directory}/")


def _view_step(entry: ViewEntry, words: Mapping[str, str], host: HostFacts) -> MountStep:
    why = entry.reason.why
    options = tuple(_fill(option, words, entry) for option in entry.options)
    if entry.kind == "system_link":
        if entry.target in host.system_links:
            return MountStep("symlink", host.system_links[entry.target], entry.target, (), why, entry.optional)
        return MountStep("bind_readonly", entry.target, entry.target, _SYSTEM_BIND, why, entry.optional)
    source = _fill(entry.source, words, entry) if entry.kind in {"file", "symlink"} else entry.source
    return MountStep(entry.kind, source, entry.target, options, why, entry.optional)


def _masks(profile: Profile, shown: list[str], around: Surroundings) -> tuple[list[MountStep], list[MountStep]]:
    """Return masks that come before what is shown again, and those beneath it."""
    reasons = {mask.path: mask.reason.why for mask in profile.masks}
    for path in around.protected_paths:
        check_absolute(path, "protected path")
        reasons.setdefault(path, "the runner's own files")
    early: list[MountStep] = []
    late: list[MountStep] = []
    for path in sorted(reasons):
        covers = [other for other in reasons if other != path and is_beneath(path, other)]
        if path in shown:
            continue  # granted by name, or the workspace itself
        if _leads(path, shown):
            early.append(MountStep("tmpfs", "", path, _LEADING_DIRECTORY, reasons[path], optional=True))
        elif any(is_beneath(path, place) for place in shown):
            late.append(MountStep("mask", "", path, (), reasons[path], optional=True))
        elif not covers:
            early.append(MountStep("mask", "", path, (), reasons[path], optional=True))
    return early, late


def _leads(path: str, shown: list[str]) -> bool:
    return any(is_beneath(place, path) for place in shown)


def _fill(text: str, words: Mapping[str, str], entry: ViewEntry) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    if "{" in text:
        known = ", ".join(sorted(words))
        raise ProfileError(entry.reason.place, f"unknown placeholder in {text!r}; known: {known}")
    return text
