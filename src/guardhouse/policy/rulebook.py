"""A section's rules made ready to answer: the last match for a subject, or every possible last match.

Knows rules and conditions; knows no shell and no program. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from weakref import WeakKeyDictionary

from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.decision import strictest
from guardhouse.policy.language import ANYTHING, Language, is_anything
from guardhouse.policy.matcher import Matcher
from guardhouse.policy.model import Condition, Context, Policy, Rule
from guardhouse.policy.possible import NO_RULE, fixed_program, possible_winners
from guardhouse.policy.same_deed import operand_text
from guardhouse.policy.subjects import parse_subject_pattern
from guardhouse.values import Verdict

__all__ = ["Match", "Rulebook", "action_of", "rulebook_of"]

# Above this many rules the question "does any text get another answer" is answered from the actions alone.
_EXACT_OVERALL_MAX_RULES: Final = 300


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that decides, or None when none matches, and every rule that matches in written order."""

    winner: Rule | None
    position: int
    tried: tuple[Rule, ...]


# No program's name: a rule whose first word is open.
_ANY_PROGRAM: Final = ""
_BOOKS: Final[WeakKeyDictionary[Policy, dict[str, "Rulebook"]]] = WeakKeyDictionary()


def rulebook_of(policy: Policy, operation: str = "bash") -> "Rulebook | None":
    """Return an operation's compiled rules, built at the first use and kept as long as the policy.

    None when the document has no section for it. ``bash`` always has one: without a section it denies everything.
    """
    books = _BOOKS.get(policy)
    if books is None:
        books = _BOOKS[policy] = {}
    if operation not in books:
        if operation not in policy.sections and operation != "bash":
            return None
        books[operation] = Rulebook(policy.rules(operation))
    return books[operation]


def action_of(rule: Rule | None) -> Verdict:
    """The rule's action; no rule denies."""
    return rule.action if rule is not None else Verdict.DENY


class Rulebook:
    """The rules of one operation, compiled once for a policy's life."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._languages: tuple[Language, ...] = tuple(rule.language for rule in rules)
        self._everything = list(range(len(self.rules)))
        self._has_conditions = any(rule.when for rule in rules)
        self._operands_named: dict[str, tuple[str, ...]] = {}
        self._overall: dict[tuple[bool | None, ...] | None, frozenset[Verdict]] = {}

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self._languages)

    def find(self, subjects: Iterable[str], context: Context) -> Match:
        """Return the last rule that matches any of the subjects (one thing under each of its names).

        Where a rule's condition is not known, the strictest answer over both possibilities wins.
        """
        positions = sorted({index for subject in subjects for index in self._matcher.matches(subject)})
        if not self._has_conditions:
            tried = tuple(self.rules[index] for index in positions)
            last = positions[-1] if positions else NO_RULE
            return Match(self.rules[last] if positions else None, last, tried)
        states = {index: _holds(self.rules[index].when, context) for index in positions}
        applying = [index for index in positions if states[index] is not False]
        possible: list[int] = []
        for index in reversed(applying):
            possible.append(index)
            if states[index]:
                break
        else:
            possible.append(NO_RULE)
        answer = strictest(*(self._action_at(index) for index in possible))
        winner = next(index for index in possible if self._action_at(index) is answer)
        tried = tuple(self.rules[index] for index in applying)
        return Match(self.rules[winner] if winner != NO_RULE else None, winner, tried)

    def find_possible(self, command: Language, context: Context) -> list[Rule | None]:
        """Return every rule that decides some text of ``command``; None among them where some text matches none.

        Raises:
            TooManySteps: the answer would take too long.
        """
        near = self._near(command)
        active, uncertain = self._active(context)
        if near is not None:
            active = sorted(near) if active is self._everything else [index for index in active if index in near]
        found = possible_winners(
            command,
            [self._languages[index] for index in active],
            uncertain={place for place, index in enumerate(active) if index in uncertain},
        )
        winners = sorted(active[place] if place != NO_RULE else NO_RULE for place in found)
        return [self.rules[index] if index != NO_RULE else None for index in winners]

    @cached_property
    def _by_program(self) -> tuple[dict[str, set[int]], set[int]]:
        """Positions of the rules that fix their program's name as written, and of all the others."""
        named: dict[str, set[int]] = {}
        open_rules: set[int] = set()
        for index, language in enumerate(self._languages):
            program = fixed_program(language)
            if program is None:
                open_rules.add(index)
            else:
                named.setdefault(program, set()).add(index)
        return named, open_rules

    def _near(self, command: Language) -> set[int] | None:
        """The rules that a command with a known program can match; None when its program is not known."""
        program = fixed_program(command)
        if program is None:
            return None
        named, open_rules = self._by_program
        return open_rules | named.get(program, set())

    def verdicts_overall(self, context: Context) -> frozenset[Verdict]:
        """Return verdicts that subjects get: one alone means that the section says only that, two that it does not."""
        key = tuple(_holds(rule.when, context) for rule in self.rules) if self._has_conditions else None
        if key not in self._overall:
            self._overall[key] = self._compute_overall(context)
        return self._overall[key]

    def position(self, rule: Rule | None) -> int:
        """Where a rule of this book stands; `NO_RULE` for none."""
        return NO_RULE if rule is None else self._positions[id(rule)]

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {id(rule): index for index, rule in enumerate(self.rules)}

    def allows_everything(self, context: Context) -> bool:
        """Whether every subject whatever is allowed."""
        return self.verdicts_overall(context) == {Verdict.ALLOW}

    def denies_everything(self, context: Context) -> bool:
        """Whether no subject is allowed or asked about."""
        return self.verdicts_overall(context) == {Verdict.DENY}

    def may_refuse_later(self, program: str, position: int) -> bool:
        """Whether a rule behind ``position`` that does not allow could be about the program."""
        return max(self._last_refusal.get(program, NO_RULE), self._last_refusal.get(_ANY_PROGRAM, NO_RULE)) > position

    def operands_named(self, program: str) -> tuple[str, ...]:
        """The texts by which rules that do not allow name an operand of the program (`same_deed.operand_text`)."""
        found = self._operands_named.get(program)
        if found is None:
            texts = [
                operand_text(rule.match) if rule.is_glob else ""
                for rule in self.rules
                if rule.action is not Verdict.ALLOW
                and (not rule.programs or any(name.rpartition("/")[2] == program for name in rule.programs))
            ]
            found = self._operands_named[program] = tuple({text for text in texts if text is not None})
        return found

    @cached_property
    def _last_refusal(self) -> dict[str, int]:
        """Each plain name, to the last rule about it that does not allow."""
        return {
            name.rpartition("/")[2]: at
            for at, rule in enumerate(self.rules)
            if rule.action is not Verdict.ALLOW
            for name in rule.programs or (_ANY_PROGRAM,)
        }

    def later_rules(self, position: int, context: Context) -> list[Rule]:
        """The rules behind a position that apply, or may."""
        return [
            rule for rule in self.rules[position + 1 :] if rule.when is None or _holds(rule.when, context) is not False
        ]

    def _action_at(self, index: int) -> Verdict:
        return action_of(self.rules[index] if index != NO_RULE else None)

    def _active(self, context: Context) -> tuple[list[int], frozenset[int]]:
        """The rules that apply or may, in order; and those of which it is not known."""
        if not self._has_conditions:
            return self._everything, frozenset()
        states = [_holds(rule.when, context) for rule in self.rules]
        unknown = frozenset(index for index, state in enumerate(states) if state is None)
        return [index for index, state in enumerate(states) if state is not False], unknown

    def _compute_overall(self, context: Context) -> frozenset[Verdict]:
        active, uncertain = self._active(context)
        always = max(
            (index for index in active if index not in uncertain and is_anything(self._languages[index])),
            default=NO_RULE,
        )
        live = [index for index in active if index >= always]
        actions = {self._action_at(index) for index in live} | ({Verdict.DENY} if always == NO_RULE else set())
        if len(actions) > 1 and len(live) <= _EXACT_OVERALL_MAX_RULES:
            actions = self._exact_overall(live, uncertain, actions)
        return frozenset(actions)

    def _exact_overall(self, live: list[int], uncertain: frozenset[int], actions: set[Verdict]) -> set[Verdict]:
        def actions_of(winners: set[int]) -> set[Verdict]:
            return {self._action_at(live[index]) if index != NO_RULE else Verdict.DENY for index in winners}

        try:
            found = possible_winners(
                ANYTHING,
                [self._languages[index] for index in live],
                uncertain={place for place, index in enumerate(live) if index in uncertain},
                is_enough=lambda winners: len(actions_of(winners)) > 1,
            )
        except TooManySteps:
            return actions
        return actions_of(found)


def _holds(condition: Condition | None, context: Context) -> bool | None:
    """Whether a rule's condition holds; None when the context does not say."""
    if condition is None:
        return True
    parts: list[bool | None] = []
    if condition.environment:
        parts.append(None if context.environment is None else condition.environment <= context.environment)
    if condition.requester:
        parts.append(None if context.requester is None else _one_matches(condition.requester, context.requester))
    if condition.hours or condition.days:
        parts.append(None if context.now is None else _time_matches(condition, context))
    if condition.arguments:
        parts.append(None if context.arguments is None else _arguments_match(condition.arguments, context.arguments))
    if False in parts:
        return False
    return None if None in parts else True


def _arguments_match(wanted: tuple[tuple[str, tuple[str, ...]], ...], arguments: Mapping[str, str]) -> bool:
    return all(name in arguments and _one_matches(patterns, arguments[name]) for name, patterns in wanted)


def _one_matches(patterns: tuple[str, ...], text: str) -> bool:
    return bool(Matcher([parse_subject_pattern("skill", pattern) for pattern in patterns]).matches(text))


def _time_matches(condition: Condition, context: Context) -> bool:
    now = context.now
    if now is None:
        return False
    day = now.isoweekday()
    if condition.hours is None:
        return day in condition.days
    first, last = condition.hours
    minute = now.hour * 60 + now.minute
    if first < last:
        return first <= minute < last and (not condition.days or day in condition.days)
    # Past midnight the hours still belong to the day on which they began.
    if minute >= first:
        return not condition.days or day in condition.days
    yesterday = 7 if day == 1 else day - 1
    return minute < last and (not condition.days or yesterday in condition.days)
