"""The deny rule and the allow-list hold against every evasion of `attacks.py`, in the real sandbox; the twins run."""

import os
import shutil
from pathlib import Path

import pytest

from tests.gate.attacks import HAS_NO_TWIN, MORE_ATTACKS, SHELL_ATTACKS, attacks
from tests.gate.gates import Gate

NAMES = tuple(attacks("tool", "tool"))
# The short form takes every fifth of the later ones; the long form all.
IS_LONG = bool(os.environ.get("GUARDHOUSE_LONG_TESTS"))
FIRST_OF_MORE = len(SHELL_ATTACKS) - len(MORE_ATTACKS)
TRIED = tuple(
    name for name in NAMES if IS_LONG or not name.isdigit() or int(name) < FIRST_OF_MORE or int(name) % 5 == 0
)
# Programs that a text cannot do without: where one is not installed there is nothing to show.
NEEDED = {
    *("node", "perl", "tclsh", "ed", "vim", "sqlite3", "valgrind", "make", "git", "gcc", "openssl", "xz", "script"),
    *("zsh", "ksh", "busybox", "lua5.4", "ruby", "php", "expect", "gawk", "mawk", "m4", "dc", "gdb", "socat", "watch"),
    *("rsync", "ssh", "zip", "xxd", "man", "less", "rbash", "start-stop-daemon", "unshare", "nsenter", "chroot"),
    *("flock", "taskset", "ionice", "chrt", "prlimit", "choom", "setpriv", "run-parts", "awk", "python3"),
}
MISSING = frozenset(
    name for name in NEEDED if shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin") is None
)


def text_of(name: str, tools: tuple[str, str], marker: str) -> str:
    if not tools[0] and ("TOOL" in name or not name[:1].isdigit()):
        pytest.skip("gcc is not installed here, which builds attack_tool.c")
    text = attacks(*tools)[name].replace("@@", marker)
    missing = MISSING & set(text.replace("'", " ").replace(";", " ").split())
    if missing:
        pytest.skip(f"not installed here: {', '.join(sorted(missing))}")
    return text


def markers(where: Path, marker: str) -> list[Path]:
    return [*where.rglob(f"*{marker}"), *where.rglob("MEMORY-WRITABLE")]


def test_there_are_many_of_them() -> None:
    """The table is not cut by accident."""
    assert len(NAMES) >= 450


@pytest.mark.parametrize("name", TRIED)
def test_a_deny_rule_holds(name: str, deny_gate: Gate, tools: tuple[str, str]) -> None:
    """However the command is written, no file with the denied name appears."""
    where = deny_gate.fresh_directory()
    done = deny_gate.run(text_of(name, tools, "PWNED"), where=where)
    assert markers(where, "PWNED") == [], done
    assert not done.outcome.timed_out, done


@pytest.mark.parametrize("name", TRIED)
def test_an_allow_list_holds(name: str, list_gate: Gate, tools: tuple[str, str]) -> None:
    """A program that the list does not name does not run, whatever a listed one does to start it."""
    where = list_gate.fresh_directory()
    done = list_gate.run(text_of(name, tools, "PWNED"), where=where)
    assert markers(where, "PWNED") == [], done
    assert not done.outcome.timed_out, done


@pytest.mark.parametrize("name", [name for name in TRIED if name not in HAS_NO_TWIN])
def test_its_twin_succeeds(name: str, deny_gate: Gate, tools: tuple[str, str]) -> None:
    """The same text with a name that no rule denies creates its file: the attack works, and the gate let it."""
    where = deny_gate.fresh_directory()
    done = deny_gate.run(text_of(name, tools, "FINE"), where=where)
    assert markers(where, "FINE") != [], done
