"""What the exec gate says of a program: the file that runs counts, not what it is called."""

from pathlib import Path

import pytest

from guardhouse.launcher.gate.facts import ExecFacts, File, Script
from guardhouse.launcher.gate.judge import ExecJudge, Judgement
from guardhouse.launcher.gate.trusted import TrustedPrograms
from guardhouse.policy import policy_from_pairs
from guardhouse.policy.model import Context
from guardhouse.values import Verdict

ALLOW_LS = [
    ("*", "deny"),
    ("ls *", "allow"),
    ("zcat *", "allow"),
    ("busybox *", "allow"),
    ("/opt/tool *", "allow"),
    ("coreutils *", "allow"),
]
ALLOW_PYTHON3 = [("*", "deny"), ("python3 *", "allow")]
# Files that are several programs in one.
HOSTS = ("git", "lvm", "coreutils")
DENY_PUSH = [("*", "allow"), ("git push *", "deny")]
DENY_RM = [("*", "allow"), ("rm *", "deny")]
SHELL = Judgement(Verdict.ALLOW, "/usr/bin/bash", ("bash",), "the shell", names=("bash",))


class Host:
    """A trusted directory with programs in it, and a workspace beside it."""

    def __init__(self, root: Path) -> None:
        self.trusted = root / "bin"
        self.workspace = root / "workspace"
        self.trusted.mkdir()
        self.workspace.mkdir()
        for name in ("ls", "rm", "bash", "zcat", "gzip", "busybox", "ld-linux-x86-64.so.2", "python3.11", *HOSTS):
            self.add(self.trusted / name)
        (self.trusted / "python3").symlink_to("python3.11")
        (self.trusted / "git-upload-pack").symlink_to("git")

    def add(self, path: Path) -> File:
        path.write_bytes(b"#!" if path.name == "zcat" else b"\x7fELF")
        path.chmod(0o755)
        return self.file(path)

    def file(self, path: Path) -> File:
        status = path.stat()
        return File(str(path.resolve()), status.st_dev, status.st_ino, status.st_ctime_ns)

    def judge(self, rules: list[tuple[str, str]], facts: ExecFacts, parent: Judgement | None = SHELL) -> Judgement:
        judge = ExecJudge(policy_from_pairs(rules), TrustedPrograms([str(self.trusted)]), workspace=str(self.workspace))
        return judge.judge(facts, parent, Context())

    def runs(self, name: str, *argv: str) -> ExecFacts:
        return ExecFacts(self.file(self.trusted / name), argv, None, is_final=True)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A small world of its own."""
    return Host(tmp_path)


def test_the_commands_own_shell_is_no_question_of_policy(host: Host) -> None:
    """The launcher starts bash for every text; the policy is asked about what the text runs."""
    assert host.judge(ALLOW_LS, host.runs("bash", "bash", "-c", "ls"), parent=None).may_run


@pytest.mark.parametrize(
    ("rules", "program", "argv", "may_run"),
    [
        pytest.param(ALLOW_LS, "ls", ("ls", "-l"), True, id="allowed by name"),
        pytest.param(ALLOW_LS, "rm", ("rm", "x"), False, id="not in the list"),
        pytest.param(ALLOW_LS, "rm", ("ls", "x"), False, id="exec -a ls rm"),
        pytest.param(DENY_RM, "rm", ("rm", "x"), False, id="denied by name"),
        pytest.param(DENY_RM, "rm", ("harmless", "x"), False, id="exec -a harmless rm"),
        pytest.param(DENY_RM, "ls", ("rm", "x"), True, id="ls that calls itself rm is ls"),
        pytest.param(
            [("*", "allow"), ("python3 *", "deny")], "python3", ("python3.11", "-c", ""), False, id="other name"
        ),
        pytest.param(
            ALLOW_PYTHON3, "python3.11", ("v/bin/python", "-c", ""), True, id="a virtual environment's python"
        ),
        pytest.param(ALLOW_PYTHON3, "python3.11", ("harmless", "-c", ""), False, id="exec -a harmless python3"),
        pytest.param(ALLOW_PYTHON3, "python3.11", ("pythonw", "-c", ""), False, id="no version of it"),
        pytest.param(
            [*ALLOW_PYTHON3, ("python3.11 *", "deny")], "python3.11", ("python", "-c", ""), False, id="one name denied"
        ),
        pytest.param(
            [*ALLOW_PYTHON3, ("python3 -c *", "deny")], "python3.11", ("python", "-c", ""), False, id="one use denied"
        ),
        pytest.param(DENY_RM, "ld-linux-x86-64.so.2", ("ld.so", "/usr/bin/rm", "x"), False, id="ld.so rm"),
        pytest.param(
            DENY_RM,
            "ld-linux-x86-64.so.2",
            ("ld.so", "--argv0", "ls", "/usr/bin/rm", "x"),
            False,
            id="ld.so --argv0 ls rm",
        ),
        pytest.param(DENY_RM, "ld-linux-x86-64.so.2", ("ld.so", "/usr/bin/ls"), True, id="ld.so ls"),
        pytest.param(DENY_RM, "ld-linux-x86-64.so.2", ("ld.so", "--list", "./x"), True, id="ld.so --list"),
        pytest.param(DENY_RM, "ld-linux-x86-64.so.2", ("ld.so", "./x"), False, id="ld.so of a file to be swapped"),
        pytest.param(DENY_RM, "busybox", ("rm", "x"), False, id="busybox called as an applet without a link"),
        pytest.param(DENY_RM, "busybox", ("busybox", "busybox", "rm", "x"), False, id="busybox twice"),
        pytest.param(
            ALLOW_LS, "ld-linux-x86-64.so.2", ("ld.so", "/usr/bin/ls"), False, id="ld.so itself is not listed"
        ),
        pytest.param(ALLOW_LS, "busybox", ("busybox", "rm", "x"), False, id="busybox rm"),
        pytest.param(ALLOW_LS, "busybox", ("busybox", "ls"), True, id="busybox ls"),
        pytest.param(DENY_PUSH, "git", ("git-push", "."), False, id="git called git-push"),
        pytest.param(DENY_PUSH, "git", ("/x/git-push", "."), False, id="git called by a path that ends in git-push"),
        pytest.param(DENY_PUSH, "git", ("git-fetch", "."), True, id="git called git-fetch"),
        pytest.param(DENY_PUSH, "git", ("git-upload-pack", "."), True, id="another name of git"),
        pytest.param(DENY_PUSH, "git", ("git-upload-pack", "push"), True, id="its word is no subcommand"),
        pytest.param(DENY_PUSH, "git", ("other", "push", "."), False, id="git called otherwise"),
        pytest.param(
            DENY_PUSH,
            "ld-linux-x86-64.so.2",
            ("ld.so", "--argv0", "git-push", "/usr/bin/git", "."),
            False,
            id="ld.so git",
        ),
        pytest.param(
            [("*", "deny"), ("git status *", "allow")], "git", ("git-status", "-s"), True, id="git-status on a list"
        ),
        pytest.param(
            [("*", "deny"), ("git status *", "allow")], "git", ("git-push", "."), False, id="git-push not on a list"
        ),
        pytest.param(
            [("*", "allow"), ("lvremove *", "deny")], "lvm", ("lvm", "lvremove", "x"), False, id="lvm lvremove"
        ),
        pytest.param([("*", "deny"), ("lvm *", "allow")], "lvm", ("lvm", "version"), True, id="lvm on a list"),
        pytest.param(DENY_RM, "coreutils", ("coreutils", "--coreutils-prog=rm", "x"), False, id="coreutils rm"),
        pytest.param(DENY_RM, "coreutils", ("coreutils", "rm", "x"), False, id="coreutils rm of uutils"),
        pytest.param(DENY_RM, "coreutils", ("harmless", "rm", "x"), False, id="exec -a harmless coreutils rm"),
        pytest.param(ALLOW_LS, "coreutils", ("coreutils", "rm", "x"), False, id="coreutils rm on a list"),
        pytest.param(ALLOW_LS, "coreutils", ("coreutils", "--coreutils-prog=ls"), True, id="coreutils ls on a list"),
        pytest.param(DENY_RM, "coreutils", ("coreutils", "ls", "rm"), True, id="coreutils ls of uutils"),
    ],
)
def test_binaries(host: Host, rules: list[tuple[str, str]], program: str, argv: tuple[str, ...], may_run: bool) -> None:
    """A program of the trusted path is what its file is."""
    here = tuple(word.replace("/usr/bin", str(host.trusted)) for word in argv)
    assert host.judge(rules, host.runs(program, *here)).may_run is may_run


def test_a_copy_is_not_the_program(host: Host) -> None:
    """A file called ls in the workspace is not ls, and a copy of it is not either."""
    copy = host.add(host.workspace / "ls")
    assert not host.judge(ALLOW_LS, ExecFacts(copy, ("ls",), None, is_final=True)).may_run


def test_a_file_named_by_its_path_is_allowed_by_its_path(host: Host) -> None:
    """A rule that names a path means the file there."""
    tool = File("/opt/tool", 1, 2)
    assert host.judge(ALLOW_LS, ExecFacts(tool, ("tool", "-x"), None, is_final=True)).may_run


def script(host: Host, path: Path, *arguments: str, interpreter: str = "bash", option: str = "") -> ExecFacts:
    """The facts of a script at its exec event: the kernel put the interpreter's words in front."""
    words = (interpreter, *([option] if option else []), str(path), *arguments)
    return ExecFacts(host.file(host.trusted / interpreter), words, Script(str(path), host.file(path)), is_final=True)


def test_a_system_script_goes_by_its_name_and_may_start_its_helper(host: Host) -> None:
    """Zcat is a script around gzip: allowing zcat is enough."""
    zcat = host.judge(ALLOW_LS, script(host, host.trusted / "zcat", "log.gz"))
    assert (zcat.may_run, zcat.names) == (True, ("zcat",))
    assert host.judge(ALLOW_LS, host.runs("gzip", "gzip", "-cd", "log.gz"), parent=zcat).may_run
    assert not host.judge(ALLOW_LS, host.runs("gzip", "gzip", "-cd", "log.gz"), parent=SHELL).may_run
    assert not host.judge(ALLOW_LS, host.runs("rm", "rm", "x"), parent=zcat).may_run


def test_a_rule_that_names_the_helper_and_says_no_holds(host: Host) -> None:
    """A deny by name is not overridden by what zcat usually does."""
    rules = [*ALLOW_LS, ("gzip *", "deny")]
    zcat = host.judge(rules, script(host, host.trusted / "zcat", "log.gz"))
    assert not host.judge(rules, host.runs("gzip", "gzip", "-cd", "log.gz"), parent=zcat).may_run


def test_a_script_of_the_workspace_does_not_go_by_a_system_name(host: Host) -> None:
    """A script called zcat, or a link that pointed to the real one a moment ago, is only its own path."""
    host.add(host.workspace / "zcat")
    assert not host.judge(ALLOW_LS, script(host, host.workspace / "zcat", "x")).may_run
    (host.workspace / "link").symlink_to(host.trusted / "zcat")
    assert not host.judge(ALLOW_LS, script(host, host.workspace / "link", "x")).may_run


def test_the_interpreter_of_an_unknown_script_is_judged_as_well(host: Host) -> None:
    """`#!/bin/rm -rf` is rm, whoever wrote the file."""
    host.add(host.workspace / "harmless")
    facts = script(host, host.workspace / "harmless", "x", interpreter="rm", option="-rf")
    assert not host.judge(DENY_RM, facts).may_run
    assert host.judge(DENY_RM, script(host, host.workspace / "harmless", "x")).may_run


def test_what_an_inheriting_program_starts_is_its_own_doing(host: Host) -> None:
    """`children: inherit` passes down the tree."""
    parent = Judgement(Verdict.ALLOW, "/usr/bin/git", ("git",), "rule", inherits=True, names=("git",))
    child = host.judge(ALLOW_LS, host.runs("rm", "rm", "x"), parent=parent)
    assert (child.may_run, child.inherits) == (True, True)
