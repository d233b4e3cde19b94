"""How one of our own processes confines itself, in words for a person who reviews it, and as plain data.

Runs in the CLI.
"""

from collections.abc import Iterator
from typing import Any

from guardhouse.sandbox.compile_process import process_rules
from guardhouse.sandbox.profile import ProcessProfile
from guardhouse.sandbox.rules import render_rules

__all__ = ["describe_process", "process_as_data"]


def describe_process(profile: ProcessProfile) -> str:
    """Return a page of text: what the process keeps, calls, reads and writes, and why."""
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: ProcessProfile) -> Iterator[str]:
    yield f"our own process {profile.name}: {profile.summary}"
    yield f"  {profile.place}"
    yield ""
    heirs = "commands inherit all of it" if profile.inherited else "nothing else inherits it"
    yield f"Inheritance: {heirs}: {profile.inherited_reason.why}"
    yield ""
    yield "Capabilities kept by a start as root (an ordinary user has none)"
    for name, reason in profile.capabilities.items():
        yield f"  {name}: {reason.why}"
    if not profile.capabilities:
        yield "  none"
    bounding = "those" if profile.bounding_kept else "empty"
    yield f"  bounding set: {bounding}: {profile.bounding_reason.why}"
    if profile.nobody is not None:
        yield f"  becomes the account nobody: {profile.nobody.why}"
    yield ""
    files = "only the files below" if profile.files_listed else "files are not its matter"
    scopes = f"scoped: {', '.join(profile.scoped)}" if profile.scoped else "no scope of its own"
    yield f"Landlock: {files}; {scopes}: {profile.landlock_reason.why}"
    for entry in profile.paths:
        yield f"  {'WRITES' if entry.writable else 'reads'} {entry.path}: {entry.reason.why}"
    yield ""
    yield "System calls"
    for name, reason in profile.syscalls.items():
        calls = sorted({rule.call for rule in profile.groups[name].allow})
        yield f"  {name}: {reason.why}"
        if calls:
            yield f"    {' '.join(calls)}"
    if profile.inherited:
        yield "  every other call is refused: ENOSYS here; a command's own filter says EPERM, and counts it"
        yield "  x32 calls kill the process; 32-bit ones do, unless a profile in force permits them (architectures)"
    else:
        yield "  every other call is refused with EPERM; x32 and 32-bit calls kill the process"
    if profile.limits:
        yield ""
        yield "Limits"
    for name, limit in profile.limits.items():
        yield f"  {name} {limit.soft}: {limit.reason.why}"
    yield ""
    yield "Does not run without"
    for layer, reason in profile.requires.items():
        yield f"  {layer}: {reason.why}"
    for layer, reason in profile.may_lack.items():
        yield f"  {layer}, where the host has it: {reason.why}"


def process_as_data(profile: ProcessProfile) -> dict[str, Any]:
    """Return the same as plain values, for ``--json``."""
    return {
        "process": profile.name,
        "summary": profile.summary,
        "commands_inherit": profile.inherited,
        "capabilities": sorted(profile.capabilities),
        "bounding_set": sorted(profile.capabilities) if profile.bounding_kept else [],
        "becomes_nobody": profile.nobody is not None,
        "landlock": {"files_listed": profile.files_listed, "scoped": list(profile.scoped)},
        "reads": [entry.path for entry in profile.paths if not entry.writable],
        "writes": [entry.path for entry in profile.paths if entry.writable],
        "syscalls": list(profile.syscalls),
        "filter": {
            architecture: render_rules(process_rules(profile, architecture=architecture)).splitlines()
            for architecture in ("x86_64", "aarch64")
        },
        "limits": {name: [limit.soft, limit.hard] for name, limit in profile.limits.items()},
        "requires": list(profile.requires),
        "may_lack": list(profile.may_lack),
    }
