"""Programs of 32 bits under a profile that permits them: they run, and are judged as every other.

The program is `i386_tool.c`, built without a libc of 32 bits. `test_real_libc` takes programs with one, where somebody
names them.
"""

import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guardhouse.policy import policy_from_pairs
from tests.gate.gates import DENY, Gate, GateWithI386

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="only a kernel for x86_64 has the i386 table")

SOURCE = Path(__file__).parent / "i386_tool.c"
FLAGS = ("-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector", "-O1")
RULES = [*DENY, ("*/named-no *", "deny")]


@pytest.fixture(scope="module")
def tool(gate_workspace: Path) -> str:
    """The path of i386_tool.c, built; nothing where this kernel runs no program of 32 bits."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed here")
    made = gate_workspace / "i386_tool"
    built = subprocess.run([compiler, *FLAGS, "-o", made, SOURCE], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    try:
        outside = subprocess.run([made, "work"], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"this kernel runs no program of 32 bits (CONFIG_IA32_EMULATION): {error}")
    assert outside.stdout == "all right\n"
    return str(made)


@pytest.fixture(scope="module")
def gate(gate_workspace: Path) -> Iterator[Gate]:
    """Everything may run but what the deny rule names, and programs of 32 bits may."""
    made = GateWithI386(gate_workspace, RULES)
    yield made
    made.close()


@pytest.fixture(scope="module")
def wall(gate_workspace: Path) -> Iterator[Gate]:
    """The same wall without a gate."""
    made = GateWithI386(gate_workspace, None)
    yield made
    made.close()


def test_fork_pipes_signals_and_threads(tool: str, gate: Gate, wall: Gate) -> None:
    """A program of 32 bits forks, pipes, handles signals and has threads, with the gate as without."""
    for behind in (gate, wall):
        done = behind.run(f"{tool} work")
        assert (done.output, done.outcome.exit_code, done.outcome.denied_syscalls) == ("all right\n", 0, {})


def test_from_64_to_32_bits_and_back(tool: str, gate: Gate) -> None:
    """Each starts the other, by every way, and the record has every program with its words."""
    text = f"{tool} exec {tool} i386 vfork /bin/sh sh -c '{tool} work; {tool} thread /bin/echo echo out; exit 3'"
    done = gate.run(f"{text}; echo $?; {tool} open {tool} i386 vfork /bin/true true; echo $?")
    assert done.output == "all right\nout\n3\n0\n"
    argvs = [entry["argv"] for entry in (done.outcome.execs or {})["ran"]]
    assert ["i386", "vfork", "/bin/sh", "sh", "-c", f"{tool} work; {tool} thread /bin/echo echo out; exit 3"] in argvs
    assert ["echo", "out"] in argvs
    assert not done.refused


def test_many_and_long_words(tool: str, gate: Gate) -> None:
    """Arguments beyond every first look arrive and are judged; the last of them decides."""
    many = "W=$(yes $(printf '%0100d' 0) | head -n 3000);"
    done = gate.run(f"{many} {tool} exec /usr/bin/printf printf '%s' $W | wc -c; {tool} vfork {tool} i386 work $W")
    assert done.output == "300000\nall right\n"
    where = gate.fresh_directory()
    done = gate.run(f"{many} {tool} exec /usr/bin/touch touch -- $W PWNED", where=where)
    assert not (where / "PWNED").exists()
    assert done.refused
    # An environment longer than what is read at first.
    done = gate.run(f"export LONG=$(printf '%090000d' 0); {tool} exec {tool} i386 vfork /bin/echo echo on")
    assert done.output == "on\n"


def test_a_deny_rule_holds_for_callers_and_copies_of_32_bits(tool: str, gate: Gate) -> None:
    """Whatever 32-bit way leads to the denied program, it does not run; the same way to another one does."""
    script = "echo '#!'{} > {}; chmod -R +x .; "
    ways = {
        "exec": "$T exec /usr/bin/touch touch PWNED",
        "called otherwise": "$T exec /usr/bin/touch harmless PWNED",
        "vfork": "$T vfork /usr/bin/touch touch PWNED",
        "thread": "$T thread /usr/bin/touch touch PWNED",
        "open": "$T open /usr/bin/touch touch PWNED",
        "relative": "cd /usr/bin; $T exec ./touch touch $OLDPWD/PWNED",
        "loader": "$T exec /lib64/ld-linux-x86-64.so.2 ld.so /usr/bin/touch PWNED",
        "shell": "$T exec /bin/sh sh -c 'touch PWNED'",
        "script of a denied interpreter": script.format("/usr/bin/touch PWNED", "s") + "$T exec ./s s",
        "script with an interpreter of 32 bits": script.format("$T call", "named-no") + "$T exec ./named-no s",
    }
    for name, way in ways.items():
        where = gate.fresh_directory()
        done = gate.run(f"T={tool}; {way}; true", where=where)
        assert done.refused, (name, done)
        assert not (where / "PWNED").exists(), name
    twins = {name: way.replace("PWNED", "FINE").replace("named-no", "fine") for name, way in ways.items()}
    for name, way in twins.items():
        where = gate.fresh_directory()
        done = gate.run(f"T={tool}; {way}", where=where)
        assert (where / "FINE").exists() or "call" in way, (name, done)
        assert not done.refused, (name, done)


def test_a_copy_of_32_bits_is_known_by_its_build_id(tool: str, gate_workspace: Path) -> None:
    """A program of the trusted path with 32 bits that a rule names stays that under another name, bytes appended."""
    directory = gate_workspace / "trusted-i386"
    directory.mkdir()
    shutil.copy(tool, directory / "old-tool")
    gate = _GateWithPath(gate_workspace, [("*", "allow"), ("old-tool work*", "deny")], directory)
    try:
        where = gate.fresh_directory()
        text = (
            f"cp {directory}/old-tool other; echo more >> other; chmod +x other; ./other call 20 >/dev/null && echo ran"
        )
        done = gate.run(f"{text}; ./other work; old-tool work; exec -a other old-tool work", where=where)
        lines = done.output.splitlines()
    finally:
        gate.close()
    assert "ran" in lines
    assert "all right" not in lines
    assert [str(refused["path"]).rpartition("/")[2] for refused in done.refused] == ["other", "old-tool", "old-tool"]


def test_races_from_32_bits(tool: str, gate: Gate) -> None:
    """A path that a thread flips between the allowed and the denied program never makes the file."""
    where = gate.fresh_directory()
    done = gate.run(f"{tool} race /usr/bin/true /usr/bin/touch PWNED", where=where, timeout_s=60)
    ran, refused, killed = map(int, done.output.split())
    assert not (where / "PWNED").exists()
    assert ran + refused + killed == 40
    assert done.outcome.exit_code == 0


# Says what execve of the i386 table returns to a process of 64 bits: attack.py WAY PATH ARGV…
_INT_80 = """
import ctypes, mmap, os, struct, sys
low = mmap.mmap(-1, 65536, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40,  # MAP_32BIT
                prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
base = ctypes.addressof(ctypes.c_char.from_buffer(low))
# push rbx; push rbp; mov eax, edi; mov rbx, rsi; xchg rcx, rdx; mov rsi, r8; mov rdi, r9; xor ebp, ebp; int 0x80; cdqe
code = bytes.fromhex("5355 89f8 4889f3 4887ca 4c89c6 4c89cf 31ed cd80 4898 5d5b c3")
low[:len(code)] = code
call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 6)(base)
if sys.argv[1] == "far":
    # The same, in the code segment of 32 bits: push r12; mov r12, rsp; …; push 0x23; lea r10, next; push r10; retfq;
    # next: int 0x80; ljmp 0x33:back; back: mov rsp, r12; cdqe; pop r12.
    code = bytes.fromhex("5355 4154 4989e4 89f8 4889f3 4887ca 4c89c6 4c89cf 31ed 6a23 4c8d1504000000 4152 48cb cd80 ea")
    code += struct.pack("<IH", base + len(code) + 6, 0x33) + bytes.fromhex("4c89e4 4898 415c 5d5b c3")
    low[:len(code)] = code
high = 1 << 32 if sys.argv[1] == "high" else 0
words = [os.fsencode(word) for word in sys.argv[3:]]
at, pointers = 4096, []
for word in [os.fsencode(sys.argv[2]), *words]:
    low[at : at + len(word) + 1] = word + bytes(1)
    pointers.append(base + at)
    at += len(word) + 1
low[32768 : 32768 + 4 * len(pointers)] = struct.pack(f"<{len(pointers)}I", *pointers[1:], 0)
low[36864 : 36868] = bytes(4)
print(call(11, high | pointers[0], high | base + 32768, high | base + 36864, 0, 0), flush=True)
"""


@pytest.mark.parametrize("way", ["plain", "high", "far"])
def test_the_i386_table_from_a_process_of_64_bits(way: str, tool: str, gate: Gate) -> None:
    """An execve by int 0x80 is read as the kernel reads it: 32-bit words, whatever stands above them in registers.

    ``far``: from the code segment of 32 bits, which a process of 64 bits can jump to.
    """
    where = gate.fresh_directory()
    (where / "attack.py").write_text(_INT_80)
    attack = f"python3 attack.py {way}"
    done = gate.run(f"{attack} /usr/bin/touch touch PWNED; {attack} /bin/echo echo on", where=where)
    assert done.output == "-13\non\n"
    (refused,) = done.refused
    assert (refused["path"], refused["argv"], refused["killed"]) == ("/usr/bin/touch", ["touch", "PWNED"], False)


def test_x32_and_other_machines_stay_refused(tool: str, gate: Gate) -> None:
    """A 32-bit program of another machine's number than i386 is refused at its entry, and x32 calls kill."""
    where = gate.fresh_directory()
    made = bytearray(Path(tool).read_bytes())
    for name, machine in (("x32", 62), ("arm", 40)):
        struct.pack_into("<H", made, 18, machine)
        (where / name).write_bytes(made)
        (where / name).chmod(0o755)
    done = gate.run("./x32 work; echo $?; ./arm work; echo $?; echo on", where=where)
    assert [line for line in done.output.splitlines() if "denied" not in line] == ["126", "126", "on"]
    assert ["32 bits" in str(refused["because"]) for refused in done.refused] == [True, True]
    done = gate.run("python3 -c 'import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39); print(1)'; echo $?")
    assert done.output.splitlines()[-1] == "159"


def test_without_the_permission_nothing_of_32_bits_runs(tool: str, deny_gate: Gate, open_gate: Gate) -> None:
    """The shipped profile refuses the program at its entry; by a descriptor, or under allow-all, it is killed."""
    done = deny_gate.run(
        f'{tool} work; echo $?; python3 -c \'import os; os.execve(os.open("{tool}", 0), ["t", "work"], {{}})\''
    )
    assert "all right" not in done.output
    assert [refused["killed"] for refused in done.refused] == [False, True]
    assert ["architectures" in str(refused["because"]) for refused in done.refused] == [True, True]
    done = open_gate.run(f"{tool} work; echo $?")
    assert "all right" not in done.output
    assert [(refused["killed"], refused["path"]) for refused in done.refused] == [(True, tool)]


class _GateWithPath(GateWithI386):
    """One whose trusted path begins with a directory of the test's."""

    def __init__(self, workspace: Path, rules: list[tuple[str, str]], trusted: Path) -> None:
        self._trusted = trusted
        super().__init__(workspace, replace(policy_from_pairs(rules), trusted_path=self._trusted_path()))

    def _trusted_path(self) -> tuple[str, ...]:
        return (str(self._trusted), *super()._trusted_path())


@pytest.mark.by_hand("GUARDHOUSE_I386_PROGRAMS")
def test_real_libc(gate: Gate, wall: Gate) -> None:
    """Programs with a libc of 32 bits (their paths stand in the variable) print the same with the gate as without."""
    for program in os.environ["GUARDHOUSE_I386_PROGRAMS"].split(":"):
        wanted, got = wall.run(program), gate.run(program)
        assert (got.output, got.outcome.exit_code) == (wanted.output, wanted.outcome.exit_code)
        assert (got.outcome.exit_code, got.outcome.denied_syscalls) == (0, {}), got
        assert got.output
