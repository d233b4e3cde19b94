"""Gate two's answer: whether a program that the kernel has just started may run with these arguments.

Asked with what is certain: the file that runs, the names under which the trusted path knows that very file, and the
argument vector as the kernel copied it. The answer is final: allow, deny or ask, never undecided. What a text could
leave open is known here; what is still in doubt (a denied command with its options moved) is denied.

Needs neither YAML nor the shell reader. Pure; runs in the monitor.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from guardhouse.policy.decision import strictest
from guardhouse.policy.destinations import Argument, why_connects_elsewhere
from guardhouse.policy.language import SEPARATOR
from guardhouse.policy.model import GATED, INHERIT, Children, Context, Policy, Rule
from guardhouse.policy.narrowing import all_must_allow
from guardhouse.policy.reordered import respelled_rules
from guardhouse.policy.rulebook import Match, Rulebook, action_of, rulebook_of
from guardhouse.policy.same_deed import OPERANDS_MAX, plainer_commands
from guardhouse.policy.subjects import without_dots
from guardhouse.values import Verdict

__all__ = ["ExecDecision", "decide_exec"]


@dataclass(frozen=True, slots=True)
class ExecDecision:
    """The answer for one exec. ``children`` is what the winning rule says of what this program starts."""

    verdict: Verdict
    rule: Rule | None
    because: str
    children: Children = GATED

    def joined(self, other: "ExecDecision") -> "ExecDecision":
        """Return what holds of two policies that answer alike: children are free only where both say so."""
        return self if self.children == other.children == INHERIT else replace(self, children=GATED)


@all_must_allow
def decide_exec(
    policy: Policy,
    argv: tuple[str, ...],
    *,
    path: str,
    names: Collection[str] = (),
    workspace_path: str | None = None,
    context: Context = Context(),  # noqa: B008 - frozen, without state
) -> ExecDecision:
    """Decide one exec.

    Args:
        argv: the argument vector; ``argv[0]`` is only used to choose among ``names``.
        path: absolute path of the file that runs, symbolic links resolved.
        names: plain names that resolve to this very file (device and inode) through the policy's trusted path;
            `Policy` rules name programs by them. A multi-call binary has many: the one it is called by counts,
            and where that is none of them every name must be allowed.
        workspace_path: ``./…`` relative to the workspace root for a file below it, for rules that name it so.
    """
    if not argv:
        return ExecDecision(Verdict.DENY, None, "an exec without any argument")
    called = argv[0].rpartition("/")[2]
    if called in names:
        return _decide_as((called, path), argv[1:], policy, context)
    if names:
        answers = [_decide_as((name, path), argv[1:], policy, context) for name in sorted(names)]
        worst = strictest(*(answer.verdict for answer in answers))
        return next(answer for answer in answers if answer.verdict is worst)
    paths = (path,) if workspace_path is None else (path, workspace_path)
    return _decide_as(paths, argv[1:], policy, context)


def _decide_as(names: tuple[str, ...], arguments: tuple[str, ...], policy: Policy, context: Context) -> ExecDecision:
    book = rulebook_of(policy)
    if book is None:
        return ExecDecision(Verdict.DENY, None, "the policy has no rules for commands")
    match = book.find((SEPARATOR.join((name, *arguments)) for name in names), context)
    shown = " ".join((names[0], *arguments))
    if match.winner is None:
        return ExecDecision(Verdict.DENY, None, f"no rule matches {shown!r}")
    because = f"{shown!r} matches {match.winner.says()}"
    if match.winner.action is Verdict.DENY:
        return ExecDecision(Verdict.DENY, match.winner, because)
    # What a person is asked about must not be what a rule denies in another spelling: the strictest answer counts.
    answer = ExecDecision(match.winner.action, match.winner, because, match.winner.children)
    meant = tuple(without_dots(argument) for argument in arguments)
    if meant != arguments:
        other = book.find((SEPARATOR.join((name, *meant)) for name in names), context)
        if action_of(other.winner) is not Verdict.ALLOW:
            reason = f"with '..' resolved it reads {' '.join((names[0], *meant))!r}, which is not allowed"
            answer = _stricter(answer, ExecDecision(action_of(other.winner), other.winner, reason))
    plain = names[0].rpartition("/")[2]
    respelled = _respelled(policy, book, plain, arguments, match, context)
    if respelled is not None:
        answer = _stricter(answer, respelled)
    if book.may_refuse_later(plain, match.position):
        commands = plainer_commands(plain, arguments, named=book.operands_named(plain))
        if commands is None:
            reason = f"a later rule could name any of its more than {OPERANDS_MAX} operands: give it fewer at a time"
            return ExecDecision(Verdict.DENY, match.winner, reason)
        for other_words in commands:
            answer = _stricter(answer, _plainer(policy, book, (names, other_words), match, context) or answer)
    if match.winner.action is Verdict.ALLOW and match.winner.is_glob:
        words = [Argument(argument) for argument in arguments]
        elsewhere = why_connects_elsewhere(match.winner.match, plain, words)
        if elsewhere:
            answer = _stricter(answer, ExecDecision(Verdict.DENY, match.winner, elsewhere))
    return answer


def _respelled(
    policy: Policy, book: Rulebook, program: str, arguments: tuple[str, ...], match: Match, context: Context
) -> ExecDecision | None:
    """What later rules say that mean this command with its options in other places; None where there is none."""
    subject = SEPARATOR.join((program, *arguments))
    found: ExecDecision | None = None
    for position, rule, spellings in respelled_rules(policy, program):
        if position > match.position and spellings.hold(subject) and rule in book.later_rules(match.position, context):
            reason = f"{' '.join((program, *arguments))!r} is {rule.says()} with its options in other places"
            decision = ExecDecision(rule.action, rule, reason)
            found = decision if found is None else _stricter(found, decision)
    return found


def _plainer(
    policy: Policy,
    book: Rulebook,
    command: tuple[tuple[str, ...], tuple[str, ...]],
    match: Match,
    context: Context,
) -> ExecDecision | None:
    """What later rules say of a plainer command that this one does as well; None where they say nothing."""
    names, arguments = command
    other = book.find((SEPARATOR.join((name, *arguments)) for name in names), context)
    plain = names[0].rpartition("/")[2]
    if other.winner is not None and other.position > match.position and other.winner.action is not Verdict.ALLOW:
        reason = f"it does what {' '.join((plain, *arguments))!r} does, and that matches {other.winner.says()}"
        return ExecDecision(other.winner.action, other.winner, reason)
    return _respelled(policy, book, plain, arguments, match, context)


def _stricter(first: ExecDecision, other: ExecDecision) -> ExecDecision:
    """Return the stricter of two answers, the first of equal ones."""
    return first if strictest(first.verdict, other.verdict) is first.verdict else other
