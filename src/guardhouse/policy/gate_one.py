"""Gate one: a shell text against a policy.

The reader says what a text runs, writes and sets; the judge says what the rules make of each command; here they
become one verdict: deny before ask before undecided before allow. A command that is literally there and denied is
denied at once, whatever else in the text is not known. What the reader could not account for is undecided, save
under a policy that gives one answer to everything.

Reads no clock, file or network: what a decision depends on is in its arguments. Pure.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from guardhouse.policy.decision import CommandDecision, Concern, Decision, strictest
from guardhouse.policy.judge import Judge
from guardhouse.policy.knowledge import why_gates_miss
from guardhouse.policy.model import Context, Policy, Rule
from guardhouse.policy.narrowing import join_decisions
from guardhouse.policy.rulebook import action_of, rulebook_of
from guardhouse.policy.shadow import shadow_record
from guardhouse.policy.shell import Assignment, Redirection, ShellReading, SimpleCommand, read_command
from guardhouse.policy.subjects import normalise_subject
from guardhouse.values import Verdict

__all__ = ["PROFILES_BY_WIDTH", "ShellReader", "decide"]

ShellReader = Callable[[str], ShellReading]

# From the narrowest wall to the widest (ARCHITECTURE "The wall"): of several that rules ask for, the narrowest holds.
PROFILES_BY_WIDTH: Final = ("isolate", "observe", "operate")
# Targets of writes that reach no file of the host. /tmp is the command's own (sandbox profiles).
_HARMLESS_TARGETS: Final = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty", "/dev/zero", "/dev/full"})


def decide(
    policy: Policy,
    command_text: str,
    *,
    context: Context = Context(),  # noqa: B008 - frozen, without state
    reader: ShellReader = read_command,
) -> Decision:
    """Decide a shell text under a policy, those that narrow it, and its shadow, which decides nothing.

    Args:
        command_text: what ``bash -c`` would be given.
        context: what is known of the request beside the text; rules with conditions ask it.
        reader: gate one's shell reader; another one in tests.
    """
    # execve(2) ends the text at a NUL: bash would run another text than the one judged.
    reading = None if "\0" in command_text else reader(command_text)
    decision = _decide_reading(policy, command_text, reading, context)
    for layer in policy.layers[1:]:
        other = _decide_reading(layer, command_text, reading, context)
        profile, clash = _narrowest_profile({one.profile for one in (decision, other) if one.profile is not None})
        decision = join_decisions(decision, other, profile=profile, clash=clash)
    if policy.shadow is not None:
        shadow = _decide_reading(policy.shadow, command_text, reading, context)
        decision = replace(decision, shadow=shadow_record(decision.verdict, policy.shadow, shadow))
    return decision


def _decide_reading(policy: Policy, command_text: str, reading: ShellReading | None, context: Context) -> Decision:
    judge = Judge(policy, context)
    if reading is None:
        return _answer(policy, command_text, (), (), override=(Verdict.DENY, "the text holds a NUL character"))
    if reading.is_empty:
        return _answer(policy, command_text, (), (), override=(Verdict.DENY, "empty command"))
    unwrapped = _Unwrapped(reading.commands)
    commands = tuple(judge.judge(command, is_unwrapped=unwrapped.shows(command)) for command in reading.commands)
    concerns = (
        *_judge_redirections(policy, reading, judge, context),
        *_judge_assignments(policy, reading, judge, context),
        *_judge_unread(policy, reading, judge),
    )
    override = None
    if judge.denies_everything:
        override = (Verdict.DENY, "the policy denies every command")
    return _answer(policy, command_text, commands, concerns, override=override)


def _answer(
    policy: Policy,
    command_text: str,
    commands: tuple[CommandDecision, ...],
    concerns: tuple[Concern, ...],
    *,
    override: tuple[Verdict, str] | None,
) -> Decision:
    parts: Sequence[CommandDecision | Concern] = (*commands, *concerns)
    verdict = strictest(*(part.verdict for part in parts))
    because = next((part.because for part in parts if part.verdict is verdict), "every part is allowed")
    rules = [command.rule for command in commands if command.rule is not None]
    profile, clash = _narrowest_profile({rule.profile for rule in rules if rule.profile is not None})
    if clash and verdict is not Verdict.DENY:
        verdict, because = Verdict.DENY, clash
    if override is not None and verdict is not override[0]:
        verdict, because = override
    elif verdict is Verdict.ALLOW:
        because = "every part is allowed"
    return Decision(
        command=command_text,
        verdict=verdict,
        commands=commands,
        because=because,
        policy_name=policy.name,
        policy_digest=policy.digest,
        concerns=concerns,
        profile=profile,
        timeout_s=min((rule.timeout_s for rule in rules if rule.timeout_s is not None), default=None),
    )


def _narrowest_profile(asked: set[str]) -> tuple[str | None, str | None]:
    """The narrowest of the profiles asked for, or why they cannot be had together."""
    profiles = sorted(asked)
    if len(profiles) <= 1:
        return (profiles[0] if profiles else None), None
    unknown = [profile for profile in profiles if profile not in PROFILES_BY_WIDTH]
    if unknown:
        return None, f"its commands ask for the profiles {', '.join(profiles)}, which cannot be had together"
    return min(profiles, key=PROFILES_BY_WIDTH.index), None


class _Unwrapped:
    """The commands that the reader found behind others, by where they begin: a text may hold thousands."""

    def __init__(self, commands: Sequence[SimpleCommand]) -> None:
        self._inner = sorted((command for command in commands if command.via), key=lambda command: command.span[0])
        self._starts = [command.span[0] for command in self._inner]

    def shows(self, command: SimpleCommand) -> bool:
        """Whether the reader lists what this command starts: a command reached through it, within its words."""
        if not self._inner:
            return False
        name = (command.words[0].value or "").rpartition("/")[2]
        depth = len(command.via)
        start, end = command.span
        return any(
            other is not command
            and len(other.via) > depth
            and other.via[:depth] == command.via
            and _is_wrapper_step(other.via[depth], name)
            and other.span[1] <= end
            for other in self._inner[bisect_left(self._starts, start) : bisect_right(self._starts, end)]
        )


def _is_wrapper_step(step: str, name: str) -> bool:
    return bool(name) and name in step.split()


def _judge_redirections(policy: Policy, reading: ShellReading, judge: Judge, context: Context) -> list[Concern]:
    concerns = [_judge_redirection(policy, redirection, judge, context) for redirection in reading.all_redirections()]
    writes = [
        redirection for redirection in reading.redirections if redirection.kind in ("write", "append", "read_write")
    ]
    if writes and not reading.commands:
        # `> file` by itself: no command stands there that a rule could allow.
        concerns.append(
            Concern(
                kind="redirection",
                text=reading.text,
                verdict=judge.unnamed(),
                span=writes[0].span,
                because="a redirection without a command: no rule can name it",
            )
        )
    return [concern for concern in concerns if concern is not None]


def _judge_redirection(policy: Policy, redirection: Redirection, judge: Judge, context: Context) -> Concern | None:
    if redirection.kind in ("dup", "heredoc", "herestring"):
        return None
    target = redirection.target
    text = f"{redirection.operator} {target.text}" if target else redirection.operator
    value = target.value if target else None
    if redirection.network:
        certain = value is not None
        because = "bash itself opens a network connection" if certain else "bash itself may open a network connection"
        verdict = judge.unnamed()
        if verdict is Verdict.DENY and not certain:
            verdict = Verdict.UNDECIDED
        return Concern(
            kind="redirection", text=text, verdict=verdict, span=redirection.span, because=f"{text!r}: {because}"
        )
    operations = {"read": ("read",), "read_write": ("read", "write")}.get(redirection.kind, ("write",))
    verdict, because, rule = Verdict.ALLOW, "", None
    for operation in operations:
        found = _judge_path(policy, operation, value, judge, context)
        if strictest(verdict, found[0]) is not verdict or not because:
            verdict, because, rule = found
    return Concern(
        kind="redirection", text=text, verdict=verdict, span=redirection.span, because=f"{text!r}: {because}", rule=rule
    )


def _judge_path(
    policy: Policy, operation: str, path: str | None, judge: Judge, context: Context
) -> tuple[Verdict, str, Rule | None]:
    book = rulebook_of(policy, operation)
    if book is None:
        if operation == "read" or judge.allows_everything:
            return Verdict.ALLOW, f"no rules for {operation}: the wall decides", None
        if path is not None and _stays_inside(path):
            return Verdict.ALLOW, "a file of the workspace, /tmp or no file at all", None
        return Verdict.UNDECIDED, "outside the workspace and /tmp, or not known: the wall decides", None
    if path is None:
        verdicts = book.verdicts_overall(context)
        if len(verdicts) == 1:
            return next(iter(verdicts)), f"every {operation} gets the same answer", None
        return Verdict.UNDECIDED, "the file is not known from the text", None
    if path in _HARMLESS_TARGETS:
        return Verdict.ALLOW, "no file at all", None
    subject = normalise_subject(operation, path)
    match = book.find([subject] if subject is not None else [], context)
    if match.winner is None:
        return Verdict.DENY, f"no {operation} rule matches {path!r}", None
    return match.winner.action, f"matches the {operation} rule {match.winner.says()}", match.winner


def _stays_inside(path: str) -> bool:
    if path in _HARMLESS_TARGETS or path.startswith("/dev/fd/"):
        return True
    if not path or ".." in path.split("/"):
        return False
    return not path.startswith(("/", "~")) or path.startswith("/tmp/")  # noqa: S108 - the command's own /tmp


def _judge_assignments(policy: Policy, reading: ShellReading, judge: Judge, context: Context) -> list[Concern]:
    concerns = []
    for assignment in reading.all_assignments():
        concern = _judge_assignment(policy, assignment, judge, context)
        if concern is not None:
            concerns.append(concern)
    return concerns


def _judge_assignment(policy: Policy, assignment: Assignment, judge: Judge, context: Context) -> Concern | None:
    book = rulebook_of(policy, "variable")
    value = assignment.value.value if assignment.value else None
    text = f"{assignment.name}={assignment.value.text if assignment.value else '(…)'}"
    if book is not None and value is not None:
        match = book.find([f"{assignment.name}={value}"], context)
        if match.winner is not None:
            return Concern(
                kind="assignment",
                text=text,
                verdict=action_of(match.winner),
                span=assignment.span,
                because=f"{text!r} matches the variable rule {match.winner.says()}",
                rule=match.winner,
            )
    why = why_gates_miss(assignment.name)
    if why is None:
        return None
    return Concern(kind="assignment", text=text, verdict=judge.unnamed(), span=assignment.span, because=why)


def _judge_unread(policy: Policy, reading: ShellReading, judge: Judge) -> list[Concern]:
    verdict = Verdict.ALLOW if judge.allows_everything else Verdict.UNDECIDED
    accepted = _accepted_assignments(policy, reading)
    # What the reader says of one command as a whole, the judge has weighed with that command's rule.
    weighed = {(command.span, command.undecided_because) for command in reading.commands}
    return [
        Concern(
            kind="unread",
            text=reading.text[slice(*part.span)],
            verdict=verdict,
            span=part.span,
            because=part.because,
        )
        for part in reading.undecided
        if part.span not in accepted and (part.span, part.because) not in weighed
    ]


def _accepted_assignments(policy: Policy, reading: ShellReading) -> set[tuple[int, int]]:
    """Places of assignments that a variable rule of the document allows: its author answers for what they change."""
    book = rulebook_of(policy, "variable")
    if book is None:
        return set()
    accepted = set()
    for assignment in reading.all_assignments():
        value = assignment.value.value if assignment.value else None
        if value is None:
            continue
        winner = book.find([f"{assignment.name}={value}"], Context()).winner
        if winner is not None and winner.action is Verdict.ALLOW:
            accepted.add(assignment.span)
    return accepted
