"""A profile in words, for a person who has to say yes to it, and as plain data for a program.

Says what is permitted and what is not, with the profile's own reasons. Runs in the CLI.
"""

from collections.abc import Iterator
from typing import Any

from guardhouse.sandbox.i386_calls import MULTIPLEXED
from guardhouse.sandbox.profile import FOREIGN_ARCHITECTURES, Condition, Limit, Profile, ViewEntry
from guardhouse.sandbox.rules import active_groups, render_rules, resolve_rules

__all__ = ["describe_profile", "profile_as_data"]

_NETWORK_WORDS = {
    "none": "none: an empty network namespace",
    "host": "the host's own network and all it reaches (cloud metadata too, unless a firewall says no)",
    "ports": "the host's network, only the TCP ports listed",
    "domains": "none of its own; named domains through the runner's egress proxy",
}
_TUNNEL_WORDS = {
    "named": "tunnels: TLS that names a server names the host asked for; what names none, and what is no TLS, passes",
    "required": "tunnels: only TLS that names the host asked for, and hides no second name",
}


_FALLBACK_WORDS = {
    "refuse": "what the text leaves open does not run",
    "allowed_files": (
        "what the text leaves open runs, and executes only files that the policy allows whatever their arguments; every"
        " exec is recorded and judged by seccomp notification, as far as its caller's words can be read"
    ),
    "judged_arguments": (
        "what the text leaves open runs, and executes only files that the policy allows with some arguments; these are"
        " judged by seccomp notification as their caller shows them, which a hostile program can change"
    ),
}


def describe_profile(profile: Profile, *, switches: frozenset[str] = frozenset()) -> str:
    """Return a page of text: what ``profile`` shows, lets change, calls and spends."""
    return "\n".join(_lines(profile, switches)) + "\n"


def _lines(profile: Profile, switches: frozenset[str]) -> Iterator[str]:
    yield f"profile {profile.name}: {profile.summary}"
    yield f"  from {' -> '.join(profile.ancestry)}; {profile.place}"
    yield ""
    yield "Apart from the host"
    for namespace, reason in profile.namespaces.items():
        yield f"  own {namespace} namespace: {reason.why}"
    yield f"  processes seen: {'its own' if profile.proc == 'own' else 'the whole host'}: {profile.proc_reason.why}"
    yield ""
    yield from _network_lines(profile)
    yield ""
    yield "Files seen"
    for entry in profile.view:
        yield f"  {_view_words(entry)}: {entry.reason.why}"
    yield f"  the workspace, {profile.workspace.replace('_', ' ')}: {profile.workspace_reason.why}"
    for grant in profile.grants:
        write = ", WRITABLE" if grant.writable else ""
        yield f"  granted {grant.kind} {grant.path}{write}: {grant.reason.why}"
    yield ""
    yield f"Files covered ({len(profile.masks)})"
    for mask in profile.masks:
        yield f"  {mask.path}: {mask.reason.why}"
    yield ""
    yield "System calls"
    for name in active_groups(profile, switches):
        group = profile.groups[name]
        calls = sorted({rule.call for rule in group.allow})
        yield f"  {name}: {group.purpose}"
        if calls:
            yield f"    {' '.join(calls)}"
        yield from (f"    {rule.call} only {_conditions(rule.conditions)}" for rule in group.allow if rule.conditions)
        yield from (f"    {answer.call} answers {answer.errno}: {answer.reason.why}" for answer in group.answers)
    for name, switch in profile.switches.items():
        state = "ON" if name in switches else "off"
        yield f"  switch {name} ({state}): {', '.join(switch.groups)}: {switch.reason.why}"
    for name, reason in profile.architectures.items():
        yield f"  PROGRAMS OF {name} RUN: {reason.why}"
        yield from _foreign_lines(profile, name, switches)
    killed = "x32 calls kill" if profile.architectures else "x32 and 32-bit calls kill"
    yield f"  every other call is refused with EPERM; {killed} the process"
    yield ""
    yield "Limits"
    for name, limit in profile.limits.items():
        yield f"  {name} {_limit_words(limit)}: {limit.reason.why}"
    for name, bound in profile.cgroup.items():
        yield f"  control group {name} {bound.value}: {bound.reason.why}"
    yield ""
    yield "Does not run without"
    for layer, requirement in profile.requires.items():
        unless = " (unless a user namespace is made)" if requirement.unless_user_namespace else ""
        yield f"  {layer}{unless}: {requirement.reason.why}"
    if profile.exec_fallback_reason is not None:
        meaning = _FALLBACK_WORDS[profile.exec_fallback]
        yield f"Without an exec gate: {profile.exec_fallback}: {meaning}: {profile.exec_fallback_reason.why}"
    if profile.root_identity is not None:
        yield f"  MAY RUN AS ROOT: {profile.root_identity.why}"


def _foreign_lines(profile: Profile, architecture: str, switches: frozenset[str]) -> Iterator[str]:
    machine = FOREIGN_ARCHITECTURES[architecture]
    tables = resolve_rules(profile, architecture=machine, switches=switches).foreign
    (table,) = [table for table in tables if table.architecture == architecture]
    calls = {rule.call for rule in table.allow}
    yield f"    on {machine}, by {len(calls)} calls whose counterpart is listed above, under the same conditions"
    for name, operations in MULTIPLEXED.items():
        (permitted,) = [rule.conditions[0].any_of for rule in table.allow if rule.call == name] or [()]
        refused = ", ".join(operation for operation in operations if operation not in permitted)
        if refused:
            yield f"    {name} not with {refused}, whose arguments lie in memory, where no filter can look"


def _network_lines(profile: Profile) -> Iterator[str]:
    network = profile.network
    yield f"Network: {_NETWORK_WORDS[network.mode]}: {network.reason.why}"
    own = " of its own loopback" if network.mode == "domains" else ""
    yield from (f"  {port.direction} TCP port {port.port}{own}: {port.reason.why}" for port in network.ports)
    for what, entries in (("domain", network.domains), ("address", network.addresses)):
        for entry in entries:
            yield f"  {what} {entry.target} at TCP port {_or(entry.ports)}: {entry.reason.why}"
    if network.mode == "domains":
        yield f"  the proxy is its own 127.0.0.1:{network.proxy_port}: HTTP, CONNECT and SOCKS5; no name server, no UDP"
        yield f"  {_TUNNEL_WORDS[network.tunnels.tls]}: {network.tunnels.reason.why}"


def _or(ports: tuple[int, ...]) -> str:
    return " or ".join(map(str, ports))


def _view_words(entry: ViewEntry) -> str:
    match entry.kind:
        case "bind":
            return f"{entry.target} WRITABLE, as on the host"
        case "bind_readonly":
            return f"{entry.target} read-only"
        case "tmpfs":
            state = "empty, read-only" if "readonly" in entry.options else "empty and private"
            return f"{entry.target} {state}"
        case "system_link":
            return f"{entry.target} as on the host, read-only"
        case _:
            return f"{entry.target} ({entry.kind})"


def _limit_words(limit: Limit) -> str:
    return str(limit.soft) if limit.soft == limit.hard else f"{limit.soft} (up to {limit.hard})"


def _conditions(conditions: tuple[Condition, ...]) -> str:
    words = []
    for condition in conditions:
        names = ", ".join(condition.any_of or condition.none_of)
        words.append(f"with {condition.arg} {'one of' if condition.any_of else 'free of'} {names}")
    return " and ".join(words)


def profile_as_data(profile: Profile, *, switches: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the same as JSON-able data; keys are stable."""
    return {
        "name": profile.name,
        "summary": profile.summary,
        "ancestry": list(profile.ancestry),
        "namespaces": {name: reason.why for name, reason in profile.namespaces.items()},
        "network": {
            "mode": profile.network.mode,
            "ports": [{"port": port.port, "direction": port.direction} for port in profile.network.ports],
            "domains": [{"domain": entry.target, "ports": list(entry.ports)} for entry in profile.network.domains],
            "addresses": [{"address": entry.target, "ports": list(entry.ports)} for entry in profile.network.addresses],
            "tunnels": {"tls": profile.network.tunnels.tls},
            "proxy_port": profile.network.proxy_port,
        },
        "proc": profile.proc,
        "workspace": profile.workspace,
        "view": [
            {"kind": entry.kind, "target": entry.target, "options": list(entry.options), "why": entry.reason.why}
            for entry in profile.view
        ],
        "grants": [
            {"kind": grant.kind, "path": grant.path, "writable": grant.writable, "why": grant.reason.why}
            for grant in profile.grants
        ],
        "masks": {mask.path: mask.reason.why for mask in profile.masks},
        "syscalls": {
            architecture: render_rules(
                resolve_rules(profile, architecture=architecture, switches=switches)
            ).splitlines()
            for architecture in ("x86_64", "aarch64")
        },
        "architectures": {name: reason.why for name, reason in profile.architectures.items()},
        "limits": {name: [limit.soft, limit.hard] for name, limit in profile.limits.items()},
        "cgroup": {name: limit.value for name, limit in profile.cgroup.items()},
        "requires": list(profile.requires),
        "landlock_minimum_abi": profile.landlock_minimum_abi,
        "without_exec_gate": profile.exec_fallback,
        "may_run_as_root": profile.root_identity is not None,
    }
