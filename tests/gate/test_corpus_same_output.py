"""Every everyday command of the corpora runs to the same output as bare bash, through gate one and the exec gate.

A case whose programs are not installed is left out by name. Compared are stdout with stderr, and the exit code: first
as they are, then, since dates, process ids and memory change from one moment to the next, with every number written N,
blanks drawn together, lines sorted, and a read-only file called what it is called outside: denied. Of programs that
list what the host does at that moment (`MOVING`) only the exit code must be the same. Where the wall
by design shows another view than the host (`OF_THE_WALL`), bare bash is that
of the same wall without a gate.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardhouse.policy import decide, policy_from_pairs
from guardhouse.policy.shell import read_command
from guardhouse.values import Verdict
from tests.gate.everyday import BUILTINS, EVERYDAY, SETUP
from tests.gate.gates import Gate

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What shows processes, mounts, sockets, limits, users or the environment of whoever asks: the wall has its own.
OF_THE_WALL = frozenset(
    {
        *("ps", "top", "pgrep", "df", "mount", "findmnt", "lsblk", "lsof", "ss", "ip", "netstat", "free", "env"),
        *("printenv", "ulimit", "systemctl", "journalctl", "id", "whoami", "who", "w", "last", "dmesg", "crontab"),
        *("docker", "kubectl", "set", "export", "declare", "compgen", "uptime", "hostname", "hostnamectl", "sudo"),
    }
)
MOVING = frozenset({"ps", "top", "lsof", "ss", "du", "journalctl", "dmesg"})
VOLATILE = re.compile(r"\d+(?:[.,:]\d+)*")
OWN = "everyday"


def cases() -> list[dict[str, str]]:
    """Every case that must be allowed: id, rules as JSON, text, and what makes its files ("": the usual)."""
    found = []
    for name in ("policy_cases.jsonl", "policy_cases_own.jsonl"):
        for line in (CORPUS / name).read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            if case["must"] == "allow" and not case.get("context"):
                rules = json.dumps(case["policy"])
                found.append(
                    {"id": case["id"], "rules": rules, "text": case["command"], "setup": case.get("setup", "")}
                )
    for names, texts in EVERYDAY.items():
        rules = json.dumps([["*", "deny"], *([f"{name} *", "allow"] for name in f"{names} {BUILTINS}".split())])
        found += [{"id": f"{OWN} {text}", "rules": rules, "text": text, "setup": ""} for text in texts]
    return found


CASES = cases()
POLICIES = sorted({case["rules"] for case in CASES})
# The short form takes the shared cases, the everyday ones, and a third of the others; the long form all.
SHORT = {case["rules"] for case in CASES if case["id"].startswith((OWN, "p-"))} | set(POLICIES[::3])
TRIED = [rules for rules in POLICIES if os.environ.get("GUARDHOUSE_LONG_TESTS") or rules in SHORT]
TOGETHER = 20


def missing_program(text: str) -> str:
    """Return the first program that a text starts and that is not installed; empty where there is none."""
    reading = read_command(text)
    for command in reading.commands:
        name = command.words[0].value
        if name is None or "/" in name or name in reading.functions or command.resolution != "program":
            continue
        if shutil.which(name, path=PATH) is None:
            return name
    return ""


def shows_the_wall(text: str) -> bool:
    """Whether a text has a word that only means the same inside the wall."""
    return any(place in text for place in ("/proc", "/tmp", "/var")) or not OF_THE_WALL.isdisjoint(
        re.findall(r"[\w-]+", text)
    )


class World:
    """Runs many texts, each in a directory of its own, and returns what each wrote and how it ended."""

    def __init__(self, bare_wall: Gate) -> None:
        self.wall = bare_wall
        self.template = bare_wall.fresh_directory()
        assert bare_wall.run(SETUP, where=self.template).outcome.exit_code == 0
        self.environment = dict(
            line.partition("=")[::2] for line in bare_wall.run("env").output.splitlines() if not line.startswith("_=")
        )

    def prepare(self, chosen: list[dict[str, str]]) -> Path:
        """Return a directory in which each case has its files, and the text that runs them all."""
        where = self.wall.fresh_directory()
        made = [
            f"mkdir {number}; (cd {number}; {case['setup'] or f'cp -a ../../{self.template.name}/. .'})"
            for number, case in enumerate(chosen)
        ]
        done = self.wall.run("\n".join(made), where=where, timeout_s=120)
        assert done.outcome.exit_code == 0, done
        return where

    def texts(self, chosen: list[dict[str, str]]) -> str:
        """Each as bash would run it for -c: in a shell of its own, with its own directory and no input."""
        return "\n".join(
            f"(cd {number}; eval {shlex.quote(case['text'])}) < /dev/null > {number}.out 2>&1; echo $? > {number}.code"
            for number, case in enumerate(chosen)
        )

    def results(self, chosen: list[dict[str, str]], where: Path) -> list[tuple[str, str]]:
        """Return output and exit code of each."""
        return [
            (
                (where / f"{number}.out").read_text(errors="replace").replace(where.name, "HERE"),
                (where / f"{number}.code").read_text(),
            )
            for number in range(len(chosen))
        ]

    def by_gate(self, gate: Gate, chosen: list[dict[str, str]]) -> list[tuple[str, str]]:
        """Return what comes out behind a gate, or of the wall alone."""
        where = self.prepare(chosen)
        done = gate.run(self.texts(chosen), where=where, timeout_s=300)
        assert not done.outcome.timed_out
        return self.results(chosen, where)

    def by_bash(self, chosen: list[dict[str, str]]) -> list[tuple[str, str]]:
        """Return what comes out of bash, as the same user and with the same environment, without any wall."""
        where = self.prepare(chosen)
        account = self.wall.account
        become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        subprocess.run(
            [*(become if os.geteuid() == 0 else ()), "bash", "-c", self.texts(chosen)],
            cwd=where,
            env=self.environment,
            check=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        return self.results(chosen, where)


@pytest.fixture(scope="module")
def world(bare_wall: Gate) -> World:
    """Made once: the files that the texts look at."""
    return World(bare_wall)


def steady(result: tuple[str, str]) -> tuple[str, str]:
    """Without what changes by itself."""
    text = VOLATILE.sub("N", result[0]).replace("Read-only file system", "Permission denied")
    if os.geteuid() != 0:
        # In an ordinary user's namespace whatever is not theirs belongs to the overflow account (user_namespaces(7)).
        text = text.replace("nobody nogroup", "root root")
    # Sorted: the parts of a pipeline write their errors in any order.
    return "\n".join(sorted(re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines())), result[1]


def agree(text: str, mine: tuple[str, str], theirs: tuple[str, str]) -> bool:
    """Whether two results are the same; programs side by side may write their errors into one another's lines."""
    one, other = steady(mine), steady(theirs)
    side_by_side = re.search(r"[<>]\(|\||&(?!&)", text) is not None
    return one == other or (side_by_side and (sorted(one[0]), one[1]) == (sorted(other[0]), other[1]))


def is_moving(text: str) -> bool:
    """Whether a text lists what the host's processes are doing, of which only the exit code stays the same."""
    return not MOVING.isdisjoint(re.findall(r"[\w-]+", text))


def differences(
    chosen: list[dict[str, str]], got: list[tuple[str, str]], wanted: list[tuple[str, str]]
) -> list[tuple[str, tuple[str, str], tuple[str, str]]]:
    return [
        (case["id"], mine, theirs)
        for case, mine, theirs in zip(chosen, got, wanted, strict=True)
        if mine != theirs
        and not agree(case["text"], mine, theirs)
        and not (is_moving(case["text"]) and mine[1] == theirs[1])
    ]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rules", TRIED, ids=lambda rules: rules[14:60])
def test_the_same_as_bare_bash(rules: str, world: World, gate_workspace: Path) -> None:
    """Gate one denies none of them, the exec gate lets each run to the same output and exit code."""
    chosen = [case for case in CASES if case["rules"] == rules and not missing_program(case["text"])]
    if not chosen:
        absent = {missing_program(case["text"]) for case in CASES if case["rules"] == rules}
        pytest.skip(f"not installed here, and nothing of this policy does without: {', '.join(sorted(absent))}")
    pairs = [(pattern, action) for pattern, action in json.loads(rules)]
    policy = policy_from_pairs(pairs)
    denied = [case["id"] for case in chosen if decide(policy, case["text"]).verdict is Verdict.DENY]
    assert denied == []
    gate = Gate(gate_workspace, pairs)
    try:
        for batch in batches(chosen):
            got = world.by_gate(gate, batch)
            assert differences(batch, got, world.by_gate(world.wall, batch)) == []
            if not shows_the_wall(batch[0]["text"]):
                assert differences(batch, got, world.by_bash(batch)) == []
    finally:
        gate.close()


def batches(chosen: list[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Several texts at a time; those that show the wall one by one.

    Programs like `ps` look for themselves in /proc by the number that they have inside, which leads nowhere once it is
    higher than any process of the host.
    """
    together = [case for case in chosen if not shows_the_wall(case["text"])]
    for first in range(0, len(together), TOGETHER):
        yield together[first : first + TOGETHER]
    for case in chosen:
        if shows_the_wall(case["text"]):
            yield [case]


def test_most_of_them_run(record_property: Callable[[str, object], None]) -> None:
    """The count of what runs and of what is left out for want of a program."""
    left_out = [program for program in (missing_program(case["text"]) for case in CASES) if program]
    record_property("run", len(CASES) - len(left_out))
    record_property("left_out", ", ".join(sorted(set(left_out))))
    assert len(CASES) >= 280
