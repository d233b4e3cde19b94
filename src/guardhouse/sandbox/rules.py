"""From groups to rules: which call is allowed under which comparisons, by number of argument, for one architecture.

Between the data (names, alternatives) and libseccomp (numbers, one comparison an argument). Also renders the rules
as the readable text that is kept in `sandbox/compiled/`, which therefore depends on no version of libseccomp.
Runs at boot and in the CLI.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from guardhouse.sandbox.constants import ARGUMENTS, CONSTANTS
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.i386_calls import i386_answers, i386_rules
from guardhouse.sandbox.profile import FOREIGN_ARCHITECTURES, Answer, CallRule, Condition, Profile, SyscallGroup

__all__ = [
    "ARCHITECTURES",
    "NEWEST_CALLS",
    "Comparison",
    "FilterRules",
    "active_groups",
    "alternatives_in_words",
    "combine_groups",
    "comparisons_of",
    "digest_of_text",
    "foreign_rules",
    "permissible_tables",
    "render_rules",
    "resolve_rules",
    "table_lines",
    "unite_foreign",
]

ARCHITECTURES: Final = ("x86_64", "aarch64")

# Calls whose numbers are above the first of these that libseccomp knows were added to Linux after this list was
# written (fchmodat2: Linux 6.6). They answer ENOSYS, as on the older kernel for which libc has its fallback.
NEWEST_CALLS: Final = ("fchmodat2", "futex_waitv", "epoll_pwait2", "faccessat2", "close_range")

# What aarch64 never had (include/uapi/asm-generic/unistd.h): each has a form with at, 1, 2, 4 or 64 that is listed too.
# fmt: off
_X86_64_ONLY: Final = frozenset({
    "access", "alarm", "arch_prctl", "chmod", "chown", "creat", "dup2", "epoll_create", "epoll_wait", "eventfd",
    "fork", "futimesat", "getdents", "getpgrp", "inotify_init", "lchown", "link", "lstat", "mkdir", "mknod",
    "open", "pause", "pipe", "poll", "readlink", "rename", "rmdir", "select", "signalfd", "stat", "symlink",
    "sysfs", "time", "unlink", "ustat", "utime", "utimes", "vfork",
})
# fmt: on

_LOW_WORD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Comparison:
    """``argument & mask == value``, on 64 bits."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class FilterRules:
    """Everything one filter does, in names: sorted, without doubles, for one architecture.

    Attributes:
        is_inherited: of one of our own processes, with another filter below it in every command.
        foreign: the same for further tables of the same kernel, each by its own architecture's names; a call of a
            table that is neither of these kills the process.
    """

    profile: str
    architecture: str
    allow: tuple[CallRule, ...]
    answers: tuple[Answer, ...]
    is_inherited: bool = False
    foreign: tuple["FilterRules", ...] = ()


def active_groups(profile: Profile, switches: frozenset[str]) -> tuple[str, ...]:
    """Return the groups in force with ``switches`` on.

    Raises:
        ProfileError: the profile has no such switch.
    """
    for switch in sorted(switches):
        if switch not in profile.switches:
            known = ", ".join(profile.switches) or "none"
            raise ProfileError(profile.place, f"profile {profile.name!r} has no switch {switch!r}; it has {known}")
    extra = [group for switch in sorted(switches) for group in profile.switches[switch].groups]
    return tuple(dict.fromkeys([*profile.syscalls, *extra]))


def resolve_rules(profile: Profile, *, architecture: str, switches: frozenset[str] = frozenset()) -> FilterRules:
    """Collect the rules of every active group.

    A rule without conditions makes the conditional ones of the same call pointless, so they are left out.

    Raises:
        ProfileError: one group answers a call that another allows.
    """
    groups = [profile.groups[name] for name in active_groups(profile, switches)]
    rules = combine_groups(profile.name, groups, architecture=architecture)
    foreign = [name for name in sorted(profile.architectures) if FOREIGN_ARCHITECTURES[name] == architecture]
    return replace(rules, foreign=tuple(foreign_rules(rules, name) for name in foreign))


def foreign_rules(rules: FilterRules, architecture: str) -> FilterRules:
    """Return what ``rules`` permits of the table of ``architecture`` (`FOREIGN_ARCHITECTURES`)."""
    return FilterRules(
        profile=rules.profile,
        architecture=architecture,
        allow=_sorted_rules(i386_rules(rules.allow)),
        answers=i386_answers(rules.answers),
    )


def permissible_tables(rules: FilterRules) -> tuple[FilterRules, ...]:
    """Return the foreign tables that a profile could permit which extends that of ``rules``: none without execve."""
    if all(rule.call != "execve" for rule in rules.allow):
        return ()
    names = [name for name, machine in FOREIGN_ARCHITECTURES.items() if machine == rules.architecture]
    return tuple(foreign_rules(rules, name) for name in names)


def unite_foreign(filters: Sequence[FilterRules]) -> tuple[FilterRules, ...]:
    """Return the foreign tables of ``filters`` as one for each architecture, which permits what any of them does."""
    by_name: dict[str, list[CallRule]] = {}
    for rules in filters:
        for foreign in rules.foreign:
            by_name.setdefault(foreign.architecture, []).extend(foreign.allow)
    return tuple(
        FilterRules(profile="", architecture=name, allow=_sorted_rules(allow), answers=())
        for name, allow in sorted(by_name.items())
    )


def _sorted_rules(rules: Sequence[CallRule]) -> tuple[CallRule, ...]:
    """Return ``rules`` without doubles, and without conditional ones of a call that is allowed anyway."""
    found: dict[tuple[str, tuple[Condition, ...]], CallRule] = {}
    for rule in rules:
        found.setdefault((rule.call, rule.conditions), rule)
    free = {call for call, conditions in found if not conditions}
    kept = [rule for (call, conditions), rule in found.items() if not conditions or call not in free]
    return tuple(sorted(kept, key=lambda rule: (rule.call, _words(rule))))


def combine_groups(
    name: str, groups: Sequence[SyscallGroup], *, architecture: str, is_inherited: bool = False
) -> FilterRules:
    """Collect the rules of ``groups`` into the filter ``name``; see `resolve_rules`."""
    answers = {answer.call: answer for group in groups for answer in group.answers}
    rules: list[CallRule] = []
    for group in groups:
        for rule in group.allow:
            if rule.call in answers:
                place = answers[rule.call].reason.place
                raise ProfileError(
                    rule.reason.place, f"{rule.call} is allowed here and answered at {place}; choose one group"
                )
            if architecture == "x86_64" or rule.call not in _X86_64_ONLY:
                rules.append(rule)
    return FilterRules(
        profile=name,
        architecture=architecture,
        allow=_sorted_rules(rules),
        answers=tuple(answers[call] for call in sorted(answers)),
        is_inherited=is_inherited,
    )


def comparisons_of(rule: CallRule, *, width_bits: int = 64) -> tuple[tuple[Comparison, ...], ...]:
    """Return the alternatives of ``rule``: each is a conjunction with at most one comparison an argument.

    ``any_of`` compares the low 32 bits, as the kernel takes an ``int``; ``none_of`` tests the flags' own bits. Two
    conditions on one argument become one comparison.

    Args:
        width_bits: of an argument that the kernel takes; 32 for a foreign table.
    """
    width = (1 << width_bits) - 1
    by_argument: dict[int, list[tuple[int, int]]] = {}
    for condition in rule.conditions:
        index = ARGUMENTS[rule.call][condition.arg]
        alternatives = [(mask & width, value & width) for mask, value in _masked_values(condition)]
        known = by_argument.get(index)
        by_argument[index] = alternatives if known is None else _both(known, alternatives)
    columns = [[Comparison(index, mask, value) for mask, value in pairs] for index, pairs in by_argument.items()]
    return tuple(itertools.product(*columns))


def _masked_values(condition: Condition) -> list[tuple[int, int]]:
    if condition.none_of:
        return [(_bits(condition.none_of), 0)]
    mask = CONSTANTS[condition.within] if condition.within else _LOW_WORD & ~_bits(condition.ignoring)
    return [(mask, CONSTANTS[name] & mask) for name in condition.any_of]


def _both(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged = []
    for (mask, value), (other_mask, other_value) in itertools.product(first, second):
        common = mask & other_mask
        if value & common == other_value & common:
            merged.append((mask | other_mask, value | other_value))
    return merged


def _bits(names: Sequence[str]) -> int:
    bits = 0
    for name in names:
        bits |= CONSTANTS[name]
    return bits


def render_rules(rules: FilterRules) -> str:
    """Return the readable form, one line a rule: what an auditor compares and `compile --check` checks."""
    # A profile's name has no blank; `compile_process` gives "process NAME".
    subject = rules.profile if " " in rules.profile else f"profile {rules.profile}"
    foreign = ", ".join(table.architecture for table in rules.foreign)
    lines = [
        f"filter of {subject} on {rules.architecture}" + (f", and of its calls of {foreign}" if foreign else ""),
        f"any other architecture or ABI ({'x32' if foreign else 'x32, 32-bit'}): kill the process",
    ]
    lines += table_lines(rules)
    for table in rules.foreign:
        lines += [f"{table.architecture}:{line}" for line in table_lines(table)]
    other = "refuse with EPERM"
    if rules.is_inherited:
        other = "refuse with ENOSYS; a command's own filter refuses it with EPERM, and counts it"
    lines += [f"any call newer than {NEWEST_CALLS[0]}: answer ENOSYS", f"any other call: {other}", ""]
    return "\n".join(lines)


def table_lines(rules: FilterRules) -> list[str]:
    """Return one line for each answer and rule of one table."""
    lines = [f"{answer.call}: answer {answer.errno}" for answer in rules.answers]
    return lines + [f"{rule.call}: allow{_words(rule)}" for rule in rules.allow]


def alternatives_in_words(rule: CallRule) -> tuple[str, ...]:
    """Return one text for each single thing that ``rule`` permits: what a comparison of profiles counts."""
    columns = [
        [_condition_words(replace(condition, any_of=(name,))) for name in condition.any_of]
        or [_condition_words(condition)]
        for condition in rule.conditions
    ]
    if not columns:
        return (rule.call,)
    return tuple(f"{rule.call} when {' and '.join(words)}" for words in itertools.product(*columns))


def digest_of_text(text: str) -> str:
    """Sha256 (hex) of a rendered filter."""
    return hashlib.sha256(text.encode()).hexdigest()


def _words(rule: CallRule) -> str:
    if not rule.conditions:
        return ""
    return " when " + " and ".join(_condition_words(condition) for condition in rule.conditions)


def _condition_words(condition: Condition) -> str:
    if condition.none_of:
        return f"{condition.arg} has none of {'|'.join(condition.none_of)}"
    subject = condition.arg
    if condition.within:
        subject = f"{condition.arg} within {condition.within}"
    elif condition.ignoring:
        subject = f"{condition.arg} ignoring {'|'.join(condition.ignoring)}"
    if len(condition.any_of) == 1:
        return f"{subject} is {condition.any_of[0]}"
    return f"{subject} is one of {', '.join(condition.any_of)}"
