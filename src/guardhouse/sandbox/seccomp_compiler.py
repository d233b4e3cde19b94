"""Rules to finished BPF through libseccomp's own binding: the only place that imports `seccomp`.

Nothing is loaded into this process; filters are exported as bytes. One hand-made prefix of six instructions stands
before libseccomp's program, because libseccomp cannot compare call numbers: calls newer than the list answer
ENOSYS. Tables of a foreign architecture that the rules permit stand before that (`second_table.py`). Runs at boot and
in the CLI.
"""

import errno
import functools
import struct
import tempfile
from typing import Any, Final

from guardhouse.errors import InvariantError, SetupError
from guardhouse.sandbox.bundle import GATE_TRACE_DATA, FilterVariant, SeccompFilter
from guardhouse.sandbox.rules import NEWEST_CALLS, FilterRules, comparisons_of, digest_of_text, render_rules
from guardhouse.sandbox.second_table import FOREIGN_AUDIT_ARCH, second_table
from guardhouse.sandbox.verify_filter import (
    EXEC_CALLS,
    Answers,
    exchange_returns,
    find_mismatch,
    same_but_for_returns,
)

__all__ = ["check_compiler", "compile_exec_notice", "compile_filter", "compile_program"]

# Those that every filter has.
VARIANTS: Final[tuple[FilterVariant, ...]] = ("errno", "notify", "errno_gate", "notify_gate")
# set_tid_address(2): glibc and musl call it once in each program, before its main and before any constructor; with it
# a listener sees what an exec that it let go has become.
_NOTICED_CALLS: Final = EXEC_CALLS | {"set_tid_address"}

# linux/audit.h AUDIT_ARCH_*, what seccomp_data.arch holds.
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, **FOREIGN_AUDIT_ARCH}
# arch/x86/include/uapi/asm/unistd.h: numbers from here on are x32; left to libseccomp, which kills.
_X32_BIT: Final = 0x40000000
# The kernel's limit on the length of one classic BPF program, linux/bpf_common.h BPF_MAXINSNS.
_PROGRAM_MAX_INSTRUCTIONS: Final = 4096
_INSTRUCTION_BYTES: Final = 8

# linux/bpf_common.h, linux/seccomp.h.
_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
_DATA_NR, _DATA_ARCH = 0, 4
_RET_ERRNO: Final = 0x00050000
_RET_NOTIFY: Final = 0x7FC00000
_RET_TRACE: Final = 0x7FF00000
_RET_ALLOW: Final = 0x7FFF0000


def check_compiler() -> None:
    """Check that libseccomp's binding is there and knows user notification.

    Raises:
        SetupError: naming what to install.
    """
    _binding()


@functools.cache
def compile_filter(rules: FilterRules) -> SeccompFilter:
    """Compile every variant of one filter.

    Raises:
        SetupError: the binding is missing, does not know the architecture, or what it compiled is too long or
            does not do what the rules say (`verify_filter.py`).
    """
    seccomp = _binding()
    names = _known_calls(rules.architecture)
    wrong = ""
    # 2: a binary tree over the numbers; 1: a list. Both are the same filter, if libseccomp makes no mistake.
    for optimize in (2, 1):
        programs = {variant: _compile_variant(seccomp, rules, variant, names, optimize) for variant in VARIANTS}
        mismatch = _find_any_mismatch(programs, rules)
        if mismatch is None:
            return SeccompFilter(
                programs={str(variant): program for variant, program in programs.items()},
                names=dict(names),
                foreign={table.architecture: dict(_known_calls(table.architecture)) for table in rules.foreign},
                digest=digest_of_text(render_rules(rules)),
            )
        wrong = mismatch
    raise SetupError(
        f"this libseccomp compiles the filter of profile {rules.profile!r} for {rules.architecture} wrongly:"
        f" {wrong}; install another version of it"
    )


@functools.cache
def compile_program(rules: FilterRules) -> bytes:
    """Compile the one filter of a process of ours; see `compile_filter`.

    Where commands inherit it, a denied call is handed to a listener, and there is none. In the process itself the
    kernel then answers ENOSYS; in a command its own, newer filter is asked, which hands the call to its own listener
    (seccomp(2): of filters that return the same action the newest counts; without a listener: ENOSYS).
    """
    seccomp = _binding()
    names = _known_calls(rules.architecture)
    variant: FilterVariant = "notify" if rules.is_inherited else "errno"
    denial = _RET_NOTIFY if rules.is_inherited else _RET_ERRNO | errno.EPERM
    wrong: str | None = ""
    for optimize in (2, 1):
        program = _compile_variant(seccomp, rules, variant, names, optimize)
        wrong = _mismatch_of_tables(program, rules, Answers(denial=denial, started=_RET_ALLOW))
        if wrong is None:
            return program
    raise SetupError(
        f"this libseccomp compiles the filter of {rules.profile!r} for {rules.architecture} wrongly: {wrong};"
        " install another version of it"
    )


@functools.cache
def compile_exec_notice(rules: FilterRules, *, counts_denials: bool) -> tuple[FilterVariant, bytes]:
    """Compile the variant of one filter that hands execs to a listener; see `compile_filter`.

    Args:
        rules: without foreign tables, which no listener knows.
        counts_denials: denied calls are handed over as well; otherwise they fail at once.
    """
    if rules.foreign:
        raise InvariantError(f"a filter that hands execs over, with {rules.foreign[0].architecture} in it")
    seccomp = _binding()
    names = _known_calls(rules.architecture)
    denied = _RET_ERRNO | errno.EPERM
    wrong: str | None = ""
    for optimize in (2, 1):
        program = _compile_variant(seccomp, rules, "errno_execs", names, optimize)
        if counts_denials:
            # libseccomp takes no rule whose answer is the default's.
            program = exchange_returns(program, {denied: _RET_NOTIFY})
        answers = Answers(
            denial=_RET_NOTIFY if counts_denials else denied, started=_RET_NOTIFY, stopping=_NOTICED_CALLS
        )
        wrong = _mismatch_of_tables(program, rules, answers)
        if wrong is None:
            return ("notify_execs" if counts_denials else "errno_execs"), program
    raise SetupError(
        f"this libseccomp compiles the filter of profile {rules.profile!r} for {rules.architecture} wrongly:"
        f" {wrong}; install another version of it"
    )


def _find_any_mismatch(programs: dict[FilterVariant, bytes], rules: FilterRules) -> str | None:
    """Simulate two variants; the other two must be the same but for what a denial returns."""
    denied, asks = _RET_ERRNO | errno.EPERM, _RET_NOTIFY
    pairs: tuple[tuple[FilterVariant, FilterVariant, int], ...] = (
        ("errno", "notify", _RET_ALLOW),
        ("errno_gate", "notify_gate", _RET_TRACE | GATE_TRACE_DATA),
    )
    for plain, asking, started in pairs:
        if not same_but_for_returns(programs[plain], programs[asking], {denied: asks}):
            return f"variants {plain} and {asking} differ in more than the answer to a denied call"
        found = _mismatch_of_tables(programs[plain], rules, Answers(denial=denied, started=started))
        if found is not None:
            return f"{plain}: {found}"
    return None


def _mismatch_of_tables(program: bytes, rules: FilterRules, answers: Answers) -> str | None:
    """Simulate ``program`` on the calls of its own table, and of each foreign one."""
    for table in (rules, *rules.foreign):
        names = _known_calls(table.architecture)
        audit_arch = _AUDIT_ARCH[table.architecture]
        found = find_mismatch(
            program, table, audit_arch=audit_arch, names=names, newest=_newest(names), answers=answers
        )
        if found is not None:
            return found
    return None


def _binding() -> Any:
    try:
        import seccomp
    except ImportError as error:
        raise SetupError(
            "cannot compile seccomp filters: no module 'seccomp' (libseccomp's own binding); install python3-seccomp,"
            " or build it for this interpreter as docs/dependencies.md says"
        ) from error
    if not hasattr(seccomp, "NOTIFY"):
        raise SetupError("the module 'seccomp' is too old or is not libseccomp's own: it has no NOTIFY (needs 2.5)")
    return seccomp


def _architecture(seccomp: Any, name: str) -> Any:
    known = {"x86_64": "X86_64", "aarch64": "AARCH64", "i386": "X86"}
    if name not in known:
        raise SetupError(f"no seccomp filter for architecture {name!r}; known: {', '.join(known)}")
    return getattr(seccomp.Arch, known[name])


@functools.cache
def _known_calls(architecture: str) -> dict[str, int]:
    """Every call libseccomp knows on ``architecture``, name to number."""
    seccomp = _binding()
    arch = _architecture(seccomp, architecture)
    found: dict[str, int] = {}
    for number in range(1024):
        try:
            name = seccomp.resolve_syscall(arch, number)
        except ValueError:
            continue
        found[name.decode("ascii")] = number
    return found


def _compile_variant(
    seccomp: Any, rules: FilterRules, variant: FilterVariant, names: dict[str, int], optimize: int
) -> bytes:
    denial = seccomp.NOTIFY if variant.startswith("notify") else seccomp.ERRNO(errno.EPERM)
    compiled = seccomp.SyscallFilter(denial)
    arch = _architecture(seccomp, rules.architecture)
    if not compiled.exist_arch(arch):
        compiled.add_arch(arch)
        compiled.remove_arch(seccomp.Arch())
    compiled.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    compiled.set_attr(seccomp.Attr.CTL_OPTIMIZE, optimize)
    try:
        for rule in rules.allow:
            if rule.call not in names:
                continue  # newer than this libseccomp: it gets ENOSYS from the prefix
            action = seccomp.ALLOW
            if variant.endswith("gate") and rule.call in EXEC_CALLS:
                action = seccomp.TRACE(GATE_TRACE_DATA)
            elif variant.endswith("execs") and rule.call in _NOTICED_CALLS:
                action = seccomp.NOTIFY
            for alternative in comparisons_of(rule):
                arguments = [seccomp.Arg(c.argument, seccomp.MASKED_EQ, c.mask, c.value) for c in alternative]
                compiled.add_rule_exactly(action, rule.call, *arguments)
        for answer in rules.answers:
            if answer.call in names:
                compiled.add_rule_exactly(seccomp.ERRNO(getattr(errno, answer.errno)), answer.call)
        with tempfile.TemporaryFile() as exported:
            compiled.export_bpf(exported)
            exported.seek(0)
            program = _foreign_tables(rules, variant) + _prefix(rules.architecture, names) + exported.read()
    except (RuntimeError, ValueError, OSError) as error:
        raise SetupError(
            f"cannot compile the filter of profile {rules.profile!r} for {rules.architecture}: {error}"
        ) from error
    if len(program) > _PROGRAM_MAX_INSTRUCTIONS * _INSTRUCTION_BYTES:
        raise SetupError(
            f"the filter of profile {rules.profile!r} for {rules.architecture} has"
            f" {len(program) // _INSTRUCTION_BYTES} instructions, the kernel takes {_PROGRAM_MAX_INSTRUCTIONS}"
        )
    return program


def _foreign_tables(rules: FilterRules, variant: FilterVariant) -> bytes:
    denial = _RET_NOTIFY if variant.startswith("notify") else _RET_ERRNO | errno.EPERM
    started = _RET_TRACE | GATE_TRACE_DATA if variant.endswith("gate") else _RET_ALLOW
    code = b""
    for table in rules.foreign:
        names = _known_calls(table.architecture)
        code += second_table(table, names, newest=_newest(names), denial=denial, started=started)
    return code


def _newest(names: dict[str, int]) -> int:
    newest = next((names[name] for name in NEWEST_CALLS if name in names), None)
    if newest is None:
        raise SetupError(f"this libseccomp knows none of {', '.join(NEWEST_CALLS)}; it is older than 2.5")
    return newest


def _prefix(architecture: str, names: dict[str, int]) -> bytes:
    instructions = (
        (_LOAD_WORD, 0, 0, _DATA_ARCH),
        (_JUMP_EQUAL, 0, 4, _AUDIT_ARCH[architecture]),
        (_LOAD_WORD, 0, 0, _DATA_NR),
        (_JUMP_AT_LEAST, 2, 0, _X32_BIT),
        (_JUMP_GREATER, 0, 1, _newest(names)),
        (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
