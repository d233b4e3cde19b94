"""What the policy says of a program, given the facts of its exec. Pure: facts and tables in, a judgement out.

The first program of a command is the shell that the launcher itself starts for the text; everything after it is asked
of the policy, as the file that it is. Four kinds of program stand for another and are judged as both: a script (its
interpreter runs), the dynamic loader called by hand (``ld.so PROGRAM``), a multi-call binary called with the applet as
its argument (``busybox rm``), and a copy of a program that a rule names.

Runs in the exec gate's monitor.
"""

# ruff: noqa: PTH116 - the launcher does without pathlib: it would double what each fork copies
import os
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from guardhouse.launcher.gate.facts import ExecFacts, File, KinOf
from guardhouse.launcher.gate.kin import LOADER, KinTable
from guardhouse.launcher.gate.multi_call import COREUTILS_OPTIONS, MULTI_CALL, other_readings
from guardhouse.launcher.gate.trusted import TrustedPrograms, is_system_file
from guardhouse.policy.decision import strictest
from guardhouse.policy.exec_decision import ExecDecision, decide_exec
from guardhouse.policy.knowledge.helper_closure import FIRST_LINE_INTERPRETERS, find_start
from guardhouse.policy.model import INHERIT, Context, Policy
from guardhouse.policy.rulebook import rulebook_of
from guardhouse.policy.versions import is_version_of
from guardhouse.values import Verdict

__all__ = ["ExecJudge", "Judgement"]

# Binaries that run another program named by their first argument, in their own process: busybox(1), toybox(1), and
# uutils' coreutils.
_APPLET_HOSTS: Final = frozenset({"busybox", "toybox", "coreutils"})
# Programs that load another one themselves, without an exec: the dynamic loader (ld.so(8)) and user-mode emulators
# (valgrind(1), qemu-user(1)), with the options of each that take a value as a word of its own.
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
_QEMU_OPTIONS_WITH_VALUE: Final = frozenset(
    f"-{name}"
    for name in "0 B D E L R U cpu d g p plugin r seed trace".split()  # noqa: SIM905 - reads as the manual
)
_QEMU_OTHERS: Final = ("qemu-system-", "qemu-img", "qemu-io", "qemu-nbd", "qemu-ga", "qemu-edid", "qemu-pr-helper")
# Those that only look at the program: nothing of it runs.
_LOADER_LOOKS: Final = frozenset({"--help", "--list", "--list-diagnostics", "--list-tunables", "--verify", "--version"})
_LOADER_BEGINNINGS: Final = ("ld-linux", "ld-musl", "ld.so", "ld-2", "ld64")

# As much of an argument vector and of a reason as is kept of one program, and shown.
_SHOWN_ARGUMENTS: Final = 200
_SHOWN_ARGUMENT_CHARS: Final = 1_000
_SHOWN_CHARS: Final = 8_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer for one exec, as the record keeps it.

    Attributes:
        path: the file judged; for a script the script's.
        argv: as much of the argument vector as is shown, and how much is not.
        interpreter: what runs a script, or "".
        rule, place: the rule that decided, or "".
        inherits: what this program starts is its own doing and is not asked of the policy again.
        names: the plain names the file is known by.
        is_named_no: a rule that names this program says no, which no helper's reason overrides.
        file, words: what a person is asked about, for `ASK`: which file (device, inode, time of change; a path where it
            cannot be followed) with which arguments.
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
    file: tuple[int | str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def may_run(self) -> bool:
        """Only an outright yes lets a program run; a question is none until somebody has answered."""
        return self.verdict is Verdict.ALLOW

    @property
    def asks(self) -> bool:
        """Whether a person is to be asked."""
        return self.verdict is Verdict.ASK


class ExecJudge:
    """Judges execs under one policy. ``trusted`` says which files its rules' names mean."""

    def __init__(
        self,
        policy: Policy,
        trusted: TrustedPrograms,
        *,
        workspace: str,
        environment: frozenset[str] | None = None,
        follows: bool = True,
    ) -> None:
        """``environment`` is the host's tags, for rules with conditions; None where it was given none.

        ``follows``: execs are followed here; otherwise only those that a plan has notified are judged.
        """
        self._policy = policy
        self.environment = environment
        self.follows = follows
        self._trusted = trusted
        self._workspace = workspace.rstrip("/") + "/"
        rules = [rule for layer in policy.layers for rule in layer.rules()]
        says_no = [rule for rule in rules if rule.action is not Verdict.ALLOW]
        named = {name.rpartition("/")[2] for rule in says_no for name in rule.programs}
        self._kin = KinTable(trusted, frozenset(named | _APPLET_HOSTS))
        self._asks_time = any(rule.when is not None and (rule.when.hours or rule.when.days) for rule in rules)
        self._needs_request = any(rule.when is not None or rule.action is Verdict.ASK for rule in rules)
        books = [rulebook_of(layer) for layer in policy.layers]
        self._allows_all = all(book is not None and book.allows_everything(Context()) for book in books)

    @property
    def kin_of(self) -> KinOf:
        """Tells `facts.py` of which named programs a file is a copy."""
        return self._kin.kin_of

    @property
    def allows_everything(self) -> bool:
        """Whether no program is ever refused, so that only the record needs to know what runs."""
        return self._allows_all

    @property
    def asks_time(self) -> bool:
        """Whether an answer depends on when it is asked for."""
        return self._asks_time

    @property
    def needs_request(self) -> bool:
        """Whether an answer may depend on who asked for the command, or on a person."""
        return self._needs_request

    def context(self, request: Context) -> Context:
        """Return the circumstances of now: what is known of the request, and the time where a rule asks for it."""
        return replace(request, now=datetime.now().astimezone()) if self._asks_time else request

    def judge(self, facts: ExecFacts, parent: Judgement | None, context: Context) -> Judgement:
        """Judge one exec of a process that was ``parent`` until now; None for the command's own shell."""
        if parent is None:
            return self._answer(Verdict.ALLOW, facts, "the shell of this command")
        if parent.inherits:
            return self._answer(Verdict.ALLOW, facts, f"{parent.path} may start its helpers", inherits=True)
        by_policy = self._judge_script(facts, context) if facts.script else self._judge_binary(facts, context)
        if by_policy.is_named_no:
            return by_policy
        as_helper = self._as_helper(facts, parent)
        if not by_policy.may_run:
            return as_helper or by_policy
        # A rule lets it run; what it may start as a helper is still what it was started for.
        return by_policy if as_helper is None else replace(by_policy, names=as_helper.names)

    def refuse(self, facts: ExecFacts | None, because: str) -> Judgement:
        """Return a no for an exec whose facts cannot be had, or that was something else at its entry."""
        if facts is None:
            return Judgement(Verdict.DENY, "", (), because)
        return self._answer(Verdict.DENY, facts, because)

    def _judge_binary(self, facts: ExecFacts, context: Context) -> Judgement:
        decision = self._decide(facts.file, facts.argv, context)
        if decision.verdict is Verdict.DENY:
            return self._from(decision, facts)
        # A rule that lets a program start what it needs lets a loader load what it is asked to.
        if decision.children == INHERIT and self._loader_options(facts.file) is not None:
            return self._from(decision, facts)
        return _strictest(self._from(decision, facts), self._refuse_inner(facts, context))

    def _refuse_inner(self, facts: ExecFacts, context: Context) -> Judgement | None:
        """Return a no, or a question, for what a binary runs inside itself or is a copy of; None where none is."""
        if self._allows_all:
            return None
        worst: Judgement | None = None
        for inner in self._stands_for(facts):
            if inner is None:
                reason = (
                    f"{facts.file.path} loads its program by itself and may find another file there than was looked at;"
                    " run the program itself, or name it by its path in the trusted path"
                )
                return self._answer(Verdict.DENY, facts, reason)
            other = self._decide(*inner, context)
            if other.verdict is not Verdict.ALLOW:
                worst = _strictest(self._from(other, facts), worst)
        copied = self._refuse_copy(facts.file, facts.argv, context)
        return worst if copied is None else _strictest(self._from(copied, facts), worst)

    def _refuse_copy(self, file: File, argv: tuple[str, ...], context: Context) -> ExecDecision | None:
        worst: ExecDecision | None = None
        readings = [(name, *argv[1:]) for name in sorted(file.kin)] + other_readings(argv, file.kin)
        for reading in readings:
            as_named = decide_exec(self._policy, reading, path=file.path, names={reading[0]}, context=context)
            if as_named.verdict is not Verdict.ALLOW and as_named.rule is not None and as_named.rule.programs:
                found = replace(as_named, because=f"{file.path} is a copy of {reading[0]}: {as_named.because}")
                if worst is None or strictest(worst.verdict, found.verdict) is not worst.verdict:
                    worst = found
        return worst

    def _judge_script(self, facts: ExecFacts, context: Context) -> Judgement:
        script = facts.script
        if script is None:
            return self.refuse(facts, "not a script")
        as_binary: Judgement | None = None
        if not script.is_sure:
            # A binary with this path among its arguments looks the same: it has to be allowed as that, too.
            as_binary = self._judge_binary(facts, context)
            if as_binary.verdict is Verdict.DENY:
                return as_binary
        names = self._names(script.file) if self._is_where_it_says(script.path) else frozenset()
        called = script.path.rpartition("/")[2]
        argv = (called, *facts.script_arguments)
        path = script.file.path if script.file is not None else script.path
        decision = decide_exec(
            self._policy, argv, path=path, names=names, workspace_path=self._in_workspace(path), context=context
        )
        judgement = _strictest(self._from(decision, facts), as_binary)
        if decision.verdict is Verdict.DENY or names:
            return judgement
        if script.settled:
            # The interpreter opens it once more, and until then a link on the way can be turned: a rule for the file
            # that it leads to now says nothing of that one.
            where = script.settled
            decision = decide_exec(
                self._policy, argv, path=where, workspace_path=self._in_workspace(where), context=context
            )
            judgement = _strictest(judgement, self._from(decision, facts))
        # The author of an unknown script chose its interpreter and that one's arguments. A rule that names such a
        # program and says no still holds: '#!/bin/rm -rf' is rm.
        if facts.is_final:
            behind = self._from(self._decide(facts.file, facts.argv, context), facts)
            for found in (behind, self._refuse_inner(facts, context)):
                if found is not None and found.is_named_no:
                    judgement = _strictest(judgement, found)
        copied = None if script.file is None else self._refuse_copy(script.file, argv, context)
        return judgement if copied is None else _strictest(judgement, self._from(copied, facts))

    def _as_helper(self, facts: ExecFacts, parent: Judgement) -> Judgement | None:
        """Return a yes where the parent is a system program that is known to start this one for its own work."""
        script = facts.script
        if script is not None and not script.is_sure:
            return None
        file = facts.file if script is None else script.file
        path = facts.file.path if script is None else script.path
        names = self._names(file)
        if script is not None and not self._is_where_it_says(path):
            names = frozenset()
        called = (facts.argv[0] if script is None else path).rpartition("/")[2] if facts.argv else ""
        words = facts.argv[1:] if script is None else facts.script_arguments
        is_first_line = (
            script is None
            and parent.interpreter.rpartition("/")[2] == "env"
            and called in names & FIRST_LINE_INTERPRETERS
            and words[:1] == (parent.path,)
        )
        if parent.names and is_first_line:
            return self._answer(Verdict.ALLOW, facts, f"the first line of {parent.path} names it as its interpreter")
        start = find_start(
            parent.names,
            called,
            names,
            path,
            words,
            is_roots=lambda: file is not None and is_system_file(file, path),
            # At the entry its environment is not known yet.
            may_list=facts.only_lists or not facts.is_final,
        )
        if start is None:
            return None
        judgement = self._answer(Verdict.ALLOW, facts, f"{parent.path} starts it for its own work: {start.why}")
        return replace(judgement, names=(*judgement.names, start.then)) if start.then else judgement

    def _stands_for(self, facts: ExecFacts) -> list[tuple[File, tuple[str, ...]] | None]:
        """Return what else a binary runs inside itself: the loader's program, a multi-call binary's applet.

        None stands for a program that cannot be known for sure.
        """
        names = self._names(facts.file) | facts.file.kin
        if names & _APPLET_HOSTS:
            applet = _applet(facts.argv)
            return [(File(f"/usr/bin/{applet[0]}", -1, -1), applet)] if applet else []
        options = self._loader_options(facts.file)
        if options is None or (facts.only_lists and options is _LOADER_OPTIONS_WITH_VALUE):
            return []
        return self._loaded_program(facts, options)

    def _loader_options(self, file: File) -> frozenset[str] | None:
        """Return the options with a value of a program that loads another one by itself; None for every other one."""
        directory, _, base = file.path.rpartition("/")
        if LOADER in file.kin or base.startswith(_LOADER_BEGINNINGS):
            return _LOADER_OPTIONS_WITH_VALUE
        if base in ("valgrind", "valgrind.bin") or directory.endswith("/valgrind"):
            return frozenset()
        if base.startswith("qemu-") and not base.startswith(_QEMU_OTHERS):
            return _QEMU_OPTIONS_WITH_VALUE
        return None

    def _loaded_program(self, facts: ExecFacts, options: frozenset[str]) -> list[tuple[File, tuple[str, ...]] | None]:
        """Return what ``ld.so [option]… PROGRAM [argument]…`` loads, or an emulator likewise."""
        argv = facts.argv
        argv0 = ""
        position = 1
        while position < len(argv) and argv[position].startswith("-"):
            if options is _LOADER_OPTIONS_WITH_VALUE and argv[position] in _LOADER_LOOKS:
                return []
            if argv[position] == "--argv0" and options is _LOADER_OPTIONS_WITH_VALUE:
                argv0 = next(iter(argv[position + 1 : position + 2]), "")
            position += 2 if argv[position] in options else 1
        if position >= len(argv):
            return []  # it prints its usage
        path, arguments = argv[position], argv[position + 1 :]
        called = path.rpartition("/")[2]
        if not self._is_where_it_says(path):
            # It is opened later, by this path or along a search path: until then it can be swapped. At the entry of the
            # call its environment, by which it may only list, is not known yet.
            return [(File(path, -1, -1), (called, *arguments)), *([None] if facts.is_final else [])]
        try:
            status = os.stat(path)
        except OSError:
            return [None]
        return [(File(path, status.st_dev, status.st_ino, status.st_ctime_ns), (argv0 or called, *arguments))]

    def _decide(self, file: File, argv: tuple[str, ...], context: Context) -> ExecDecision:
        names = self._names(file)
        if file.inode < 0:
            names = frozenset({argv[0]})
        readings = other_readings(argv, names)
        if readings and argv[0].rpartition("/")[2] not in names:
            # It goes by no name of its own: it is what it makes of that.
            argv = readings[0]
        decision = self._decide_called(argv, file, names, context)
        if decision.verdict is Verdict.DENY:
            return decision
        if len(names) > 1 and not names & MULTI_CALL:
            # One program under several names: python3 is python3.11. A no that names one of them means the file.
            readings += [(name, *argv[1:]) for name in sorted(names)]
        for reading in readings:
            other = decide_exec(self._policy, reading, path=file.path, names={reading[0]}, context=context)
            says_no = other.verdict is not Verdict.ALLOW and other.rule is not None and bool(other.rule.programs)
            if says_no and strictest(decision.verdict, other.verdict) is not decision.verdict:
                decision = other
        return decision

    def _decide_called(
        self, argv: tuple[str, ...], file: File, names: frozenset[str], context: Context
    ) -> ExecDecision:
        decision = decide_exec(
            self._policy,
            argv,
            path=file.path,
            names=names,
            workspace_path=self._in_workspace(file.path),
            context=context,
        )
        called = argv[0].rpartition("/")[2] if argv else ""
        if decision.verdict is not Verdict.DENY or called in names or names & MULTI_CALL:
            return decision
        # A virtual environment's bin/python is python3.11, which a list calls python3. A rule that says no to one of
        # its names is asked about by the caller all the same.
        if not all(is_version_of(called, name) for name in names):
            return decision
        for name in sorted(names):
            as_named = decide_exec(self._policy, (name, *argv[1:]), path=file.path, names={name}, context=context)
            if as_named.verdict is Verdict.ALLOW:
                return as_named
        return decision

    def _names(self, file: File | None) -> frozenset[str]:
        if file is None:
            return frozenset()
        return self._trusted.names_of(file.identity, path=file.path, changed_ns=file.changed_ns)

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
            argv=_shown(facts.argv),
            because=_cut(because, _SHOWN_ARGUMENT_CHARS),
            rule=rule,
            place=place,
            interpreter="" if script is None or not facts.is_final else facts.file.path,
            inherits=inherits,
            names=tuple(sorted(self._names(file))) if is_named else (),
            is_named_no=is_named_no,
            file=_which(file, facts) if verdict is Verdict.ASK else (),
            words=(facts.argv if script is None else ("", *facts.script_arguments)) if verdict is Verdict.ASK else (),
        )


def _strictest(first: Judgement, other: Judgement | None) -> Judgement:
    """Return the stricter of two judgements, the first of equal ones."""
    if other is None or strictest(first.verdict, other.verdict) is first.verdict:
        return first
    return other


def _which(file: File | None, facts: ExecFacts) -> tuple[int | str, ...]:
    if file is None:
        return (facts.script.path if facts.script is not None else facts.file.path, *facts.file.identity)
    return (*file.identity, file.changed_ns)


def _applet(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the argument vector of the applet that a multi-call binary becomes; empty where it is none.

    By the name it is called by, or, called by its own, by its first argument (busybox.net, "Usage").
    """
    words = (argv[0].removeprefix("-"), *argv[1:])
    while words and words[0].rpartition("/")[2].startswith(tuple(_APPLET_HOSTS)):
        words = words[1:]
    if words and words[0].startswith(COREUTILS_OPTIONS):
        words = (words[0].partition("=")[2], *words[1:])
    return (words[0].rpartition("/")[2], *words[1:]) if words else ()


def _shown(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return as much of an argument vector as is kept: one program may bring megabytes."""
    if len(argv) <= _SHOWN_ARGUMENTS and sum(map(len, argv)) <= _SHOWN_ARGUMENT_CHARS:
        return argv
    shown: list[str] = []
    left = _SHOWN_CHARS
    for word in argv[:_SHOWN_ARGUMENTS]:
        cut = _cut(word, min(left, _SHOWN_ARGUMENT_CHARS))
        shown.append(cut)
        left -= len(cut)
        if left <= 0:
            break
    if len(shown) < len(argv):
        shown.append(f"… ({len(argv)} arguments)")
    return tuple(shown)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
