"""The i386 table of a profile that permits it: no wider than x86_64's, and nothing of it where nobody permits it."""

import errno
import functools
import itertools

import pytest

from guardhouse.errors import SetupError
from guardhouse.sandbox import i386_calls
from guardhouse.sandbox.bundle import GATE_TRACE_DATA, Bundle
from guardhouse.sandbox.compare import compare_profiles
from guardhouse.sandbox.compile import compile_bundle, with_exec_notice
from guardhouse.sandbox.constants import CONSTANTS
from guardhouse.sandbox.describe import describe_profile, profile_as_data
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.facts import LAUNCHING_PROCESSES, ProfileUnavailableError, Surroundings
from guardhouse.sandbox.load import load_profile
from guardhouse.sandbox.rules import comparisons_of, resolve_rules
from guardhouse.sandbox.seccomp_compiler import VARIANTS, compile_filter

from . import bpf
from .conftest import DIRECTORY, IDENTITY, SHIPPED, Host

EPERM = bpf.ERRNO | errno.EPERM
ENOSYS = bpf.ERRNO | errno.ENOSYS
I386, X86_64 = bpf.AUDIT_ARCH["i386"], bpf.AUDIT_ARCH["x86_64"]
EXTENDED = ("isolate", "observe", "operate")
PERMIT = "architectures:\n  - {architecture: i386, why: an old tool}\n"
LOW = 0xFFFFFFFF


def text_of(base, more=PERMIT):
    return f"profile: own\nsummary: a test\nextends: {base}\n{more}"


@functools.cache
def _written(base, directory):
    path = directory / "own.yaml"
    path.write_text(text_of(base), encoding="utf-8")
    rules = resolve_rules(load_profile(str(path), directory=DIRECTORY), architecture="x86_64")
    return rules, compile_filter(rules)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    directories = {base: tmp_path_factory.mktemp(base) for base in EXTENDED}
    return lambda base: _written(base, directories[base])


def counterparts(name, arguments):
    """What the same request is on x86_64: call and arguments, every one that it may be."""
    if name in i386_calls.MULTIPLEXED:
        operations = i386_calls.MULTIPLEXED[name]
        return [(call, None) for word, call in operations.items() if CONSTANTS[word] == arguments[0] & LOW]
    call = name if name in i386_calls.SAME else i386_calls.RENAMED.get(name)
    if call is None:
        return []
    words = [argument & LOW for argument in arguments]
    back = {"fcntl": {12: 5, 13: 6, 14: 7}, "ioctl": {0x80046601: 0x80086601, 0x80041272: 0x80081272}}.get(call, {})
    words[1] = back.get(words[1], words[1])
    return [(call, tuple(words))]


def questions(rules, native):
    """Arguments of every kind: those that any rule of the call speaks of, one bit beside them, and above 32 bits."""
    columns = {}
    for rule in (*rules, *native):
        for comparison in itertools.chain.from_iterable(comparisons_of(rule)):
            value = comparison.value & LOW
            found = columns.setdefault(comparison.argument, {0, 1, LOW, 0x5412, 0x1234567})
            lowest = comparison.mask & -comparison.mask
            found |= {value, value ^ lowest, (value ^ lowest) | comparison.mask & LOW, value | 1 << 40}
    for values in itertools.product(*(sorted(column) for column in columns.values())):
        arguments = [0] * 6
        for index, value in zip(columns, values, strict=True):
            arguments[index] = value
        yield tuple(arguments)


@pytest.mark.parametrize("base", ["isolate", "operate"])
def test_no_call_of_i386_permits_more_than_its_counterpart(base, build):
    """Whatever the i386 table lets through, x86_64's lets through as the call that the kernel makes of it."""
    rules, compiled = build(base)
    (table,) = rules.foreign
    program, names = compiled.programs["errno"], compiled.foreign["i386"]
    free = {rule.call for rule in rules.allow if not rule.conditions}
    allowed = 0
    for name, number in names.items():
        own = [rule for rule in table.allow if rule.call == name]
        native = [rule for rule in rules.allow if rule.call in {call for call, _ in counterparts(name, (0,) * 6)}]
        for arguments in questions(own, native):
            if bpf.run(program, arch=I386, number=number, arguments=arguments) != bpf.ALLOW:
                continue
            allowed += 1
            same = counterparts(name, arguments)
            assert same, (name, arguments)
            for call, words in same:
                if words is None:
                    assert call in free, (name, call)
                    continue
                answer = bpf.run(program, arch=X86_64, number=compiled.names[call], arguments=words)
                assert answer == bpf.ALLOW, (name, call, words)
    assert allowed > 300


@pytest.mark.parametrize("base", EXTENDED)
def test_what_has_no_counterpart_is_refused(base, build):
    """Calls that only i386 has, or that no profile has, are EPERM; newer numbers and numbers of x32 do not exist."""
    _, compiled = build(base)
    program, names = compiled.programs["errno"], compiled.foreign["i386"]
    known = i386_calls.SAME | i386_calls.RENAMED.keys() | i386_calls.MULTIPLEXED.keys()
    for name, number in names.items():
        if name not in known:
            expected = ENOSYS if number > names["fchmodat2"] else EPERM
            assert bpf.run(program, arch=I386, number=number) == expected, name
            if expected == EPERM:
                assert bpf.run(compiled.programs["notify_gate"], arch=I386, number=number) == bpf.NOTIFY
    for name in (
        "mmap",
        "modify_ldt",
        "vm86",
        "vm86old",
        "iopl",
        "ioperm",
        "uselib",
        "ptrace",
        "mount",
        "bdflush",
        "stime",
    ):
        assert bpf.run(program, arch=I386, number=names[name]) == EPERM, name
    for name in ("clone3", "openat2"):
        assert bpf.run(program, arch=I386, number=names[name]) == ENOSYS
    for number in (453, 1000, 0x40000000 | 20, 0xFFFFFFFF):
        assert bpf.run(program, arch=I386, number=number) == ENOSYS
    for arch in (bpf.AUDIT_ARCH["arm"], bpf.AUDIT_ARCH["aarch64"], 0):
        assert bpf.run(program, arch=arch, number=20) == bpf.KILL_PROCESS
    assert bpf.run(program, arch=X86_64, number=0x40000000 | 39) == bpf.KILL_PROCESS


def test_conditions_look_at_the_bits_that_the_kernel_takes(build):
    """What stands above 32 bits changes nothing: neither forbids what is permitted nor permits what is forbidden."""
    _, compiled = build("isolate")
    names = compiled.foreign["i386"]

    def ask(name, *arguments):
        return bpf.run(compiled.programs["errno"], arch=I386, number=names[name], arguments=arguments)

    assert ask("prlimit64", 1, 0, 1 << 32) == bpf.ALLOW
    assert ask("prlimit64", 1, 0, 1 << 32 | 8) == EPERM
    assert ask("prlimit64", 1 << 32, 0, 8) == bpf.ALLOW
    assert ask("ioctl", 0, 1 << 32 | 0x5413) == bpf.ALLOW
    assert ask("ioctl", 0, 1 << 32 | 0x5412) == EPERM
    assert ask("clone", 1 << 32 | 0x11) == bpf.ALLOW
    assert ask("clone", 1 << 32 | 0x800011) == EPERM
    assert ask("socketcall", 1 << 32 | 1) == EPERM
    assert ask("socketcall", 1 << 32 | 7) == bpf.ALLOW


@pytest.mark.parametrize("variant", VARIANTS)
def test_programs_are_stopped_for_the_gate(variant, build):
    """Execve and execveat of i386 are traced where those of x86_64 are."""
    _, compiled = build("observe")
    expected = bpf.TRACE | GATE_TRACE_DATA if variant.endswith("gate") else bpf.ALLOW
    for name in ("execve", "execveat"):
        for arch, names in ((I386, compiled.foreign["i386"]), (X86_64, compiled.names)):
            assert bpf.run(compiled.programs[variant], arch=arch, number=names[name]) == expected


def test_the_tables_are_whole(build):
    """Every call of the tables exists, and every call that i386 has under an allowed call's name was looked at."""
    names = build("operate")[1].foreign["i386"]
    tables = (i386_calls.SAME, i386_calls.RENAMED.keys(), i386_calls.MULTIPLEXED.keys(), i386_calls.REFUSED.keys())
    for first, second in itertools.combinations(tables, 2):
        assert not set(first) & set(second)
    assert set().union(*tables) <= names.keys()
    native = build("operate")[1].names
    assert {*i386_calls.RENAMED.values(), *i386_calls.SAME} <= native.keys()
    for name in SHIPPED:
        rules = resolve_rules(load_profile(name, directory=DIRECTORY), architecture="x86_64")
        allowed = {rule.call for rule in rules.allow} & names.keys()
        assert allowed <= i386_calls.SAME | i386_calls.REFUSED.keys()


def test_no_shipped_profile_permits_it():
    """The permission is a person's own, by name and with a reason."""
    for name in SHIPPED:
        assert load_profile(name, directory=DIRECTORY).architectures == {}


def compiled_bundle(*profiles, host=None, processes=LAUNCHING_PROCESSES):
    return compile_bundle(
        profiles,
        identity=IDENTITY,
        workspace="/srv/work",
        features=host or Host(),
        trusted_path="/usr/bin:/bin",
        around=Surroundings(own_processes=processes),
    )


def test_processes_that_commands_inherit_from_let_it_through(write_profile):
    """Init, launcher and keeper let pass what the profile permits, the monitor nothing; without it nobody anything."""
    own = load_profile(write_profile("own", text_of("observe")), directory=DIRECTORY)
    observe = load_profile("observe", directory=DIRECTORY)
    bundle = compiled_bundle(observe, own, processes=LAUNCHING_PROCESSES | {"keeper"})
    names = bundle.profiles["own"].seccomp["x86_64"].foreign["i386"]
    assert bundle.profiles["observe"].seccomp["x86_64"].foreign == {}
    assert Bundle.from_json(bundle.to_json()) == bundle
    for process in ("init", "launcher", "keeper"):
        program = bundle.processes[process].programs["x86_64"]
        assert bpf.run(program, arch=I386, number=names["execve"]) == bpf.ALLOW
        for refused in ("mount", "ptrace", "unshare", "seccomp"):
            assert bpf.run(program, arch=I386, number=names[refused]) == bpf.NOTIFY
    program = bundle.processes["monitor"].programs["x86_64"]
    assert bpf.run(program, arch=I386, number=names["read"]) == bpf.KILL_PROCESS
    program = bundle.profiles["observe"].seccomp["x86_64"].programs["notify_gate"]
    assert bpf.run(program, arch=I386, number=names["read"]) == bpf.KILL_PROCESS
    for plan in compiled_bundle(observe).processes.values():
        assert bpf.run(plan.programs["x86_64"], arch=I386, number=names["read"]) == bpf.KILL_PROCESS


def test_where_execs_are_only_heard_of_nothing_of_32_bits_runs(write_profile):
    """The listener of the stand-in for the gate knows x86_64's table alone: the other one kills there."""
    own = load_profile(write_profile("own", text_of("observe")), directory=DIRECTORY)
    plan = compiled_bundle(own).profiles["own"]
    heard = with_exec_notice(plan, own, notice="allowed_files").seccomp["x86_64"]
    assert heard.foreign == {}
    number = plan.seccomp["x86_64"].foreign["i386"]["execve"]
    assert bpf.run(heard.programs["notify_execs"], arch=I386, number=number) == bpf.KILL_PROCESS
    assert bpf.run(plan.seccomp["x86_64"].programs["notify"], arch=I386, number=number) == bpf.ALLOW
    deaf = with_exec_notice(plan, own, notice="none").seccomp["x86_64"]
    assert deaf.foreign == {}
    assert bpf.run(deaf.programs["notify"], arch=I386, number=number) == bpf.KILL_PROCESS


def test_other_machines_refuse_the_profile(write_profile):
    """A host without that table does not run a profile that promises it, and says why."""
    own = load_profile(write_profile("own", text_of("observe")), directory=DIRECTORY)
    with pytest.raises(ProfileUnavailableError, match=r"calls of i386 \(.*own.yaml:5.*aarch64"):
        compiled_bundle(own, host=Host(architecture="aarch64"))
    rules = resolve_rules(own, architecture="aarch64")
    assert rules.foreign == ()
    program = compile_filter(rules).programs["errno"]
    for arch in (I386, bpf.AUDIT_ARCH["arm"]):
        assert bpf.run(program, arch=arch, number=20) == bpf.KILL_PROCESS


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("architectures:\n  - {architecture: x32, why: small}\n", "known here: i386"),
        ("architectures:\n  - {architecture: i386}\n", "why"),
        ("architectures:\n  - {architecture: i386, why: one}\n  - {architecture: i386, why: two}\n", "twice"),
        ("drop:\n  - {architecture: i386, why: nobody has any}\n", "no architecture 'i386' to drop"),
    ],
)
def test_what_a_profile_may_not_say(more, says, write_profile):
    """Another architecture, no reason, a doubled entry, or one to drop that is not there."""
    with pytest.raises(ProfileError, match=says):
        load_profile(write_profile("own", text_of("observe", more)), directory=DIRECTORY)


def test_it_is_shown_compared_and_dropped(write_profile):
    """`show` says it with its reason and what it costs, `diff` calls it wider, and an extending profile can drop it."""
    path = write_profile("own", text_of("observe"))
    own, observe = load_profile(path, directory=DIRECTORY), load_profile("observe", directory=DIRECTORY)
    text = describe_profile(own)
    assert "PROGRAMS OF i386 RUN: an old tool" in text
    assert "socketcall not with SYS_SOCKET, " in text
    assert "; x32 calls kill the process" in text
    assert "; x32 and 32-bit calls kill the process" in describe_profile(observe)
    data = profile_as_data(own)
    assert data["architectures"] == {"i386": "an old tool"}
    assert "i386:mmap2: allow when flags has none of MAP_HUGETLB" in data["syscalls"]["x86_64"]
    assert not [line for line in data["syscalls"]["aarch64"] if "i386" in line]
    assert [(c.direction, c.subject) for c in compare_profiles(observe, own)] == [("widens", "architecture")]
    assert [(c.direction, c.subject) for c in compare_profiles(own, observe)] == [("narrows", "architecture")]
    dropped = write_profile(
        "less", f"profile: less\nsummary: t\nextends: {path}\ndrop: [{{architecture: i386, why: no more}}]\n"
    )
    assert compare_profiles(observe, load_profile(dropped, directory=DIRECTORY)) == ()


def test_a_wrong_table_is_found_before_it_is_used(monkeypatch, write_profile):
    """A table that answers otherwise than the rules say is refused, as what libseccomp compiles is."""
    from guardhouse.sandbox import seccomp_compiler

    right = seccomp_compiler.second_table

    def wrong(rules, names, **answers):
        return right(rules, {**names, "ptrace": names["read"], "read": names["ptrace"]}, **answers)

    monkeypatch.setattr(seccomp_compiler, "second_table", wrong)
    # By a name of its own, so that it is compiled anew.
    text = text_of("isolate").replace("profile: own", "profile: wrong")
    rules = resolve_rules(load_profile(write_profile("wrong", text), directory=DIRECTORY), architecture="x86_64")
    with pytest.raises(SetupError, match="of i386 is answered"):
        compile_filter(rules)
