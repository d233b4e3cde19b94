"""Where nothing can follow execs: what a command's own notifications record, and whom they stop, above Landlock."""

import ast
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guardhouse.kernel.probe import probe_host
from guardhouse.policy import policy_from_pairs
from tests.gate import test_questions as questions
from tests.gate.gates import Done, children_of, status_of
from tests.gate.narrow import NarrowGate, interpreter_without
from tests.gate.test_attacks import NAMES, markers, text_of

RULES = [("*", "allow"), ("touch *PWNED*", "deny"), ("ln *", "deny"), ("link *", "deny")]
PATIENCE_S = 30.0
# Of what a busy machine may make come out otherwise.
TRIES = 8
LONG = bool(os.environ.get("GUARDHOUSE_LONG_TESTS"))
# Without a C library, so that nothing tells of its start: lives for half a second, or ends at once with any argument.
BARE_SOURCE = r"""
#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov (%rsp), %rdi\n and $-16, %rsp\n call begin\n");
static long call(long number, long first, long second) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second) : "rcx", "r11", "memory");
    return result;
}
enum { NANOSLEEP = 35, EXIT = 60 };
#else
__asm__(".globl _start\n_start: ldr x0, [sp]\n bl begin\n");
static long call(long number, long first, long second) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = first, x1 __asm__("x1") = second;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
    return x0;
}
enum { NANOSLEEP = 101, EXIT = 93 };
#endif
void begin(long count) {
    long time[2] = {0, 500000000};
    if (count == 1) call(NANOSLEEP, (long)time, 0);
    call(EXIT, 0, 0);
}
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_the_kernel() -> None:
    features = probe_host()
    if features.landlock_abi < 1:
        pytest.skip("this kernel has no Landlock")
    if features.exec_notices:
        pytest.skip(f"execs cannot be notified: {features.exec_notices}")


def _gate(gate: NarrowGate) -> Iterator[NarrowGate]:
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def listed(gate_workspace: Path) -> Iterator[NarrowGate]:
    """Only what is allowed with any arguments runs, and its callers' words can be read."""
    yield from _gate(NarrowGate(gate_workspace, RULES))


@pytest.fixture(scope="module")
def judged(gate_workspace: Path) -> Iterator[NarrowGate]:
    """What is allowed with some arguments runs, with those."""
    yield from _gate(NarrowGate(gate_workspace, RULES, notice="judged_arguments"))


@pytest.fixture(scope="module")
def blind(gate_workspace: Path) -> Iterator[NarrowGate]:
    """As ``listed``, and nobody's memory can be read."""
    yield from _gate(NarrowGate(gate_workspace, RULES, blind=True))


def execs_of(done: Done) -> dict[str, object]:
    assert done.outcome.execs is not None, done
    return done.outcome.execs


# The record


def test_the_record_has_what_ran_and_what_was_refused(listed: NarrowGate) -> None:
    """Path, words, rule, parent and start of each; what started by what it became, what was refused by its caller."""
    done = listed.run("bash -c 'cat /dev/null; true'; touch PWNED; ln -s a b; echo $?")
    assert done.output.endswith("126\n")
    ran = execs_of(done)["ran"]
    shown = [(one["path"].rpartition("/")[2], one["argv"], one["parent"], one["words"]) for one in ran]
    inner = "cat /dev/null; true"
    assert shown[1:] == [
        ("bash", ["bash", "-c", inner], 0, "program"),
        ("cat", ["cat", "/dev/null"], 1, "program"),
    ]
    assert [(one["verdict"], one["rule"]) for one in ran] == [("allow", ""), ("allow", "*"), ("allow", "*")]
    assert ran[0]["because"] == "the shell of this command"
    assert [one["started_s"] for one in ran] == sorted(one["started_s"] for one in ran)
    # Nobody is told of ends.
    assert {one["ended_s"] for one in ran} == {one["exit_status"] for one in ran} == {one["cpu_s"] for one in ran}
    touch, link = done.refused
    assert (touch["argv"], touch["rule"], touch["words"], touch["killed"]) == (
        ["touch", "PWNED"],
        "touch *PWNED*",
        "caller",
        False,
    )
    assert (link["argv"], link["rule"], link["parent"]) == (["ln", "-s", "a", "b"], "ln *", 0)
    assert (execs_of(done)["left_out"], execs_of(done)["unseen"]) == (0, 0)


def test_what_landlock_holds_back_is_said_in_words(listed: NarrowGate) -> None:
    """A file that is not on the list is refused before Landlock is asked, and the record says why."""
    done = listed.run("touch FINE; echo $?")
    assert done.output.endswith("126\n")
    (refused,) = done.refused
    assert "whatever their arguments" in str(refused["because"])
    assert "allowed_files" in str(refused["because"])


def test_what_ran_is_known_where_no_memory_can_be_read(blind: NarrowGate) -> None:
    """As under kernel.yama.ptrace_scope=3: path and words of what started, and how much was asked for in vain."""
    where = blind.fresh_directory()
    done = blind.run("bash -c 'cat /dev/null; true'; touch PWNED; env ls", where=where)
    assert markers(where, "PWNED") == []
    shown = [(one["argv"], one["parent"] is not None, one["words"]) for one in execs_of(done)["ran"]][1:]
    assert shown == [
        (["bash", "-c", "cat /dev/null; true"], True, "program"),
        (["cat", "/dev/null"], True, "program"),
        (["env", "ls"], True, "program"),
        (["ls"], True, "program"),
    ]
    assert done.refused == []
    assert execs_of(done)["unseen"] == 1


def test_without_readable_words_no_argument_is_judged(gate_workspace: Path) -> None:
    """Under the fallback that relies on them nothing starts then but the command's shell."""
    gate = NarrowGate(gate_workspace, RULES, notice="judged_arguments", blind=True)
    try:
        done = gate.run("/bin/true; echo $?; echo still here")
    finally:
        gate.close()
    assert "Permission denied" in done.output
    assert done.output.endswith("126\nstill here\n")
    assert "cannot be looked at" in str(done.refused[0]["because"])


def test_denied_calls_are_counted_as_ever(listed: NarrowGate) -> None:
    """The same listener answers them."""
    done = listed.run("unshare -n true; mount -t tmpfs none /tmp; unshare -n true; true")
    assert done.outcome.denied_syscalls == {"unshare": 2, "mount": 1}


def test_a_program_without_a_c_library_is_looked_at_later(gate_workspace: Path) -> None:
    """Nothing tells of its start: one that lives is looked at meanwhile, of others their caller's words stay."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    programs = gate_workspace / "programs"
    programs.mkdir()
    (programs / "bare.c").write_text(BARE_SOURCE)
    build = [compiler, "-static", "-nostdlib", "-O1", "-fno-stack-protector", "-o", programs / "bare"]
    subprocess.run([*build, programs / "bare.c"], check=True)
    (programs / "bash").symlink_to(shutil.which("bash") or "/bin/bash")
    policy = replace(policy_from_pairs(RULES), trusted_path=(str(programs),))
    gate = NarrowGate(gate_workspace, policy)
    try:
        # It is looked at within its half second, unless the listener does not come to run for so long.
        for _ in range(TRIES):
            done = gate.run(f"{programs}/bare; {programs}/bare at once; echo $?")
            assert done.output == "0\n"
            ran = execs_of(done)["ran"]
            shown = [(one["path"], one["argv"][1:]) for one in ran][1:]
            assert shown == [(f"{programs}/bare", []), (f"{programs}/bare", ["at", "once"])]
            if ran[1]["words"] == "program":
                break
        else:
            pytest.fail(f"in {TRIES} runs nobody looked at a program that lives")
    finally:
        gate.close()


# Arguments

WAYS = [
    "touch @@",
    "x=touch; $x @@",
    "env touch @@",
    "echo @@ | xargs touch",
    'python3 -c \'import subprocess; subprocess.run(["touch", "@@"])\'',
    'python3 -c \'import os; os.waitpid(os.posix_spawn("/usr/bin/touch", ["touch", "@@"], {}), 0)\'',
    (
        "python3 -c 'import os, threading\n"
        'threading.Thread(target=os.execv, args=("/usr/bin/touch", ["x", "@@"])).start()\''
    ),
    'python3 -c \'import os; os.execve(os.open("/usr/bin/touch", os.O_PATH), ["x", "@@"], {})\'',
    "bash -c 'exec -a harmless touch @@'",
    "(touch @@ & wait) & wait",
    "setsid --wait touch @@",
]


@pytest.mark.parametrize("text", WAYS)
def test_an_argument_rule_holds_for_what_does_not_attack_it(text: str, judged: NarrowGate) -> None:
    """A denied argument is refused however the program is started, and the same text with another one runs."""
    where = judged.fresh_directory()
    done = judged.run(text.replace("@@", "PWNED") + "; echo over", where=where)
    assert markers(where, "PWNED") == [], done
    assert [one["rule"] for one in done.refused if "touch" in str(one["path"])][:1] == ["touch *PWNED*"], done
    done = judged.run(text.replace("@@", "FINE"), where=where)
    assert markers(where, "FINE") != [], done
    assert done.refused == []


@pytest.mark.parametrize("name", NAMES if LONG else NAMES[::48])
def test_the_gates_own_evasions_are_met(name: str, judged: NarrowGate, tools: tuple[str, str]) -> None:
    """The attacks on the gate's deny rule, none of which races a notification, leave no marker here either."""
    where = judged.fresh_directory()
    done = judged.run(text_of(name, tools, "PWNED"), where=where)
    assert markers(where, "PWNED") == [], done
    assert not done.outcome.timed_out, done


def test_the_error_is_what_a_shell_prints(judged: NarrowGate) -> None:
    """The refused call is EACCES; the command goes on."""
    done = judged.run("touch PWNED; echo $?; touch FINE; echo $?")
    assert done.output == "bash: line 1: /usr/bin/touch: Permission denied\n126\n0\n"


def test_a_file_that_no_argument_makes_allowed_is_landlocks(judged: NarrowGate) -> None:
    """The wider list has no program that the policy denies whatever its arguments: copies and the loader too."""
    where = judged.fresh_directory()
    texts = ["ln -s a PWNED", "x=/lib64/ld-linux-x86-64.so.2; $x /usr/bin/ln -s a PWNED", "cat /usr/bin/ln > l"]
    done = judged.run("; ".join(texts), where=where)
    assert markers(where, "PWNED") == []
    assert "Permission denied" in done.output
    assert (where / "l").stat().st_size == 0


# By a thread that shares the caller's memory: ``flipped`` is exchanged between two texts of one length while the call
# is on its way. Exit status 77 says that the call itself was refused.
RACER = """
import ctypes, os, sys, threading
kind, rounds, other = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
libc = ctypes.CDLL(None)
fine = b"FINED" if kind == "words" else b"/usr/bin/true"
flipped = ctypes.create_string_buffer(fine)
if kind == "words":
    path, words = ctypes.c_char_p(b"/usr/bin/touch"), [b"touch", flipped]
else:
    path, words = flipped, [b"link", b"source", b"PWNED"]
argv = (ctypes.c_void_p * (len(words) + 1))(*[
    ctypes.addressof(word) if word is flipped else ctypes.cast(ctypes.c_char_p(word), ctypes.c_void_p).value
    for word in words
])
def flip():
    move, at, size = ctypes.memmove, ctypes.addressof(flipped), len(fine)
    while True:
        move(at, other, size)
        move(at, fine, size)
ends = {}
for _ in range(rounds):
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=flip, daemon=True).start()
        libc.execve(path, argv, (ctypes.c_void_p * 1)(None))
        os._exit(77)
    end = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ends[end] = ends.get(end, 0) + 1
print(ends)
"""


@pytest.mark.parametrize(("kind", "other"), [("words", "PWNED"), ("path", "/usr/bin/link")])
def test_a_race_gets_only_what_landlock_allows(kind: str, other: str, judged: NarrowGate) -> None:
    """Words and paths that change behind the look: a file that is not on the list never runs; a C library's start is
    looked at as well, so other words than were judged are a kill before main.
    """
    rounds = 2_000 if LONG else 25
    where = judged.fresh_directory()
    (where / "racer.py").write_text(RACER)
    (where / "source").touch()
    for _ in range(TRIES):
        done = judged.run(f"python3 racer.py {kind} {rounds} {other}", where=where, timeout_s=300)
        ends = ast.literal_eval(done.output)
        print(f"race by {kind}: {ends}")
        assert sum(ends.values()) == rounds, done
        assert markers(where, "PWNED") == [], done
        assert set(ends) <= {0, 77, -signal.SIGKILL}, done
        if len(ends) > 1:
            return
    pytest.fail(f"in {TRIES} runs nobody changed anything in time: there was no race")


def test_the_twin_of_the_race_makes_its_marker(judged: NarrowGate) -> None:
    """Where the policy says nothing against either text the same racer runs both."""
    where = judged.fresh_directory()
    (where / "racer.py").write_text(RACER)
    for _ in range(TRIES):
        done = judged.run("python3 racer.py words 25 OTHER", where=where, timeout_s=300)
        if markers(where, "OTHER") and markers(where, "FINED"):
            break
    assert markers(where, "OTHER") != [], done
    assert markers(where, "FINED") != [], done


# Questions


@pytest.fixture(scope="module")
def asking(gate_workspace: Path) -> Iterator[NarrowGate]:
    """The rules of the gate's own tests of questions."""
    yield from _gate(NarrowGate(gate_workspace, questions.RULES, notice="judged_arguments"))


@pytest.mark.parametrize(
    "claim",
    [
        questions.test_a_yes_lets_it_run,
        questions.test_a_no_is_an_error_that_the_shell_prints,
        questions.test_nothing_is_asked_that_a_rule_denies,
        questions.test_only_the_process_that_asks_waits,
        questions.test_the_same_is_asked_once,
        questions.test_time_runs_out,
        questions.test_where_nobody_can_be_asked_it_is_refused,
        questions.test_a_stop_ends_it_at_once,
        questions.test_a_killed_process_withdraws_its_question,
    ],
)
def test_questions_are_held_as_at_the_gate(claim: Callable[[NarrowGate], None], asking: NarrowGate) -> None:
    """What holds of a question at the gate's entry holds of one at the notification."""
    claim(asking)


# Ends


def test_the_time_limit_and_a_cancel_hold(listed: NarrowGate) -> None:
    """A command that starts programs without end is stopped like any other, and the next one runs."""
    assert listed.run("while :; do /bin/true; done", timeout_s=0.7).outcome.timed_out
    read_fd, write_fd = os.pipe()
    identifier = listed.start("/bin/echo up; while :; do /bin/true; done", write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        assert pipe.readline() == b"up\n"
        listed.client.stop(identifier)
        pipe.read()
    outcome = listed.client.wait(identifier)
    assert outcome.cancelled
    assert [one["argv"] for one in (outcome.execs or {})["ran"]][1] == ["/bin/echo", "up"]
    assert listed.run("/bin/echo on").output == "on\n"


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} did not come"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def own(gate_workspace: Path) -> Iterator[NarrowGate]:
    """As ``listed``, with one slot alone, whose listener is looked at and killed."""
    yield from _gate(NarrowGate(gate_workspace, RULES))


def test_many_programs_leave_nothing_behind(own: NarrowGate) -> None:
    """Neither descriptors nor memory nor processes pile up in the listener; the report says what it leaves out."""
    count = 5_000 if LONG else 200
    own.run("true")
    listener = own.monitor()
    before = int(status_of(listener, "VmRSS").split()[0])
    done = own.run(f"for i in {{1..{count}}}; do /bin/true $i; done; echo $i", timeout_s=300)
    assert done.output == f"{count}\n"
    execs = execs_of(done)
    assert len(execs["ran"]) + execs["left_out"] == count + 1
    assert execs["unseen"] == 0
    assert own.monitor() == listener
    assert int(status_of(listener, "VmRSS").split()[0]) - before < 16 * 1024
    assert children_of(listener) == []
    if os.geteuid() == 0:
        assert len(os.listdir(f"/proc/{listener}/fd")) < 8


def test_without_its_listener_a_command_starts_nothing_more(own: NarrowGate) -> None:
    """The kernel answers ENOSYS then; the launcher ends the command as soon as it hears of it, and serves the next."""
    gate = own
    where = gate.fresh_directory()
    text = "cat a; : > up; until [ -e go ]; do :; done; /bin/true 2> said; echo $? > status; mv status after; sleep 100"
    read_fd, write_fd = os.pipe()
    try:
        identifier = gate.start(text, write_fd, where=where)
        os.close(write_fd)
        wait_for(where / "up")
        # Held still, so that what the kernel does is seen before what the launcher does.
        os.kill(gate.handle.pid, signal.SIGSTOP)
        os.kill(gate.monitor(), signal.SIGKILL)
        (where / "go").touch()
        wait_for_text(where / "status")
        assert "Function not implemented" in (where / "said").read_text()
        os.kill(gate.handle.pid, signal.SIGCONT)
        outcome = gate.client.wait(identifier)
        assert outcome.exit_code == 128 + signal.SIGKILL
        assert not (where / "after").exists()
        assert gate.run("/bin/echo next").output == "next\n"
    finally:
        os.close(read_fd)


def wait_for_text(path: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline_s, f"nothing came in {path}"
        time.sleep(0.01)


THREADS = """
import subprocess, threading
def work():
    for _ in range(5):
        subprocess.run(["true"], check=True)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("done")
"""
# Each child has a handler for SIGURG, which does nothing to a program without one, and is sent it without a pause. With
# SA_RESTART: without it a signal that comes before the listener has the call makes it EINTR (docs/exec_gate.md).
SIGNALS = """
import os, signal
bad = 0
for _ in range(20):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGURG, lambda *_: None)
        signal.siginterrupt(signal.SIGURG, False)
        os.write(write, b"x")
        os.execv("/usr/bin/true", ["true"])
    os.read(read, 1)
    while True:
        os.kill(pid, signal.SIGURG)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
    bad += status != 0
    os.close(read), os.close(write)
print("bad", bad)
"""
MAKEFILE = "all: " + " ".join(f"t{number}" for number in range(24)) + "\nt%:\n\t@/bin/true && /bin/echo $@ > $@\n"


def test_threads_vfork_and_signals(judged: NarrowGate) -> None:
    """Threads that all start programs, parents that vfork suspends (make -j8), callers that signals interrupt."""
    where = judged.fresh_directory()
    (where / "threads.py").write_text(THREADS)
    (where / "signals.py").write_text(SIGNALS)
    (where / "Makefile").write_text(MAKEFILE)
    made = "make -sj8 && ls t? t?? | wc -l" if shutil.which("make") else "echo 24"
    done = judged.run(f"python3 threads.py && python3 signals.py && {made}", where=where, timeout_s=120)
    assert done.output == "done\nbad 0\n24\n", done
    assert done.refused == []


def test_one_slot_does_not_wait_for_another(judged: NarrowGate) -> None:
    """Two commands at once: each has a listener of its own."""
    pipes = [os.pipe() for _ in range(3)]
    ids = [judged.start("for i in {1..20}; do /bin/true; done; echo over", write_fd) for _, write_fd in pipes]
    for _, write_fd in pipes:
        os.close(write_fd)
    for (read_fd, _), identifier in zip(pipes, ids, strict=True):
        with os.fdopen(read_fd, "rb") as pipe:
            assert pipe.read() == b"over\n"
        outcome = judged.client.wait(identifier)
        assert len((outcome.execs or {})["ran"]) == 21


# The whole way, as an operator goes it

POLICY = 'permission:\n  bash:\n    "*": allow\n    "touch *PWNED*": deny\n'
PROFILE = """profile: untraced
summary: for hosts where nothing can follow execs
extends: observe
exec_gate: {fallback: judged_arguments, why: these hosts forbid tracing}
"""


def test_try_on_a_host_without_ptrace(tmp_path: Path) -> None:
    """What the text leaves open runs under a profile that permits it, says how, and has its record."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "untraced.yaml").write_text(PROFILE)
    text = "for i in $(echo touch); do $i PWNED; $i FINE; done; ls"
    start = "import sys; sys.argv[0] = 'guardhouse'; from guardhouse.cli.main import main; main()"
    begin = [interpreter_without(tmp_path, "ptrace"), "-c", start, "try", "--json"]
    begin += ["--policy", tmp_path / "policy.yaml", "--profile"]
    done = subprocess.run([*begin, tmp_path / "untraced.yaml", "--", text], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["stdout"] == "FINE\n"
    assert "Permission denied" in said["stderr"]
    assert (said["denied_by"]["gate"], said["denied_by"]["rule"]) == ("exec gate", "touch *PWNED*")
    assert "as their callers showed them" in said["notes"][0]
    assert [one["argv"] for one in said["tree"]["ran"]][1:] == [["touch", "FINE"], ["ls"]]
