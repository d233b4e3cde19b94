"""Every rule of every shipped filter, simulated: allowed arguments pass, each condition broken by itself is refused."""

import errno
import functools
from dataclasses import replace

import pytest

from guardhouse.sandbox.bundle import GATE_TRACE_DATA
from guardhouse.sandbox.load import load_profile
from guardhouse.sandbox.rules import ARCHITECTURES, NEWEST_CALLS, comparisons_of, resolve_rules
from guardhouse.sandbox.seccomp_compiler import VARIANTS, compile_exec_notice, compile_filter

from . import bpf
from .conftest import DIRECTORY, SHIPPED

EPERM = bpf.ERRNO | errno.EPERM
ENOSYS = bpf.ERRNO | errno.ENOSYS
# Low bits, those of the flags in use, both ends of the low word, and above it.
SAMPLED_BITS = (0, 1, 3, 7, 10, 11, 13, 17, 19, 23, 26, 28, 30, 31, 32, 63)
CASES = [(name, architecture) for name in SHIPPED for architecture in ARCHITECTURES]


@functools.cache
def build(name, architecture):
    rules = resolve_rules(load_profile(name, directory=DIRECTORY), architecture=architecture)
    return rules, compile_filter(rules)


def ask(compiled, architecture, call, arguments=(), variant="errno"):
    number = compiled.names[call] if isinstance(call, str) else call
    return bpf.run(compiled.programs[variant], arch=bpf.AUDIT_ARCH[architecture], number=number, arguments=arguments)


def satisfying(alternative):
    values = [0] * 6
    for comparison in alternative:
        values[comparison.argument] = comparison.value
    return values


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_every_listed_call_passes_with_permitted_arguments(name, architecture):
    """Each alternative of each rule answers ALLOW when its comparisons hold."""
    rules, compiled = build(name, architecture)
    for rule in rules.allow:
        if rule.call in compiled.names:
            for alternative in comparisons_of(rule):
                assert ask(compiled, architecture, rule.call, tuple(satisfying(alternative))) == bpf.ALLOW, rule


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_each_broken_condition_is_refused(name, architecture):
    """Flipping any one bit that a comparison looks at is refused, unless another alternative permits the result."""
    rules, compiled = build(name, architecture)
    by_call = {}
    for rule in rules.allow:
        by_call.setdefault(rule.call, []).extend(comparisons_of(rule))
    for call, alternatives in by_call.items():
        for alternative in alternatives:
            for comparison in alternative:
                for bit in SAMPLED_BITS:
                    if not comparison.mask >> bit & 1:
                        continue
                    values = satisfying(alternative)
                    values[comparison.argument] ^= 1 << bit
                    permitted = any(
                        all(values[c.argument] & c.mask == c.value for c in other) for other in alternatives
                    )
                    got = ask(compiled, architecture, call, tuple(values))
                    assert got == (bpf.ALLOW if permitted else EPERM), (call, comparison, bit)


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_every_other_known_call_is_refused(name, architecture):
    """A call that no rule names answers EPERM, an answered one its errno; the notify variant asks the monitor."""
    rules, compiled = build(name, architecture)
    allowed = {rule.call for rule in rules.allow}
    answered = {answer.call: getattr(errno, answer.errno) for answer in rules.answers}
    newest = compiled.names[NEWEST_CALLS[0]]
    for call, number in compiled.names.items():
        if call in allowed:
            continue
        expected = ENOSYS if number > newest else bpf.ERRNO | answered.get(call, errno.EPERM)
        assert ask(compiled, architecture, call) == expected, call
        if expected == EPERM:
            assert ask(compiled, architecture, call, variant="notify") == bpf.NOTIFY, call


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_architecture_is_checked_before_anything(name, architecture, variant):
    """Any other architecture kills the process, whatever the number; so do x32 numbers on x86_64."""
    _, compiled = build(name, architecture)
    program = compiled.programs[variant]
    for other, audit in bpf.AUDIT_ARCH.items():
        if other != architecture:
            for number in (0, 1, 11, 59, 221, 1000, 0xFFFFFFFF):
                assert bpf.run(program, arch=audit, number=number) == bpf.KILL_PROCESS
    if architecture == "x86_64":
        for number in (0, 59, 521, 1000):
            assert bpf.run(program, arch=bpf.AUDIT_ARCH["x86_64"], number=0x40000000 | number) == bpf.KILL_PROCESS


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_calls_newer_than_the_list_do_not_exist(name, architecture):
    """Numbers above the newest known call answer ENOSYS, so that libc falls back as on an older kernel."""
    _, compiled = build(name, architecture)
    newest = compiled.names[NEWEST_CALLS[0]]
    for number in (newest + 1, newest + 20, 1000, 0x3FFFFFFF):
        assert ask(compiled, architecture, number) == ENOSYS


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_gate_variants_stop_programs_and_nothing_else(name, architecture):
    """Variants for the exec gate differ from the plain ones in execve and execveat only."""
    rules, compiled = build(name, architecture)
    starts_programs = {rule.call for rule in rules.allow} & {"execve", "execveat"}
    for call in compiled.names:
        plain, gated = ask(compiled, architecture, call), ask(compiled, architecture, call, variant="errno_gate")
        assert gated == (bpf.TRACE | GATE_TRACE_DATA if call in starts_programs else plain), call


@pytest.mark.parametrize("counts_denials", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_notice_variants_hand_over_starts_and_nothing_else(architecture, counts_denials):
    """They differ from the plain ones in three calls, and in what becomes of a denied one where that is counted."""
    rules, compiled = build("observe", architecture)
    variant, program = compile_exec_notice(rules, counts_denials=counts_denials)
    noticed = replace(compiled, programs={**compiled.programs, variant: program})
    for call in compiled.names:
        plain = ask(compiled, architecture, call, variant="notify" if counts_denials else "errno")
        handed_over = call in {"execve", "execveat", "set_tid_address"}
        assert ask(noticed, architecture, call, variant=variant) == (bpf.NOTIFY if handed_over else plain), call


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    "call",
    [
        "ptrace", "bpf", "mount", "unshare", "setns", "seccomp", "keyctl", "io_uring_setup", "userfaultfd",
        "perf_event_open", "process_vm_writev", "pidfd_getfd", "reboot", "init_module", "kexec_load",
        "open_by_handle_at", "chroot", "pivot_root",
    ],
)  # fmt: skip
def test_dangerous_calls_are_in_no_shipped_profile(name, architecture, call):
    """No shipped profile allows these, under any arguments."""
    rules, _ = build(name, architecture)
    assert call not in {rule.call for rule in rules.allow}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_workers_start_no_program(architecture):
    """The filters of the files and the parser worker have no execve, and no socket can be made."""
    for name in ("files_worker", "parser_worker"):
        rules, _ = build(name, architecture)
        assert not {"execve", "execveat", "socket", "connect", "bind"} & {rule.call for rule in rules.allow}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parser_opens_nothing(architecture):
    """The parser worker can neither open a file nor make a process; its twin, the files worker, can open."""
    powers = {"open", "openat", "openat2", "memfd_create", "clone", "clone3", "fork", "vfork", "kill", "ioctl", "prctl"}
    rules, _ = build("parser_worker", architecture)
    assert not powers & {rule.call for rule in rules.allow}
    assert "openat" in {rule.call for rule in build("files_worker", architecture)[0].allow}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x541D, 0x5423, 0x100005412, 0xAE01])
def test_terminal_injection_is_refused_in_any_width(architecture, request_number):
    """TIOCSTI and its kin are refused, also with bits above the 32 that the kernel looks at; TIOCGWINSZ passes."""
    _, compiled = build("operate", architecture)
    assert ask(compiled, architecture, "ioctl", (0, request_number)) == EPERM
    assert ask(compiled, architecture, "ioctl", (0, 0x5413)) == bpf.ALLOW


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_getpeername_is_allowed_everywhere(architecture):
    """Denying it makes bash take its standard input for a network connection and source ~/.bashrc."""
    for name in SHIPPED:
        _, compiled = build(name, architecture)
        assert ask(compiled, architecture, "getpeername") == bpf.ALLOW
