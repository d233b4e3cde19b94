"""Where nothing can follow execs: Landlock lets a command execute what the policy allows anyhow, and nothing else.

The launcher of these tests has no gate, as on a host with kernel.yama.ptrace_scope=3; the wall is the narrowed plan.
What seccomp's notifications add to that is in `test_notified.py`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardhouse.kernel.probe import probe_host
from tests.gate.attacks import attacks
from tests.gate.gates import ALLOW_LIST
from tests.gate.narrow import NarrowGate
from tests.gate.test_attacks import NAMES, markers, text_of

# The short form takes every eighth attack.
TRIED = NAMES if os.environ.get("GUARDHOUSE_LONG_TESTS") else NAMES[::8]


@pytest.fixture(scope="module", autouse=True)
def _needs_landlock() -> None:
    if probe_host().landlock_abi < 1:
        pytest.skip("this kernel has no Landlock")


@pytest.fixture(scope="module")
def narrow(gate_workspace: Path) -> Iterator[NarrowGate]:
    """Shells and interpreters may run, touch may not: the allow-list of the gate's own attacks."""
    gate = NarrowGate(gate_workspace, ALLOW_LIST)
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def narrow_with_touch(gate_workspace: Path) -> Iterator[NarrowGate]:
    """The same, and touch."""
    gate = NarrowGate(gate_workspace, [*ALLOW_LIST, ("touch *", "allow")])
    yield gate
    gate.close()


@pytest.mark.parametrize("name", TRIED)
def test_the_allow_list_holds(name: str, narrow: NarrowGate, tools: tuple[str, str]) -> None:
    """A program that is not on the list does not run, by whatever text or interpreter."""
    where = narrow.fresh_directory()
    done = narrow.run(text_of(name, tools, "PWNED"), where=where)
    assert markers(where, "PWNED") == [], done
    assert not done.outcome.timed_out, done


TWINS = ["x=touch; $x @@", "touch @@", "echo 'touch @@' | sh", "env touch @@", "find . -maxdepth 0 -exec touch @@ \\;"]


@pytest.mark.parametrize("text", TWINS)
def test_what_is_allowed_runs(text: str, narrow_with_touch: NarrowGate) -> None:
    """The twins: with the program on the list the same texts make their file."""
    where = narrow_with_touch.fresh_directory()
    done = narrow_with_touch.run(text.replace("@@", "FINE"), where=where)
    assert markers(where, "FINE") != [], done


@pytest.mark.parametrize(
    "text",
    [
        "x=/lib64/ld-linux-x86-64.so.2; $x /usr/bin/touch PWNED",
        "cp /usr/bin/touch t; chmod +x t; ./t PWNED",
        "cat /usr/bin/touch > t; chmod +x t; ./t PWNED; x=/lib64/ld-linux-x86-64.so.2; $x ./t PWNED",
        "ln /usr/bin/touch t; ./t PWNED",
        "ln -s /usr/bin/touch t; ./t PWNED",
        "cd /proc/self/root/usr/bin && ./touch ~-/PWNED",
        "printf '#!/usr/bin/touch\\n' > PWNED.sh; mv PWNED.sh s; chmod +x s; ./s; mv s PWNED-not; rm -f PWNED-not",
        'python3 -c \'import os; os.execv("/usr/bin/touch", ["echo", "PWNED"])\'',
        (
            'python3 -c \'import os\nf = os.memfd_create("x")\nos.write(f, open("/usr/bin/touch", "rb").read())\n'
            'os.execve(f, ["touch", "PWNED"], {})\''
        ),
        "busybox touch PWNED",
        "x=/usr/bin/busybox; $x touch PWNED",
    ],
)
def test_the_file_itself_is_out_of_reach(text: str, narrow: NarrowGate) -> None:
    """Not by the loader, a copy, a link, a script's first line, another name, memory, or an applet of the same name."""
    where = narrow.fresh_directory()
    done = narrow.run(text, where=where)
    assert markers(where, "PWNED") == [], done


def test_a_program_that_some_rule_denies_is_not_on_the_list(gate_workspace: Path) -> None:
    """Nobody reads arguments here, so a program of which one use is denied cannot be run at all."""
    gate = NarrowGate(gate_workspace, [("*", "allow"), ("touch *PWNED*", "deny")])
    try:
        done = gate.run("echo a; touch FINE; ls; cat /dev/null; echo $?")
        assert "FINE\n" not in done.output
        assert done.output.endswith("0\n")
    finally:
        gate.close()


def test_files_that_are_no_programs_stay_readable(narrow: NarrowGate) -> None:
    """Configuration, libraries and the workspace are as before."""
    done = narrow.run("cat /etc/hostname >/dev/null && python3 -c 'import json; print(1)'; echo x > f; cat f")
    assert done.output == "1\nx\n"


def test_the_attack_table_is_there() -> None:
    """The short form is a part of the gate's own table."""
    assert set(TRIED) <= set(attacks("tool", "tool"))
    assert len(TRIED) >= 30
