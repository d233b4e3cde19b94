"""The i386 table by ``int 0x80``: with the permission no way around what x86_64's refuses, without it death."""

import json
import os
import platform
import subprocess
from dataclasses import replace

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.sandbox.load import load_profile
from guardhouse.sandbox.rules import foreign_rules, resolve_rules
from guardhouse.sandbox.seccomp_compiler import compile_filter

from .attacker import NUMBERS
from .conftest import ATTACKER, HERE, PYTHON

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="only a kernel for x86_64 has the i386 table")

SCRIPT = ATTACKER + (HERE / "i386_attacker.py").read_text(encoding="utf-8")
START = "root" if os.geteuid() == 0 else "user"
# Calls of 32 bits alone, or that the table of attacks has under x86_64's name only.
ONLY_I386 = (
    "bdflush",
    "idle",
    "iopl",
    "ioperm",
    "oldolduname",
    "readdir",
    "sgetmask",
    "ssetmask",
    "stime",
    "umount",
    "uselib",
)
# What the same calls, made outside by this test, do nothing with; none of them answers EPERM there.
HARMLESS = {
    "bpf": [99], "io_uring_setup": [0, 0], "keyctl": [99], "kexec_load": [0, 99], "modify_ldt": [0, 0, 0],
    "mount": [0, 0], "name_to_handle_at": [-1], "perf_event_open": [0, 0, -1, -1, 0], "pidfd_getfd": [-1, 0],
    "process_vm_readv": [0, 0, 1, 0, 1], "ptrace": [0], "quotactl": [-1], "request_key": [0, 0], "setns": [-1],
    "swapoff": [0], "unshare": [0], "userfaultfd": [0xFFFF], "vmsplice": [-1],
}  # fmt: skip


def _outside(given):
    done = subprocess.run(
        [PYTHON, "-I", "-c", SCRIPT], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def questions():
    """Every dangerous call of the table of attacks that i386 has too, with its numbers."""
    isolate = resolve_rules(load_profile("isolate", directory=shipped_directory("sandbox")), architecture="x86_64")
    table = foreign_rules(isolate, "i386")
    numbers = compile_filter(replace(isolate, foreign=(table,))).foreign["i386"]
    allowed = {rule.call for rule in table.allow}
    names = [name for name in (*NUMBERS, *ONLY_I386) if name in numbers and name not in allowed]
    assert len(names) > 60
    given = {"numbers": numbers, "outright": ["getpid"], "arguments": {}, "pairs": False}
    if "SIGNAL" in _outside(given)["getpid 0"]:
        pytest.skip("this kernel serves no calls of 32 bits (CONFIG_IA32_EMULATION, ia32_emulation=off)")
    return {"numbers": numbers, "outright": names, "arguments": HARMLESS, "pairs": True}


@pytest.fixture(scope="module")
def verdicts(arena, questions, tmp_path_factory):
    """What came of everything behind isolate with the permission."""
    path = tmp_path_factory.mktemp("profiles") / "with_i386.yaml"
    path.write_text(
        "profile: with_i386\nsummary: isolate, and programs of 32 bits\nextends: isolate\n"
        "architectures: [{architecture: i386, why: a tool of these tests has 32 bits}]\n"
    )
    arena.profiles["with_i386"] = str(path)
    given = json.dumps(questions).encode()
    said, outcome = arena.run("with_i386", START, (PYTHON, "-I", "-c", SCRIPT), stdin=given)
    assert outcome.exit_code == 0, said
    return json.loads(said.splitlines()[-1]), outcome


def test_calls_that_no_profile_has_are_refused(verdicts, questions):
    """Each answers EPERM, or ENOSYS where its flags lie in memory or it is newer than the list."""
    found, outcome = verdicts
    newest = questions["numbers"]["fchmodat2"]
    for name in questions["outright"]:
        absent = name in ("clone3", "openat2") or questions["numbers"][name] > newest
        for shift in (0, 1 << 32):
            assert found[f"{name} {shift}"] == ("ERR ENOSYS" if absent else "ERR EPERM"), name
    # Named by their own table: under these numbers x86_64 has other calls.
    assert outcome.denied_syscalls["i386:ptrace"] == 2
    assert "ptrace" not in outcome.denied_syscalls


def test_the_same_calls_get_through_outside(questions):
    """Without the wall none of them is refused for want of permission: what stops them above is the filter."""
    given = {**questions, "outright": list(HARMLESS), "pairs": False}
    if os.geteuid() != 0:
        pytest.skip("twins outside need root")
    for name, line in _outside(given).items():
        assert line not in ("ERR EPERM", "ERR EACCES", "SIGNAL 31"), (name, line)


def test_arguments_are_checked_as_those_of_x86_64(verdicts):
    """Each forbidden argument is refused, also with bits above the 32 that count; the permitted one beside it works."""
    found, _ = verdicts
    attacks = [name for name in found if name.startswith("attack ")]
    assert len(attacks) > 40
    for name in attacks:
        assert found[name] == "ERR EPERM", (name, found[name])
        twin = found[name.replace("attack", "twin", 1)]
        assert twin.startswith("GOT") or twin == "ERR ENOTTY", (name, twin)


def test_without_the_permission_the_first_call_kills(arena, questions):
    """Behind the shipped profile no call of that table answers anything, not even getpid."""
    given = {**questions, "outright": ["getpid", "read", "ptrace"], "pairs": False}
    said, _ = arena.run("isolate", START, (PYTHON, "-I", "-c", SCRIPT), stdin=json.dumps(given).encode())
    assert set(json.loads(said.splitlines()[-1]).values()) == {"SIGNAL 31"}
