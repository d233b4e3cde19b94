"""What changes from one policy to another, proved by comparing the languages of their rules.

Every difference comes with a shortest witness: a command (or path, URL, tool) on which the two answer differently.
``widens`` is the question a runner asks before it takes a policy from its hub: does the new one permit anything that
the old one does not? The answer is exact for what rules match; what gate one doubts beyond its rules (an interpreter,
an unknown word) only ever makes it stricter, under both policies alike.

Knows nothing of shells or files. Pure.
"""

import shlex
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from guardhouse.limits import POLICY_COMPARE_MAX_STEPS
from guardhouse.policy.automaton import Machine, State, TooManySteps
from guardhouse.policy.language import ANYTHING, SEPARATOR, WORD_CHAR, Chars, Language, Repeat, choice, concat, optional
from guardhouse.policy.model import GATED, OPERATIONS, Condition, Policy, PolicyError, Rule
from guardhouse.policy.rule_fields import expanded_language
from guardhouse.policy.subjects import safe_segment
from guardhouse.values import Verdict

__all__ = ["Answer", "Difference", "check_narrowing", "compare_policies", "narrows", "subject_space"]

_CONDITIONS_MAX: Final = 6
_ORDER: Final = (Verdict.DENY, Verdict.ASK, Verdict.ALLOW)
_PROFILES_BY_WIDTH: Final = ("isolate", "observe", "operate")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one policy says of a subject: the action, and the strings attached to it."""

    action: Verdict
    profile: str | None = None
    timeout_s: float | None = None
    children: str = GATED

    def shown(self) -> str:
        """Return the answer in a few words."""
        extras = [f"profile {self.profile}"] if self.profile else []
        extras += [f"timeout {self.timeout_s:g}s"] if self.timeout_s else []
        extras += ["children inherit"] if self.children != GATED else []
        return " ".join([self.action.value, *([f"({', '.join(extras)})"] if extras else [])])


_DENIED: Final = Answer(Verdict.DENY)


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which two policies differ, with a shortest subject that shows it.

    ``witness`` is shell text for commands, the subject itself otherwise. ``widens``: the second policy permits more.
    ``conditions`` are those that must hold for the difference to show.
    """

    operation: str
    before: Answer
    after: Answer
    witness: str
    widens: bool
    before_rule: Rule | None = None
    after_rule: Rule | None = None
    conditions: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "operation": self.operation,
            "before": self.before.shown(),
            "after": self.after.shown(),
            "witness": self.witness,
            "widens": self.widens,
            "before_rule": self.before_rule.says() if self.before_rule else None,
            "after_rule": self.after_rule.says() if self.after_rule else None,
            "conditions": list(self.conditions),
        }


def compare_policies(
    before: Policy, after: Policy, *, max_steps: int = POLICY_COMPARE_MAX_STEPS
) -> tuple[Difference, ...]:
    """Return every kind of difference between two policies, each with a shortest witness, operations in order.

    Raises:
        PolicyError: the comparison is too large to finish; the message says what to split.
    """
    differences: list[Difference] = []
    if before.trusted_path != after.trusted_path:
        differences.append(_path_difference(before, after))
    for operation in OPERATIONS:
        if before.sections.get(operation) or after.sections.get(operation) or operation == "bash":
            differences += _compare_operation(operation, before, after, max_steps)
    return tuple(differences)


def narrows(before: Policy, after: Policy) -> tuple[Difference, ...]:
    """Return what ``after`` permits beyond ``before``: nothing, where it only narrows.

    Raises:
        PolicyError: the comparison could not finish, so nothing is proved.
    """
    return tuple(difference for difference in compare_policies(before, after) if difference.widens)


def check_narrowing(local: Policy, sent: Policy) -> None:
    """Let a policy pass that permits nothing beyond the local one.

    Raises:
        PolicyError: it permits more, with a shortest command that shows it; or the comparison could not finish.
    """
    if sent.trusted_path != local.trusted_path:
        raise PolicyError(
            f"its 'path' is another than this host's ({':'.join(local.trusted_path)}); programs would be other files",
            place=sent.name,
        )
    for found in narrows(local, sent):
        when = f" when {'; '.join(found.conditions)}" if found.conditions else ""
        raise PolicyError(
            f"it permits more than this host's own policy: {found.operation}: {found.before.shown()} here,"
            f" {found.after.shown()} there{when}, for example: {found.witness}",
            place=found.after_rule.place if found.after_rule is not None else sent.name,
        )


def _path_difference(before: Policy, after: Policy) -> Difference:
    added = [directory for directory in after.trusted_path if directory not in before.trusted_path]
    gone = [directory for directory in before.trusted_path if directory not in after.trusted_path]
    return Difference(
        operation="path",
        before=_DENIED,
        after=_DENIED,
        witness=":".join(added or gone or after.trusted_path),
        widens=bool(added) or before.trusted_path[: len(after.trusted_path)] != after.trusted_path,
    )


def _rules(policy: Policy, operation: str) -> list[tuple[Rule | None, Language]]:
    """The rules with their full languages; an operation without a section is left to the wall, so it is allowed."""
    if operation not in policy.sections and operation != "bash":
        return [(None, ANYTHING)]
    return [(rule, expanded_language(rule, policy.trusted_path)) for rule in policy.rules(operation)]


def _answer(rule: Rule | None, *, has_rule: bool) -> Answer:
    if rule is None:
        return Answer(Verdict.ALLOW) if has_rule else _DENIED
    if rule.action is Verdict.DENY:
        return _DENIED
    return Answer(rule.action, rule.profile, rule.timeout_s, rule.children)


def _compare_operation(operation: str, before: Policy, after: Policy, max_steps: int) -> Iterator[Difference]:
    old, new = _rules(before, operation), _rules(after, operation)
    conditions = _conditions(rule for rule, _ in (*old, *new))
    if len(conditions) > _CONDITIONS_MAX:
        raise PolicyError(
            f"the rules of {operation} have {len(conditions)} different conditions; at most {_CONDITIONS_MAX} can be"
            " compared",
            place=after.name,
        )
    seen: set[tuple[Answer, Answer]] = set()
    for truth in product((True, False), repeat=len(conditions)):
        holding = [condition for condition, holds in zip(conditions, truth, strict=True) if holds]
        applies = _applies(holding)
        sides = [[entry for entry in side if applies(entry[0])] for side in (old, new)]
        try:
            found = list(_walk(subject_space(operation), sides[0], sides[1], max_steps))
        except TooManySteps:
            raise PolicyError(
                f"the rules of {operation} are too many to compare within {max_steps} steps; compare the sections"
                " that changed by themselves",
                place=after.name,
            ) from None
        for witness, first, second in found:
            pair = (_answer_at(sides[0], first), _answer_at(sides[1], second))
            if pair in seen:
                continue
            seen.add(pair)
            yield Difference(
                operation=operation,
                before=pair[0],
                after=pair[1],
                witness=_show_witness(operation, witness),
                widens=_is_wider(*pair),
                before_rule=sides[0][first][0] if first >= 0 else None,
                after_rule=sides[1][second][0] if second >= 0 else None,
                conditions=tuple(_show_condition(condition) for condition in holding),
            )


def _conditions(rules: Iterator[Rule | None]) -> list[Condition]:
    return list(dict.fromkeys(rule.when for rule in rules if rule is not None and rule.when is not None))


def _applies(holding: Sequence[Condition]) -> Callable[[Rule | None], bool]:
    return lambda rule: rule is None or rule.when is None or rule.when in holding


def _answer_at(side: Sequence[tuple[Rule | None, Language]], index: int) -> Answer:
    return _answer(side[index][0], has_rule=True) if index >= 0 else _DENIED


def _walk(
    space: Language,
    old: Sequence[tuple[Rule | None, Language]],
    new: Sequence[tuple[Rule | None, Language]],
    max_steps: int,
) -> Iterator[tuple[str, int, int]]:
    """Breadth first over the product of all rules: yields the first text for each differing pair of answers."""
    machine = Machine(
        [space, *(language for _, language in old), *(language for _, language in new)], max_steps=max_steps
    )
    border = 1 + len(old)
    start = _prune(machine, machine.start_state(), border)
    parents: dict[State, tuple[State, str] | None] = {start: None}
    queue: deque[State] = deque([start])
    seen: set[tuple[Answer, Answer]] = set()
    while queue:
        state = queue.popleft()
        accepted = machine.accepting(state)
        if 0 in accepted:
            first = max((owner for owner in accepted if 0 < owner < border), default=0) - 1
            second = max((owner for owner in accepted if owner >= border), default=border - 1) - border
            pair = (_answer_at(old, first), _answer_at(new, second))
            if pair[0] != pair[1] and pair not in seen:
                seen.add(pair)
                yield _text_to(parents, state), first, second
        if _is_settled(machine, state, border, old, new):
            continue
        for char in machine.alphabet(state):
            following = _prune(machine, machine.step(state, char), border)
            if following not in parents and 0 in machine.live(following):
                parents[following] = (state, char)
                queue.append(following)


def _is_settled(
    machine: Machine,
    state: State,
    border: int,
    old: Sequence[tuple[Rule | None, Language]],
    new: Sequence[tuple[Rule | None, Language]],
) -> bool:
    """Whether both sides give one and the same answer to everything that begins like this."""
    always = machine.universal(state)
    live = machine.live(state) - {0}
    first, second = {owner for owner in live if owner < border}, {owner for owner in live if owner >= border}
    answers = {_answer_at(old, owner - 1) for owner in first} | {_answer_at(new, owner - border) for owner in second}
    if not first:
        answers.add(_DENIED)
    if not second:
        answers.add(_DENIED)
    covered = (not first or bool(first & always)) and (not second or bool(second & always))
    if not covered and answers != {_DENIED}:
        return False
    return len(answers) == 1


def _prune(machine: Machine, state: State, border: int) -> State:
    """Forget, on each side, rules that a later one outranks from here on."""
    universal = machine.universal(state)
    old = max((owner for owner in universal if 0 < owner < border), default=0)
    new = max((owner for owner in universal if owner >= border), default=0)
    if not old and not new:
        return state
    return machine.without(state, lambda owner: 0 < owner < old if owner < border else owner < new)


def _text_to(parents: dict[State, tuple[State, str] | None], state: State) -> str:
    chars: list[str] = []
    step = parents[state]
    while step is not None:
        chars.append(step[1])
        step = parents[step[0]]
    return "".join(reversed(chars))


def _is_wider(before: Answer, after: Answer) -> bool:
    if _ORDER.index(after.action) != _ORDER.index(before.action):
        return _ORDER.index(after.action) > _ORDER.index(before.action)
    if after.children != before.children and after.children != GATED:
        return True
    if before.timeout_s is not None and (after.timeout_s is None or after.timeout_s > before.timeout_s):
        return True
    return after.profile != before.profile and not _is_narrower_profile(before.profile, after.profile)


def _is_narrower_profile(before: str | None, after: str | None) -> bool:
    if before not in _PROFILES_BY_WIDTH or after not in _PROFILES_BY_WIDTH:
        return False
    return _PROFILES_BY_WIDTH.index(after) < _PROFILES_BY_WIDTH.index(before)


def _show_witness(operation: str, witness: str) -> str:
    return shlex.join(witness.split(SEPARATOR)) if operation == "bash" else witness


def _show_condition(condition: Condition) -> str:
    parts = [f"environment {' '.join(sorted(condition.environment))}"] if condition.environment else []
    parts += [f"requester {' '.join(condition.requester)}"] if condition.requester else []
    if condition.hours:
        first, last = condition.hours
        parts.append(f"{first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}")
    parts += [f"days {' '.join(str(day) for day in sorted(condition.days))}"] if condition.days else []
    parts += [f"argument {name} {' '.join(patterns)}" for name, patterns in condition.arguments]
    return ", ".join(parts)


def subject_space(operation: str) -> Language:
    """Every subject that the operation's rules can be asked about, in normal form."""
    part = Repeat(Chars(frozenset("/" + SEPARATOR), negated=True), 1)
    match operation:
        case "bash":
            # No program's name ends in a slash: that is a directory.
            program = concat([Repeat(WORD_CHAR), Chars(frozenset("/" + SEPARATOR), negated=True)])
            return concat([program, optional(concat([SEPARATOR, ANYTHING]))])
        case "read" | "write" | "list" | "grep":
            path = concat([safe_segment(with_dot=False), Repeat(concat(["/", safe_segment(with_dot=False)]))])
            return choice([path, concat(["/", path]), "/", ".", concat(["../", path]), ".."])
        case "mcp":
            return concat([part, "/", part])
        case "webfetch" | "egress":
            letters = Repeat(Chars(frozenset("abcdefghijklmnopqrstuvwxyz")), 1)
            host = Repeat(Chars(frozenset("/:@?#[] " + SEPARATOR), negated=True), 1)
            digits = Repeat(Chars(frozenset("0123456789")), 1)
            return concat([letters, "://", host, ":", digits, "/", ANYTHING])
        case "variable":
            name = Repeat(Chars(frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789")), 1)
            return concat([name, "=", ANYTHING])
        case _:
            return Repeat(WORD_CHAR, 1)
