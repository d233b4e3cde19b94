"""The helper closure: everyday commands run under a short list of what is typed, and no line of it is a way in."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardhouse.policy.knowledge.helper_closure import HELPERS, find_start
from tests.gate.gates import Done, Gate
from tests.gate.helped import (
    ABUSES,
    ABUSES_OF_THE_LIST,
    ATTACKERS,
    COMMANDS,
    EVIL,
    PARENTS,
    SETUP,
    WITHOUT_A_TWIN,
)

IS_LONG = bool(os.environ.get("GUARDHOUSE_LONG_TESTS"))
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
# Commands that run in one shell, one after the other.
TOGETHER = 12
LOOKING = ("cat", "head", "tail", "wc")
NUMBERED = {f"{number:02} {text[:60]}": text for number, text in enumerate((*ABUSES, *WITHOUT_A_TWIN))}


@pytest.fixture(scope="module")
def typed_gate(gate_workspace: Path) -> Iterator[Gate]:
    """Only what is typed may run, and nothing that it starts."""
    gate = Gate(gate_workspace, [("*", "deny"), *((f"{name} *", "allow") for name in (*PARENTS, *LOOKING))])
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def attackers_gate(gate_workspace: Path) -> Iterator[Gate]:
    """The same list, and what an attacker needs around it."""
    gate = Gate(gate_workspace, [("*", "deny"), *((f"{name} *", "allow") for name in (*PARENTS, *ATTACKERS))])
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def templates(bare_wall: Gate) -> dict[str, str]:
    """Directories with the files that the commands look at, and with an attacker's for each marker, made once."""
    made = {}
    for marker in ("", "PWNED", "FINE"):
        where = bare_wall.fresh_directory()
        text = SETUP if not marker else f"{SETUP}; cd ..; {EVIL.replace('@@', marker)}"
        assert bare_wall.run(text, where=where, timeout_s=300).outcome.exit_code == 0
        made[marker] = where.name
    return made


def fresh(bare_wall: Gate, template: str) -> Path:
    where = bare_wall.fresh_directory()
    text = f"cp -a ../{template}/. . && sed -i s/{template}/{where.name}/ r2/.git/config"
    assert bare_wall.run(text, where=where, timeout_s=120).outcome.exit_code == 0
    return where


def outcome_of(done: Done, where: Path) -> tuple[str, int]:
    """What it wrote, without its directory's name and where a library was loaded."""
    return re.sub(r"0x[0-9a-f]{12,16}", "0x", done.output.replace(where.name, "HERE")), done.outcome.exit_code


def typed_program(text: str) -> str:
    return next((word for word in re.split(r"[ ;|=]+", text) if word in PARENTS), "sh")


def is_installed(text: str) -> bool:
    return shutil.which(typed_program(text), path=PATH) is not None


def markers(where: Path, marker: str) -> list[Path]:
    return list(where.rglob(f"*{marker}*"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("first", range(0, len(COMMANDS), TOGETHER))
def test_the_same_as_without_the_gate(first: int, typed_gate: Gate, bare_wall: Gate, templates: dict[str, str]) -> None:
    """What a listed program starts for its own work runs, though no rule names it."""
    texts = [text for text in COMMANDS[first : first + TOGETHER] if is_installed(text)]
    each = " ".join(f"(eval {shlex.quote(text)}); echo '=== '$?;" for text in texts)
    here, there = fresh(bare_wall, templates[""]), fresh(bare_wall, templates[""])
    wanted = bare_wall.run(each, where=there, timeout_s=300)
    got = typed_gate.run(each, where=here, timeout_s=300)
    assert outcome_of(got, here) == outcome_of(wanted, there), got.refused


@pytest.mark.parametrize("name", list(NUMBERED)[:: 1 if IS_LONG else 4])
def test_no_line_is_a_way_in(
    name: str, attackers_gate: Gate, deny_gate: Gate, bare_wall: Gate, templates: dict[str, str]
) -> None:
    """Under the list and under a deny rule nothing that an attacker chose starts; the twin shows that it would."""
    text = NUMBERED[name]
    if not is_installed(text):
        pytest.skip(f"{typed_program(text)} is not installed here")
    for gate in (attackers_gate, deny_gate):
        where = fresh(bare_wall, templates["PWNED"])
        done = gate.run(text.replace("@@", "PWNED"), where=where, timeout_s=120)
        assert markers(where, "PWNED") == [], done
    if text in WITHOUT_A_TWIN:
        return
    where = fresh(bare_wall, templates["FINE"])
    done = deny_gate.run(text.replace("@@", "FINE"), where=where, timeout_s=120)
    assert markers(where, "FINE") != [], done


@pytest.mark.parametrize("text", ABUSES_OF_THE_LIST[:: 1 if IS_LONG else 3])
def test_a_helper_is_held_to_its_words(
    text: str, typed_gate: Gate, open_gate: Gate, bare_wall: Gate, templates: dict[str, str]
) -> None:
    """A variable that a script evaluates cannot make a helper write files; without the list it can."""
    where = fresh(bare_wall, templates[""])
    done = typed_gate.run(text.replace("@@", "PWNED"), where=where)
    assert markers(where, "PWNED") == [], done
    where = fresh(bare_wall, templates[""])
    done = open_gate.run(text.replace("@@", "FINE"), where=where)
    assert markers(where, "FINE") != [], done


@pytest.mark.parametrize("parent", sorted(HELPERS))
def test_the_data_is_sound(parent: str) -> None:
    """Each line has a reason, names something, and leads on only to a name that the table has."""
    for start in HELPERS[parent]:
        assert start.why
        assert start.programs or start.paths
        assert not start.then or start.then in HELPERS
        assert start.fits(()) in (True, False)


def may_start(parent: str, *argv: str) -> bool:
    called = argv[0].rpartition("/")[2]
    found = find_start([parent], called, frozenset({called}), argv[0], argv[1:], is_roots=lambda: True, may_list=False)
    return found is not None


@pytest.mark.parametrize(
    ("parent", "argv", "expected"),
    [
        ("zgrep", ("sed", "s|^|a.gz:|"), True),
        ("zgrep", ("sed", "-e", "s/[&\\|]/\\\\&/g", "-e", "$!s/$/\\\\/"), True),
        ("zgrep", ("sed", "s/'/'\\\\''/g\n$s/X$/'/"), True),
        ("zgrep", ("sed", "s/a/b/w f"), False),
        ("zgrep", ("sed", "s/a/b/e"), False),
        ("zgrep", ("sed", "s/a/b/ge"), False),
        ("zgrep", ("sed", "s/a/b/;w f"), False),
        ("zgrep", ("sed", "s/a/b/\nw f"), False),
        ("zgrep", ("sed", "s/a\\/b/c/w f"), False),
        ("zgrep", ("sed", "s/a/b/", "-i"), False),
        ("zgrep", ("sed", "-n", "-e", "s/a/b/"), False),
        ("zgrep", ("sed", "-f", "s"), False),
        ("zgrep", ("sed", "s,a,b,", "-e", "1e id"), False),
        ("zcat", ("gzip", "-cd", "a.gz"), True),
        ("zcat", ("gzip", "a"), False),
        ("zcat", ("gzip", "-d", "a.gz"), False),
        ("xzdiff", ("xz", "--format=auto", "-qQ", "-cdf", "--", "a"), True),
        ("xzdiff", ("xz", "-z", "a"), False),
        ("bzdiff", ("rm", "-f", "/tmp/bzdiff.AbCdEf0123"), True),
        ("bzdiff", ("rm", "-f", "/tmp/bzdiff.AbCdEf0123", "/etc/passwd"), False),
        ("bzdiff", ("rm", "-rf", "/tmp/../etc"), False),
        ("tar", ("/bin/sh", "-c", "gzip"), True),
        ("tar", ("/bin/sh", "-c", "gzip -9"), True),
        ("tar", ("/bin/sh", "-c", "gzip;id"), False),
        ("tar", ("/bin/sh", "-c", "gzip\nid"), False),
        ("tar", ("/bin/sh", "-c", "./gzip"), False),
        ("tar", ("/bin/sh", "-c", "gzip", "id"), False),
        ("tar", ("gzip", "-d"), True),
        ("tar", ("gzip", "a"), False),
        ("tar's gzip", ("gzip",), True),
        ("tar's gzip", ("gzip", "a"), False),
        ("git", ("git", "push"), False),
        ("git", ("git", "-c", "x=y", "fetch", "--update-head-ok"), False),
        ("git", ("git", "merge", "-q", "FETCH_HEAD"), True),
        ("git", ("git", "merge", "evil"), False),
        ("git", ("git", "maintenance", "run", "--auto", "--quiet"), True),
        ("git", ("git", "remote-ext", "x", "y"), False),
        ("git", ("git", "remote-https", "origin", "https://x"), True),
        ("git", ("/usr/lib/git-core/git-remote-https", "a", "b"), True),
        ("git", ("./git-remote-https", "a", "b"), False),
        ("git", ("sh", "-c", "git-upload-pack '/a b'", "git-upload-pack '/a b'"), True),
        ("git", ("sh", "-c", "git-upload-pack 'a';id"), False),
        ("git", ("sh", "-c", "git-upload-pack 'a'", "id"), False),
        ("git", ("less",), True),
        ("git", ("less", "-o", "f"), False),
        ("man", ("less",), True),
        ("man", ("less", "+!id"), False),
        ("less", ("sh", "-c", "gzip -cdfq -- a.gz"), True),
        ("less", ("sh", "-c", "/bin/bash -c gzip\\ -cdfq\\ --\\ a\\ b.gz"), True),
        ("less", ("sh", "-c", "gzip -cdfq -- a;id"), False),
        ("less", ("sh", "-c", "gzip -cdfq -- $(id)"), False),
        ("less", ("sh", "-c", "/bin/bash -c gzip\\ -cdfq\\ --\\ a\\;id"), False),
        ("ldd", ("/lib64/ld-linux-x86-64.so.2", "--verify", "/bin/ls"), True),
        ("ldd", ("/lib64/ld-linux-x86-64.so.2", "/bin/ls"), False),
        ("ldd", ("/tmp/ld-linux-x86-64.so.2", "--list", "x"), False),
        ("gcc", ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet"), True),
        ("gcc", ("./cc1", "-quiet"), False),
        ("gcc", ("/usr/lib/gcc/../../bin/12/cc1", "-quiet"), False),
        ("apt", ("dpkg", "--print-foreign-architectures"), True),
        ("apt", ("dpkg", "-i", "x.deb"), False),
        ("dpkg", ("dpkg-deb", "--info", "x.deb"), True),
        ("dpkg", ("dpkg-deb", "--extract", "x.deb", "/"), False),
        ("debsums", ("sh", "-c", "id"), False),
        ("find", ("rm", "x"), False),
    ],
)
def test_words(parent: str, argv: tuple[str, ...], expected: bool) -> None:
    """A helper is allowed with the words of its work and no others."""
    assert may_start(parent, *argv) is expected
