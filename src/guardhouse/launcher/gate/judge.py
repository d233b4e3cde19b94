"""What the policy says of a program, given the facts of its exec. Pure: facts and tables in, a judgement out.

The first program of a command is the shell that the launcher itself starts for the text; everything after it is asked
of the policy, as the file that it is. Three kinds of program stand for another and are judged as both: a script (its
interpreter runs), the dynamic loader called by hand (``ld.so PROGRAM``), and a multi-call binary called with the
applet as its argument (``busybox rm``).

Runs in the exec gate's monitor.
"""

from dataclasses import dataclass
from typing import Final

from guardhouse.launcher.gate.facts import ExecFacts, File
from guardhouse.launcher.gate.helpers import HELPERS, MULTI_CALL
from guardhouse.launcher.gate.trusted import TrustedPrograms
from guardhouse.policy.exec_decision import ExecDecision, decide_exec
from guardhouse.policy.model import INHERIT, Context, Policy
from guardhouse.values import Verdict

__all__ = ["ExecJudge", "Judgement"]

# Binaries that run another program named by their first argument, in their own process: busybox(1), toybox(1).
_APPLET_HOSTS: Final = frozenset({"busybox", "toybox"})
# ld.so(8): options that take a value; every other option stands alone.
_LOADER_OPTIONS_WITH_VALUE: Final = frozenset(
    {
        "--argv0",
        "--audit",
        "--glibc-hwcaps-mask",
        "--glibc-hwcaps-prepend",
        "--inhibit-rpath",
        "--library-path",
        "--preload",
    }
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer for one exec, as the record keeps it.

    Attributes:
        path: the file judged; for a script the script's.
        interpreter: what runs a script, or "".
        rule, place: the rule that decided, or "".
        inherits: what this program starts is its own doing and is not asked of the policy again.
        names: the plain names the file is known by.
        is_named_no: a rule that names this program says no, which no helper's reason overrides.
    """

    verdict: Verdict
    path: str
    argv: tuple[str, ...]
    because: str
    rule: str = ""
    place: str = ""
    interpreter: str = ""
    inherits: bool = False
    names: tuple[str, ...] = ()
    is_named_no: bool = False

    @property
    def may_run(self) -> bool:
        """Only an outright yes lets a program run; a question that nobody can answer here is a no."""
        return self.verdict is Verdict.ALLOW


class ExecJudge:
    """Judges execs under one policy. ``trusted`` says which files its rules' names mean."""

    def __init__(self, policy: Policy, trusted: TrustedPrograms, *, workspace: str) -> None:
        self._policy = policy
        self._trusted = trusted
        self._workspace = workspace.rstrip("/") + "/"

    def judge(self, facts: ExecFacts, parent: Judgement | None, context: Context) -> Judgement:
        """Judge one exec of a process that was ``parent`` until now; None for the command's own shell."""
        if parent is None:
            return self._answer(Verdict.ALLOW, facts, "the shell of this command")
        if parent.inherits:
            return self._answer(Verdict.ALLOW, facts, f"{parent.path} may start its helpers", inherits=True)
        by_policy = self._judge_script(facts, context) if facts.script else self._judge_binary(facts, context)
        if by_policy.may_run or by_policy.is_named_no:
            return by_policy
        return self._as_helper(facts, parent) or by_policy

    def refuse(self, facts: ExecFacts | None, because: str) -> Judgement:
        """Return a no for an exec whose facts cannot be had, or that was something else at its entry."""
        if facts is None:
            return Judgement(Verdict.DENY, "", (), because)
        return self._answer(Verdict.DENY, facts, because)

    def _judge_binary(self, facts: ExecFacts, context: Context) -> Judgement:
        decision = self._decide(facts.file, facts.argv, context)
        if decision.verdict is not Verdict.ALLOW:
            return self._from(decision, facts)
        for inner in self._stands_for(facts):
            other = self._decide(*inner, context)
            if other.verdict is not Verdict.ALLOW:
                return self._from(other, facts)
        return self._from(decision, facts)

    def _judge_script(self, facts: ExecFacts, context: Context) -> Judgement:
        script = facts.script
        if script is None:
            return self.refuse(facts, "not a script")
        names = self._names(script.file) if self._is_where_it_says(script.path) else frozenset()
        called = script.path.rpartition("/")[2]
        argv = (called, *facts.script_arguments)
        path = script.file.path if script.file is not None else script.path
        decision = decide_exec(
            self._policy, argv, path=path, names=names, workspace_path=self._in_workspace(path), context=context
        )
        if decision.verdict is Verdict.ALLOW and not names:
            # The author of an unknown script chose its interpreter and that one's arguments. A rule that names such a
            # program and says no still holds: '#!/bin/rm -rf' is rm.
            behind = self._decide(facts.file, facts.argv, context) if facts.is_final else None
            if behind is not None and behind.verdict is not Verdict.ALLOW and behind.rule and behind.rule.programs:
                return self._from(behind, facts)
        return self._from(decision, facts)

    def _as_helper(self, facts: ExecFacts, parent: Judgement) -> Judgement | None:
        """Return a yes where the parent is a system program that is known to start this one for its own work."""
        names = self._names(facts.file if facts.script is None else facts.script.file)
        for parent_name in parent.names:
            helper = HELPERS.get(parent_name)
            if helper is not None and names & helper.starts:
                reason = f"{parent_name} starts it for its own work: {helper.why}"
                return self._answer(Verdict.ALLOW, facts, reason)
        return None

    def _stands_for(self, facts: ExecFacts) -> list[tuple[File, tuple[str, ...]]]:
        """Return what else a binary runs inside itself: the loader's program, a multi-call binary's applet."""
        names = self._names(facts.file)
        if names & _APPLET_HOSTS and len(facts.argv) > 1:
            applet = facts.argv[1].rpartition("/")[2]
            return [(File(f"/usr/bin/{applet}", -1, -1), (applet, *facts.argv[2:]))]
        base = facts.file.path.rpartition("/")[2]
        if base.startswith(("ld-linux", "ld-musl", "ld.so", "ld-2", "ld64")):
            return [_loaded_program(facts.argv)]
        return []

    def _decide(self, file: File, argv: tuple[str, ...], context: Context) -> ExecDecision:
        names = self._names(file)
        if file.inode < 0:
            names = frozenset({argv[0]})
        decision = decide_exec(
            self._policy,
            argv,
            path=file.path,
            names=names,
            workspace_path=self._in_workspace(file.path),
            context=context,
        )
        if decision.verdict is not Verdict.ALLOW or len(names) < 2 or names & MULTI_CALL:
            return decision
        # One program under several names: python3 is python3.11. A no that names one of them means the file.
        for name in sorted(names):
            other = decide_exec(self._policy, (name, *argv[1:]), path=file.path, names={name}, context=context)
            if other.verdict is not Verdict.ALLOW and other.rule is not None and other.rule.programs:
                return other
        return decision

    def _names(self, file: File | None) -> frozenset[str]:
        return frozenset() if file is None else self._trusted.names_of(file.identity, path=file.path)

    def _is_where_it_says(self, path: str) -> bool:
        """A script is opened by its interpreter once more, by its path: only a path nobody can swap keeps its name."""
        return self._trusted.is_trusted_directory(path.rpartition("/")[0])

    def _in_workspace(self, path: str) -> str | None:
        return "./" + path.removeprefix(self._workspace) if path.startswith(self._workspace) else None

    def _from(self, decision: ExecDecision, facts: ExecFacts) -> Judgement:
        return self._answer(
            decision.verdict,
            facts,
            decision.because,
            rule=decision.rule.match if decision.rule else "",
            place=decision.rule.place if decision.rule else "",
            inherits=decision.children == INHERIT,
            is_named_no=decision.verdict is not Verdict.ALLOW and bool(decision.rule and decision.rule.programs),
        )

    def _answer(
        self,
        verdict: Verdict,
        facts: ExecFacts,
        because: str,
        *,
        rule: str = "",
        place: str = "",
        inherits: bool = False,
        is_named_no: bool = False,
    ) -> Judgement:
        script = facts.script
        file = script.file if script is not None else facts.file
        is_named = script is None or self._is_where_it_says(script.path)
        return Judgement(
            verdict=verdict,
            path=facts.file.path if script is None else script.path,
            argv=facts.argv,
            because=because,
            rule=rule,
            place=place,
            interpreter="" if script is None or not facts.is_final else facts.file.path,
            inherits=inherits,
            names=tuple(sorted(self._names(file))) if is_named else (),
            is_named_no=is_named_no,
        )


def _loaded_program(argv: tuple[str, ...]) -> tuple[File, tuple[str, ...]]:
    """Return what ``ld.so [option]… PROGRAM [argument]…`` loads: its path as text, which no trusted name covers."""
    position = 1
    while position < len(argv) and argv[position].startswith("--"):
        position += 2 if argv[position] in _LOADER_OPTIONS_WITH_VALUE else 1
    rest = argv[position:] or ("",)
    return File(rest[0], -1, -1), (rest[0].rpartition("/")[2], *rest[1:])
