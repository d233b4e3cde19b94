"""What the wall refused a command, in words that let a person grant it on purpose.

Two kinds of evidence. What the launcher counted or saw (denied system calls, limits that killed) is *certain*. What a
program printed ("Permission denied" and its like) is a hint only: the path or port in it is judged against the plan,
and a line appears only where the plan itself refuses; it says "likely", since a program may print what it wants and the
file's own permissions may have said no first. Pure. Runs in the runner, `try` and the CLI.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from guardhouse.sandbox.bundle import Bundle, ProfilePlan
from guardhouse.sandbox.judge_path import Access, PathRefusal, hidden_by_private, judge_path, normal_path, step_at

__all__ = ["Denial", "End", "explain_denials"]

# Beyond this a person reads the command's own output instead.
DENIALS_MAX: Final = 6
_LINES_READ: Final = 200
_LINE_MAX_CHARS: Final = 2_000
_QUOTE_MAX_CHARS: Final = 240
_CALLS_SHOWN: Final = 5
_PATH_MAX_CHARS: Final = 1_024

_REFUSED: Final = re.compile(r"permission denied|operation not permitted|access denied|EACCES|EPERM", re.I)
_READ_ONLY: Final = re.compile(r"read-only file ?system|EROFS", re.I)
_ABSENT: Final = re.compile(r"no such file or directory|ENOENT|not found", re.I)
_NO_SPACE: Final = re.compile(r"no space left on device|ENOSPC", re.I)
_TOO_LARGE: Final = re.compile(r"file too large|file size limit exceeded|EFBIG", re.I)
_TOO_MANY_FILES: Final = re.compile(r"too many open files|EMFILE", re.I)
_NO_MEMORY: Final = re.compile(
    r"cannot allocate memory|out of memory|memory exhausted|memoryerror|std::bad_alloc|ENOMEM", re.I
)
_NO_PROCESS: Final = re.compile(
    r"fork: .*resource temporarily unavailable|fork: retry|cannot fork|can't (fork|start new thread)"
    r"|resource temporarily unavailable.*(fork|clone|thread)|pthread_create",
    re.I,
)
_UNREACHABLE: Final = re.compile(
    r"network is unreachable|could(n't| not) resolve|temporary failure in name resolution|name or service not known"
    r"|no address associated|connection refused|no route to host|failed to connect|couldn't connect|ENETUNREACH",
    re.I,
)
_CONNECTS: Final = re.compile(r"connect|/dev/(tcp|udp)/", re.I)
_NO_NEW_PRIVILEGES: Final = re.compile(r"no new privileges|effective uid is not 0|must be setuid root", re.I)
_NO_PROCESS_NUMBER: Final = re.compile(
    r"\bkill\b.*?\(?(?P<pid>\d+)\)?.*(no such process|operation not permitted)", re.I
)
_CHANGES: Final = re.compile(
    r"cannot (touch|create|remove|move|make|overwrite|unlink|rename|change|set|truncate|write|mkdir|link|copy)"
    r"|for writing|error writing|write error|failed to (open|create|remove|write)|cannot open .*for"
    r"|couldn't (write|create)|creating|changing",
    re.I,
)
# Whose "Permission denied" is about what they would change, and whose may be either (a redirection, or a program).
_WRITERS: Final = re.compile(
    r"(tee|cp|mv|install|ln|mkdir|rm|rmdir|touch|truncate|chmod|chown|dd|sed|rsync|tar|patch): "
)
_SHELLS: Final = re.compile(r"\S*\b(bash|dash|sh|zsh|ksh): ")
_QUOTED: Final = re.compile(r"['\"‘“`](?P<path>[^'\"’”`\n]{1,1024})['\"’”]")
_ABSOLUTE: Final = re.compile(r"(?<![\w.~=/-])(?P<path>/[^\s'\"`:;,)\]}>’”]*)")
_PORT: Final = re.compile(r"(?:\bport |:|/dev/tcp/[^/\s]{1,255}/)(?P<port>\d{1,5})\b")
# asm-generic/signal.h; the module `signal` is for code that acts.
_SIGXCPU: Final = 24
_SIGXFSZ: Final = 25
_KIBIBYTE: Final = 1024


@dataclass(frozen=True, slots=True)
class Denial:
    """One thing that the wall refused.

    Attributes:
        layer: a name of `profile.LAYERS`.
        subject: the call, path, port or limit.
        certain: the wall itself saw it; otherwise the command's own words are the evidence, and ``text`` says "likely".
        text: a sentence for people.
        grant: what a profile would have to say to permit it; empty where no profile can.
    """

    layer: str
    subject: str
    certain: bool
    text: str
    grant: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a result."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a command ended, as far as a denial can be told from it.

    Attributes:
        stderr: the end of what it wrote there.
        workdir: below the workspace.
    """

    exit_code: int
    signal_number: int | None
    oom_killed: bool
    denied_syscalls: Mapping[str, int]
    stderr: str
    workdir: str = ""


def explain_denials(bundle: Bundle, profile: str, end: End) -> tuple[Denial, ...]:
    """Return what the wall refused, the certain first, without doubles; nothing for a command that got along."""
    plan = bundle.profiles.get(profile)
    if plan is None:
        return ()
    found: dict[tuple[str, str], Denial] = {}
    directory = f"{bundle.workspace}/{end.workdir}".rstrip("/")
    for denial in (*_certain(plan, end), *_likely(plan, end, directory)):
        found.setdefault((denial.layer, denial.subject), denial)
    denials = list(found.values())
    return tuple(denials[:DENIALS_MAX])


# What the wall itself saw


def _certain(plan: ProfilePlan, end: End) -> Iterator[Denial]:
    if end.oom_killed:
        size = _size(plan.cgroup.memory_bytes)
        yield _limit(
            "cgroup_memory", "memory_bytes", f"the kernel killed a process at the memory limit of {size}", plan
        )
    if end.signal_number == _SIGXFSZ:
        yield _limit("rlimits", "fsize", f"a file reached the size limit of {_soft(plan, 'fsize')}", plan)
    if end.signal_number == _SIGXCPU:
        yield _limit("rlimits", "cpu", "a process reached the limit of CPU time", plan)
    if end.denied_syscalls and end.exit_code != 0:
        calls = sorted(end.denied_syscalls.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{name} ({count})" for name, count in calls[:_CALLS_SHOWN])
        more = f" and {len(calls) - _CALLS_SHOWN} other calls" if len(calls) > _CALLS_SHOWN else ""
        yield Denial(
            "seccomp",
            ", ".join(name for name, _ in calls[:_CALLS_SHOWN]),
            certain=True,
            text=f"the system call filter of profile {plan.name!r} refused {shown}{more}{_hidden(end)}",
            grant="syscalls: [{group: …, why: …}] with a group that has the call; many are in none, on purpose",
        )


def _hidden(end: End) -> str:
    """Return what to know of a refused call of 32 bits that a 64-bit build would not make."""
    if "i386:socketcall" not in end.denied_syscalls:
        return ""
    return (
        "; socketcall keeps its arguments in memory, where no filter can look, so no profile lets a program of 32 bits"
        " make a socket or send by it; a 64-bit build of the program can"
    )


def _limit(layer: str, name: str, what: str, plan: ProfilePlan, *, certain: bool = True) -> Denial:
    key = "cgroup" if layer.startswith("cgroup") else "limits"
    value = "value: …" if key == "cgroup" else "soft: …, hard: …"
    text = f"{what} (profile {plan.name!r})"
    return Denial(layer, name, certain=certain, text=text, grant=f"{key}: [{{limit: {name}, {value}, why: …}}]")


# What the command's words hint at


def _likely(plan: ProfilePlan, end: End, directory: str) -> Iterator[Denial]:
    if end.exit_code == 0:
        return
    for raw in end.stderr.splitlines()[-_LINES_READ:]:
        line = raw.strip()
        if len(line) <= _LINE_MAX_CHARS:
            yield from _of_line(plan, line, directory)


def _of_line(plan: ProfilePlan, line: str, directory: str) -> Iterator[Denial]:
    limit = _limit_of(plan, line)
    if limit is not None:
        yield limit
        return
    if _NO_NEW_PRIVILEGES.search(line):
        what = "a program that needs set-user-id rights was started, and no exec gains any behind the wall"
        yield _hint("no_new_privs", "setuid", what, line, "", "")
        return
    numbered = _NO_PROCESS_NUMBER.search(line)
    if numbered is not None:
        yield _hint("namespaces", f"process {numbered['pid']}", _process_words(numbered["pid"]), line, "", "")
        return
    if _UNREACHABLE.search(line) or (_REFUSED.search(line) and _CONNECTS.search(line)):
        network = _network_of(plan, line)
        if network is not None:
            yield network
            return
    if _READ_ONLY.search(line):
        access: Access = "write"
    elif _REFUSED.search(line) or _NO_SPACE.search(line):
        access = "write" if _CHANGES.search(line) or _WRITERS.match(line) else "read"
    elif _ABSENT.search(line):
        yield from _absent_of(plan, line, directory)
        return
    else:
        return
    for path in _paths_of(line, directory):
        if _NO_SPACE.search(line):
            yield from _full(plan, path, line)
            continue
        refusal = judge_path(plan, path, access)
        if refusal is None and access == "read" and _SHELLS.match(line):
            refusal = judge_path(plan, path, "write")
        if refusal is not None:
            yield _refused(refusal, path, line)


def _absent_of(plan: ProfilePlan, line: str, directory: str) -> Iterator[Denial]:
    """A path that is not there may be one that the view leaves out, or covers; one that it shows says nothing."""
    for path in _paths_of(line, directory):
        refusal = judge_path(plan, path, "read") or hidden_by_private(plan, path)
        if refusal is not None and refusal.layer == "mount_view":
            yield _refused(refusal, path, line)


def _refused(refusal: PathRefusal, path: str, line: str) -> Denial:
    return _hint(refusal.layer, path, refusal.what, line, refusal.why, refusal.grant)


def _hint(layer: str, subject: str, what: str, line: str, why: str, grant: str) -> Denial:
    reason = f", because: {why}" if why else ""
    how = f"; to permit it, extend the profile with {grant}" if grant else ""
    text = f"likely {layer}: {what}{reason}{how} (it printed: {_quote(line)})"
    return Denial(layer, subject, certain=False, text=text, grant=grant)


def _quote(line: str) -> str:
    """Return the line for people, or only how long it is: a part of a secret is not found by whoever redacts."""
    if len(line) > _QUOTE_MAX_CHARS:
        return f"a line of {len(line)} characters"
    return "".join(character if character.isprintable() else "�" for character in line)


def _paths_of(line: str, directory: str) -> list[str]:
    """Return what stands in ``line`` as paths, quoted ones first; nothing that could not be one."""
    found = [match["path"] for match in _QUOTED.finditer(line)]
    found = [path for path in found if "/" in path or " " not in path]
    if not found:
        found = [match["path"] for match in _ABSOLUTE.finditer(line)]
    paths = [normal_path(path, directory=directory) for path in found if 0 < len(path) <= _PATH_MAX_CHARS]
    return list(dict.fromkeys(path for path in paths if "\0" not in path and path != "/"))


def _limit_of(plan: ProfilePlan, line: str) -> Denial | None:
    if _TOO_MANY_FILES.search(line) and "nofile" in plan.rlimits:
        soft, hard = plan.rlimits["nofile"]
        what = f"a process may have {soft} open files (up to {hard} by ulimit -n)"
        return _likely_limit("rlimits", "nofile", what, plan, line)
    if _TOO_LARGE.search(line) and "fsize" in plan.rlimits:
        return _likely_limit("rlimits", "fsize", f"one file may have {_soft(plan, 'fsize')}", plan, line)
    if _NO_PROCESS.search(line):
        if plan.cgroup.pids is not None:
            what = f"the command may have {plan.cgroup.pids} processes and threads"
            return _likely_limit("cgroup_pids", "pids", what, plan, line)
        if "nproc" in plan.rlimits:
            what = f"the account may have {plan.rlimits['nproc'][0]} processes and threads"
            return _likely_limit("rlimits", "nproc", what, plan, line)
    if _NO_MEMORY.search(line):
        if "data" in plan.rlimits:
            what = f"one process may have {_soft(plan, 'data')} of data"
            return _likely_limit("rlimits", "data", what, plan, line)
        if plan.cgroup.memory_bytes is not None:
            what = f"the command may have {_size(plan.cgroup.memory_bytes)} of memory"
            return _likely_limit("cgroup_memory", "memory_bytes", what, plan, line)
    return None


def _likely_limit(layer: str, name: str, what: str, plan: ProfilePlan, line: str) -> Denial:
    certain = _limit(layer, name, what, plan)
    return _hint(layer, name, certain.text, line, "", certain.grant)


def _full(plan: ProfilePlan, path: str, line: str) -> Iterator[Denial]:
    step = step_at(plan, path)
    if step is None or step.kind != "tmpfs":
        return
    sizes = [option for option in step.options if option.startswith(("size=", "inodes="))]
    if sizes:
        what = f"{step.target} is private, and holds {_tmpfs_words(sizes)} in profile {plan.name!r}"
        yield _hint("mount_view", path, what, line, step.why, "tmp: {size: …, why: …}")


def _tmpfs_words(options: list[str]) -> str:
    words = []
    for option in options:
        name, _, value = option.partition("=")
        words.append(f"{_size(int(value))} of data" if name == "size" and value.isdecimal() else f"{value} files")
    return " in at most ".join(words)


def _network_of(plan: ProfilePlan, line: str) -> Denial | None:
    port = next((int(match["port"]) for match in _PORT.finditer(line) if 0 < int(match["port"]) < 1 << 16), None)
    subject = "network" if port is None else f"TCP port {port}"
    match plan.network:
        case "none":
            what = f"profile {plan.name!r} has a network of its own that leads nowhere"
            grant = "network: {mode: domains, domains: [{domain: …, why: …}], why: …}"
            return _hint("namespaces", subject, what, line, "", grant)
        case "domains":
            names = ", ".join(grant.target for grant in plan.network_domains[:_CALLS_SHOWN])
            what = (
                f"profile {plan.name!r} reaches names through its egress proxy alone ({names}); what does not use the"
                " proxy (see HTTPS_PROXY) leads nowhere"
            )
            return _hint("namespaces", subject, what, line, "", "network: domains: [{domain: …, why: …}]")
        case "ports":
            allowed = () if plan.landlock is None else plan.landlock.ports
            if port is None or any(rule.port == port for rule in allowed):
                return None
            listed = ", ".join(str(rule.port) for rule in allowed) or "none"
            what = f"TCP port {port} is not among those of profile {plan.name!r} ({listed})"
            return _hint("landlock", subject, what, line, "", f"network: ports: [{{connect: {port}, why: …}}]")
        case _:
            return None


def _process_words(pid: str) -> str:
    if pid == "1":
        return "process 1 is ours, the first of the command's own pid namespace; it takes no signal from the command"
    return f"process numbers are those of the command's own pid namespace; {pid} is none of its processes"


def _soft(plan: ProfilePlan, name: str) -> str:
    return _size(plan.rlimits[name][0]) if name in plan.rlimits else "the account"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "the host"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < _KIBIBYTE:
            return f"{size:g} {unit}"
        size /= _KIBIBYTE
    return f"{size:g} GiB"
