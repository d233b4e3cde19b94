"""What a plan says of one path: which layer refuses to have it read, or written, if any.

Pure: the plan's own steps and rules, no look at a host. Whether the path exists and what its permissions are is not
known here, so a "no" is the wall's and a silence is nobody's yes. Runs in the runner, `try` and the CLI.
"""

import posixpath
import re
from dataclasses import dataclass
from typing import Final, Literal

from guardhouse.sandbox.bundle import MountStep, ProfilePlan
from guardhouse.sandbox.plan_mounts import is_beneath

__all__ = ["Access", "PathRefusal", "hidden_by_private", "judge_path", "normal_path", "step_at"]

Access = Literal["read", "write"]

# Links that every distribution has; others are not followed, since no host is looked at.
_LINKS: Final = (("/var/run", "/run"), ("/var/lock", "/run/lock"))
# What of another process the kernel shows only to who may trace it (proc(5), "ptrace access mode").
_TRACED: Final = re.compile(
    r"/proc/(?P<pid>self|thread-self|[0-9]+)(/task/[0-9]+)?"
    r"/(environ|mem|maps|smaps|smaps_rollup|numa_maps|pagemap|auxv|syscall|stack|io|exe|cwd|root|fd|fdinfo|map_files"
    r"|ns|personality|wchan|timers|clear_refs|attr)(/.*)?"
)
_OWN: Final = frozenset({"self", "thread-self"})


@dataclass(frozen=True, slots=True)
class PathRefusal:
    """One layer's no. ``why`` is the profile's own reason, ``grant`` what a profile would have to say instead."""

    layer: str
    what: str
    why: str
    grant: str


def normal_path(path: str, *, directory: str) -> str:
    """Return ``path`` as an absolute one, seen from ``directory``, without ``..`` and the links that all hosts have."""
    found = posixpath.normpath(posixpath.join(directory, path))
    found = "/" + found.lstrip("/")
    for link, target in _LINKS:
        if is_beneath(found, link):
            found = target + found[len(link) :]
    return found


def judge_path(plan: ProfilePlan, path: str, access: Access) -> PathRefusal | None:
    """Return the layer that refuses ``access`` to ``path``, or None when no layer of ``plan`` does.

    Args:
        path: absolute and normal; a symbolic link on the host is not known of.
    """
    if (traced := _TRACED.fullmatch(path)) and traced["pid"] not in _OWN and access == "read":
        return _traced(plan, path)
    step = step_at(plan, path)
    if step is None:
        return PathRefusal("mount_view", f"profile {plan.name!r} shows nothing at {path}", "", _read_grant(path))
    if step.kind == "mask" or (step.kind == "tmpfs" and "mode=0711" in step.options and step.target != "/"):
        return PathRefusal(
            "mount_view", f"{path} is masked in profile {plan.name!r} ({step.target})", step.why, _read_grant(path)
        )
    if path != step.target and (step.kind == "dir" or (step.kind == "tmpfs" and "readonly" in step.options)):
        return PathRefusal("mount_view", f"profile {plan.name!r} shows nothing at {path}", step.why, _read_grant(path))
    if access == "write":
        return _writing(plan, path, step)
    return None


def hidden_by_private(plan: ProfilePlan, path: str) -> PathRefusal | None:
    """Return why what the host has at ``path`` would not be seen: the command has that directory to itself."""
    step = step_at(plan, path)
    if step is None or step.kind != "tmpfs" or "readonly" in step.options:
        return None
    what = (
        f"{step.target} is private in profile {plan.name!r}: what the host or an earlier command has there is not shown"
    )
    return PathRefusal("mount_view", what, step.why, "")


def _writing(plan: ProfilePlan, path: str, step: MountStep) -> PathRefusal | None:
    if step.kind == "dev" or (step.kind in {"bind", "tmpfs"} and "readonly" not in step.options):
        return None
    # Landlock's rules follow from the same steps, as a second line; the mount answers first.
    return PathRefusal(
        "mount_view", f"{path} is not writable in profile {plan.name!r}: {step.target} is shown read-only", step.why,
        _write_grant(path),
    )  # fmt: skip


def _traced(plan: ProfilePlan, path: str) -> PathRefusal:
    if plan.proc == "own":
        what = f"{path}: process numbers are those of the command's own pid namespace, whose first process is ours"
        return PathRefusal("namespaces", what, "", "")
    layer = "namespaces" if "user" in plan.namespaces and plan.landlock is None else "landlock"
    return PathRefusal(layer, f"{path} belongs to a process outside the command's wall, and is not read", "", "")


def step_at(plan: ProfilePlan, path: str) -> MountStep | None:
    """Return the last step that decides what is at ``path``; None where the root alone would, and is empty."""
    found: MountStep | None = None
    for step in plan.mounts:
        if step.kind == "symlink":
            continue
        if is_beneath(path, step.target):
            found = step
    leads = any(is_beneath(step.target, path) for step in plan.mounts if step.target != "/")
    if found is not None and found.target == "/" and found.kind == "tmpfs":
        linked = next((s for s in plan.mounts if s.kind == "symlink" and is_beneath(path, s.target)), None)
        if linked is not None:
            return step_at(plan, posixpath.normpath(f"/{linked.source}{path[len(linked.target) :]}"))
        return found if leads or path == "/" else None
    return found


def _read_grant(path: str) -> str:
    return f"grant: [{{path: {path}, why: …}}]"


def _write_grant(path: str) -> str:
    parent = posixpath.dirname(path)
    wanted = path if parent in {"/", "/etc", "/usr", "/var"} else parent
    return f"grant: [{{path: {wanted}, writable: true, why: …}}]"
