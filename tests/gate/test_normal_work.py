"""What is allowed runs as it does without the gate: output, exit codes, signals, job control, threads, long loops."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.gate.gates import Gate, children_of, is_monitor, status_of, without_numbers

SAME = [
    "true",
    "false",
    "exit 7",
    "sh -c 'exit 3'; echo $?",
    "no_such_program; echo $?",
    "./no_such_file; echo $?",
    "/etc/passwd; echo $?",
    "mkdir d; ./d; echo $?",
    "printf x > f; chmod +x f; ./f; echo $?",
    "printf '#!/no/such/interpreter\\n' > f; chmod +x f; ./f; echo $?",
    "printf '\\177ELF' > f; chmod +x f; ./f; echo $?",
    "printf '#!/bin/sh\\necho $0 $1 $#\\n' > f; chmod +x f; ./f a 'b c'",
    "printf '#!/bin/sh -x\\necho $1\\n' > f; chmod +x f; ./f a",
    "printf 'echo no first line $1\\n' > f; chmod +x f; ./f a",
    "printf '#!/usr/bin/env -S sh -u\\necho $1\\n' > f; chmod +x f; ./f a",
    "sh -c 'kill -TERM $$'; echo $?",
    "sh -c 'kill -KILL $$'; echo $?",
    "sh -c 'kill -SEGV $$' 2>/dev/null; echo $?",
    "ulimit -c 0; sh -c 'kill -ABRT $$' 2>/dev/null; echo $?",
    "kill -TERM $$",
    "trap 'echo caught' USR1; kill -USR1 $$; echo after",
    "trap 'echo bye' EXIT; true",
    "trap 'echo int; exit 9' INT; sh -c 'kill -INT $PPID'; sleep 1",
    "trap '' TERM; sh -c 'kill -TERM $$; echo ignored'",
    "timeout 0.2 sleep 5; echo $?",
    "timeout -s KILL 0.2 sleep 5; echo $?",
    "timeout --foreground 0.2 sh -c 'sleep 5'; echo $?",
    "yes | head -n 2; echo ${PIPESTATUS[@]}",
    "set -o pipefail; yes | head -n 1 >/dev/null; echo $?",
    "echo a | cat | cat | cat | tr a b",
    "sleep 5 & kill -STOP $!; kill -CONT $!; kill $!; wait $!; echo $?",
    "sleep 0.3 & kill -STOP $!; sleep 0.1; grep State /proc/$!/status; kill -CONT $!; wait $!; echo $?",
    "sh -c 'kill -STOP $$; echo again' & sleep 0.2; kill -CONT $!; wait $!; echo $?",
    "set -m; sleep 0.2 & fg >/dev/null; echo $?",
    "set -m; (sleep 0.1; exit 4) & wait $!; echo $?",
    "exec 2>/dev/null; set -m; sleep 5 & kill -STOP %1; sleep 0.2; jobs; kill -CONT %1; kill %1; wait %1; echo $?",
    "exec 2>/dev/null; set -m; sh -c 'kill -TSTP $$; echo on' & sleep 0.2; bg >/dev/null; wait; echo $?",
    "coproc cat; echo hi >&${COPROC[1]}; read -u ${COPROC[0]} x; echo $x",
    "cat <(echo a) <(echo b)",
    "x=$(for i in 1 2 3; do echo $i; done); echo $x",
    "(exit 3) & (exit 4) & wait -n; wait; echo done",
    "set -m; sh -c 'exit 6' & wait -n; echo $?; (exit 3) & wait %+; echo $?",
    (
        "set -m; sh -c 'kill -STOP $$; exit 8' & until jobs | grep -q Stopped; do sleep 0.02; done;"
        " fg >/dev/null; echo $?"
    ),
    (
        "ulimit -c 0; for n in 1 2 3 4 6 7 8 9 10 11 12 13 14 15 24 31;"
        " do sh -c 'kill -'$n' $$' 2>/dev/null; echo $n $?; done"
    ),
    "trap 'echo child' CHLD; sh -c 'exit 2'; echo $?; (sh -c : &) ; true",
    "exec 2>/dev/null; set -m; sleep 9 | sleep 9 & kill -TERM -- -$!; kill -TERM %1; wait %1; echo $?",
    (
        "python3 -c 'import os,signal\nr,w=os.pipe()\np=os.fork()\n"
        "if p==0:\n  os.kill(os.getpid(), signal.SIGSTOP); os.read(r, 1); os._exit(4)\n"
        "f=os.WUNTRACED|os.WCONTINUED\nprint(os.WIFSTOPPED(os.waitpid(p, f)[1])); os.kill(p, signal.SIGCONT)\n"
        's=os.waitpid(p, f)[1]\nprint(os.WIFCONTINUED(s) or s == 1024); os.write(w, b"x"); '
        "print(os.WIFCONTINUED(s) and os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))'"
    ),
    (
        "python3 -c 'import os,signal,time\ngot=[]\nsignal.signal(signal.SIGALRM, lambda *_: got.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
        'for _ in range(20): os.waitpid(os.spawnlp(os.P_NOWAIT, "true", "true"), 0)\n'
        "signal.setitimer(signal.ITIMER_REAL, 0); print(len(got) > 0)'"
    ),
    (
        "python3 -c 'import os,signal,subprocess as s\nsignal.pthread_sigmask(signal.SIG_BLOCK, [34, 35])\n"
        'c="import os; [os.kill(os.getppid(), n) for n in (35, 34, 34)]"\ns.run(["python3", "-c", c])\n'
        "print([signal.sigwaitinfo([34, 35]).si_signo for _ in range(3)])'"
    ),
    "exec sh -c 'echo replaced; exit 5'",
    "exec 3< <(echo x); cat <&3",
    "setsid sh -c 'echo session'; echo $?",
    "(setsid sh -c '(sleep 0.1; echo orphan) &'); sleep 0.4",
    "env -i /bin/echo x",
    "env A=b sh -c 'echo $A'",
    "echo 1 2 3 4 | xargs -n1 -P4 echo | sort",
    "find / -maxdepth 1 -name usr -exec echo {} +",
    "seq 300 | xargs -n 1 echo | wc -l",
    "ls /proc/self/task | wc -l",
    "ldd /bin/ls | wc -l",
    "cp /bin/true t; ldd ./t | grep -c libc",
    "/lib64/ld-linux-x86-64.so.2 --list /bin/true | grep -c libc; echo $?",
    "/lib64/ld-linux-x86-64.so.2 /bin/echo loaded",
    "strace -o /dev/null true >/dev/null 2>&1; echo $?",
    "gdb -batch -ex run --args /bin/true >/dev/null 2>&1; echo $?",
    'python3 -c \'import subprocess as s; print(s.run(["sh", "-c", "exit 9"]).returncode)\'',
    (
        "python3 -c 'import threading,subprocess as s\n"
        'def f(): s.run(["true"])\n'
        "t=[threading.Thread(target=f) for _ in range(32)]\n"
        "[x.start() for x in t]; [x.join() for x in t]; print(len(t))'"
    ),
    "python3 -c 'import os; p=os.fork(); (os._exit(3) if p==0 else print(os.waitstatus_to_exitcode(os.wait()[1])))'",
    (
        "python3 -c 'from concurrent.futures import ProcessPoolExecutor as P\n"
        "with P(4) as p: print(sum(p.map(abs, range(100))))'"
    ),
    (
        "python3 -c 'import os,signal\np=os.fork()\nif p==0: os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)\n"
        "print(os.WIFSTOPPED(os.waitpid(p, os.WUNTRACED)[1])); os.kill(p, signal.SIGCONT); print(os.waitpid(p,0)[1])'"
    ),
    "perl -e 'print `echo x`; exit 2'; echo $?",
    (
        'node -e \'const c=require("child_process");Promise.all([...Array(16)].map((_,i)=>new Promise(r=>c.exec("echo "'
        "+i,(e,o)=>r(+o))))).then(a=>console.log(a.reduce((x,y)=>x+y)))'"
    ),
    "printf 'all: a b c d\\na b c d:\\n\\t@true; touch $@\\n' > Makefile; make -sj8; ls",
    "printf 'a:\\n\\texit 3\\n' > Makefile; make -s; echo $?",
    (
        "git init -q . && git config user.email a@b && git config user.name a && git commit -q --allow-empty -m x &&"
        " git log --format=%s"
    ),
    "tar czf x.tgz /etc/hostname 2>/dev/null; tar tzf x.tgz",
    "cd /; pwd; /bin/pwd",
    "echo $0 $#",
    "head -c 100000 /dev/zero | tr '\\0' x | wc -c",
    "x=$(head -c 100000 /dev/zero | tr '\\0' x); /bin/echo $x | wc -c",
    "x=$(head -c 200000 /dev/zero | tr '\\0' x); /bin/echo $x | wc -c; echo $?",
    "/bin/echo $(seq 20000) | wc -w",
    "/bin/echo '' \"a\nb\" $'\\xff' | od -An -tx1",
]


@pytest.mark.parametrize("text", SAME)
def test_it_runs_as_without_the_gate(text: str, deny_gate: Gate, bare_wall: Gate) -> None:
    """Output and exit code are those of the same wall without the gate."""
    wanted, got = bare_wall.run(text), deny_gate.run(text)
    assert (without_numbers(got.output), got.outcome.exit_code, got.outcome.signal) == (
        without_numbers(wanted.output),
        wanted.outcome.exit_code,
        wanted.outcome.signal,
    )


def test_a_refusal_reads_as_a_shell_says_it(deny_gate: Gate) -> None:
    """The command is told "Permission denied" and goes on; nothing is killed."""
    done = deny_gate.run("touch PWNED; echo $?; touch FINE; ls")
    assert done.output.splitlines()[-3:] == ["126", "FINE"] or "126\nFINE\n" in done.output
    assert "Permission denied" in done.output
    assert [(entry["killed"], entry["rule"]) for entry in done.refused] == [(False, "touch *PWNED*")]


def test_a_static_program_runs(deny_gate: Gate, tools: tuple[str, str]) -> None:
    """A program without a loader is followed like any other."""
    if not tools[1]:
        pytest.skip("gcc is not installed here, which builds attack_tool.c")
    done = deny_gate.run(f"{tools[1]} vfork FINE; ls")
    assert "FINE" in done.output


def test_the_record_is_a_tree(deny_gate: Gate) -> None:
    """Who started whom, and how each ended."""
    done = deny_gate.run("sh -c 'sh -c \"exit 4\"; true; exit 2'; exit $?")
    ran = (done.outcome.execs or {})["ran"]
    assert [(entry["parent"], entry["exit_status"]) for entry in ran] == [(None, 2), (0, 2), (1, 4)]


def test_five_thousand_programs_leave_nothing_behind(own_gate: Gate) -> None:
    """Neither descriptors nor memory nor zombies pile up in the monitor; the report says what it leaves out."""
    own_gate.run("true")
    monitor = own_gate.monitor()
    before = int(status_of(monitor, "VmRSS").split()[0])
    done = own_gate.run("for i in {1..5000}; do /bin/true $i; done; echo $i", timeout_s=200)
    assert done.output == "5000\n"
    execs = done.outcome.execs or {}
    assert len(execs["ran"]) + execs["left_out"] == 5001
    assert own_gate.monitor() == monitor
    assert int(status_of(monitor, "VmRSS").split()[0]) - before < 16 * 1024
    assert children_of(monitor) == []
    if os.geteuid() == 0:
        assert len(list(Path(f"/proc/{monitor}/fd").iterdir())) <= 4


def test_a_large_report_is_cut_and_says_so(deny_gate: Gate) -> None:
    """Long argument vectors and many refusals cannot make the report larger than a message."""
    done = deny_gate.run(
        "x=$(head -c 100000 /dev/zero | tr '\\0' '\\001'); for i in {1..400}; do /bin/true $x $x; touch PWNED$i $x;"
        " done 2>/dev/null; echo end",
        timeout_s=200,
    )
    execs = done.outcome.execs or {}
    assert done.output == "end\n"
    assert len(execs["ran"]) + len(execs["refused"]) + execs["left_out"] >= 802
    assert execs["left_out"] > 0


def test_vfork_and_many_jobs_at_once(deny_gate: Gate) -> None:
    """A build with eight jobs is a storm of vforks."""
    text = (
        "{ echo all: a{1..120};"
        " for i in {1..120}; do printf 'a%s:\\n\\t@sh -c \"true; true\"\\n' $i; done; } > Makefile;"
        " make -sj8; echo $?"
    )
    assert deny_gate.run(text).output == "0\n"


def test_children_of_killed_parents_are_not_held(deny_gate: Gate) -> None:
    """A process that is killed while it forks leaves children that go on, and the command ends by itself."""
    text = (
        "python3 -c '\nimport os, signal, time\nfor round in range(60):\n p = os.fork()\n if p == 0:\n"
        "  while True:\n   if os.fork() == 0: os._exit(0)\n time.sleep(0.005)\n os.kill(p, signal.SIGKILL)\n"
        ' os.waitpid(p, 0)\nprint("end")\''
    )
    done = deny_gate.run(text, timeout_s=60)
    assert (done.output, done.outcome.timed_out) == ("end\n", False)


@pytest.mark.parametrize("text", ["sleep 60", "kill -STOP $$", "while :; do /bin/true; done", "trap '' TERM; sleep 60"])
def test_a_time_limit_holds(text: str, deny_gate: Gate) -> None:
    """A command that waits, is stopped, or starts programs without end is ended by its time limit."""
    began = time.monotonic()
    done = deny_gate.run(text, timeout_s=0.5)
    assert done.outcome.timed_out
    assert time.monotonic() - began < 40


def test_a_command_can_be_cancelled(deny_gate: Gate) -> None:
    """Cancel stops the whole tree."""
    null = os.open(os.devnull, os.O_RDWR)
    identifier = deny_gate.start("sleep 60 & sleep 60", null)
    os.close(null)
    deny_gate.client.wait_started(identifier)
    deny_gate.client.stop(identifier)
    assert deny_gate.client.wait(identifier).cancelled


def running(word: str) -> list[str]:
    """Return the command lines of processes that have ``word`` as one of their arguments."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in line.split(b"\0"):
            found.append(line.decode())
    return found


def wait_until_gone(word: str) -> bool:
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        if not running(word):
            return True
        time.sleep(0.02)
    return False


def start_sleeper(gate: Gate, word: str) -> int:
    null = os.open(os.devnull, os.O_RDWR)
    identifier = gate.start(f"(setsid sleep {word} &) ; sleep {word}", null)
    os.close(null)
    gate.client.wait_started(identifier)
    deadline_s = time.monotonic() + 30
    while len(running(word)) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert len(running(word)) >= 2
    return identifier


def test_the_death_of_the_monitor_kills_the_command(own_gate: Gate) -> None:
    """Nothing runs unwatched: PTRACE_O_EXITKILL; the next command gets a slot of its own."""
    long = f"61.{os.getpid():07}1"
    identifier = start_sleeper(own_gate, long)
    os.kill(own_gate.monitor(), signal.SIGKILL)
    outcome = own_gate.client.wait(identifier)
    assert outcome.exit_code != 0
    assert wait_until_gone(long)
    assert own_gate.run("echo next").output == "next\n"


def test_the_death_of_the_launcher_leaves_nothing(own_gate: Gate) -> None:
    """Command, init and monitor are gone when the launcher is killed."""
    long = f"61.{os.getpid():07}2"
    start_sleeper(own_gate, long)
    children = [pid for pid in own_gate.children() if is_monitor(pid) or len(status_of(pid, "NSpid").split()) > 1]
    assert any(is_monitor(pid) for pid in children)
    os.kill(own_gate.handle.pid, signal.SIGKILL)
    assert wait_until_gone(long)
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s and any(map(is_alive, children)):
        time.sleep(0.02)
    assert [pid for pid in children if is_alive(pid)] == []


def is_alive(pid: int) -> bool:
    """Whether the process has not ended; one that waits to be reaped has."""
    try:
        return status_of(pid, "State")[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
