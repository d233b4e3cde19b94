"""Every answer that a list of rules can give over all values of unknown words: exact, by automata.

A command with unknown words is a language of its own. A rule wins somewhere in it when some text of it matches the
rule and no later one. Quick tests on literal beginnings settle nearly every rule; the rest is one walk over the
product of the command's automaton and the rules'.

Knows nothing of shells. Pure.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence

from guardhouse.limits import POLICY_UNKNOWN_MAX_STEPS
from guardhouse.policy.automaton import Machine, State
from guardhouse.policy.language import ANYTHING, SEPARATOR, Language, literal_prefix
from guardhouse.policy.patterns import OPTIONAL_ARGUMENTS

__all__ = ["NO_RULE", "fixed_program", "possible_winners"]

# Stands for "no rule matches" among the winners.
NO_RULE = -1


def possible_winners(
    command: Language,
    rules: Sequence[Language],
    *,
    uncertain: Collection[int] = frozenset(),
    max_steps: int = POLICY_UNKNOWN_MAX_STEPS,
    is_enough: Callable[[set[int]], bool] = lambda winners: False,  # noqa: ARG005 - never enough
) -> set[int]:
    """Return the index of every rule that is the last match of some text of ``command``; `NO_RULE` for none.

    ``uncertain`` are the indices of rules of which nobody knows whether they apply: each may win, and each may leave
    the answer to the one before. ``is_enough`` may end the search early, when the winners so far answer the caller's
    question.

    Raises:
        TooManySteps: the bound was reached before the answer was certain.
    """
    candidates = _candidates(command, rules, uncertain)
    if not candidates:
        return {NO_RULE}
    first = candidates[0]
    if len(candidates) == 1 and _always_matches(*literal_prefix(command), *literal_prefix(rules[first])):
        return {first, NO_RULE} if first in uncertain else {first}
    return _walk(command, rules, candidates, uncertain, max_steps, is_enough)


def fixed_program(language: Language) -> str | None:
    """Return the first word when every text of the language has that very first word, as far as shape tells."""
    prefix, rest = literal_prefix(language)
    head, boundary, _ = prefix.partition(SEPARATOR)
    if boundary or rest is None or rest == OPTIONAL_ARGUMENTS:
        return head
    return None


def _candidates(command: Language, rules: Sequence[Language], uncertain: Collection[int]) -> list[int]:
    """Ascending indices of the rules that may match, from the last one that plainly always does."""
    prefix, rest = literal_prefix(command)
    kept: list[int] = []
    for index in range(len(rules) - 1, -1, -1):
        language = rules[index]
        rule_prefix, rule_rest = literal_prefix(language)
        if rule_prefix and not _prefixes_agree(prefix, rest, rule_prefix, rule_rest):
            continue
        kept.append(index)
        if index not in uncertain and _always_matches(prefix, rest, rule_prefix, rule_rest):
            break
    kept.reverse()
    return kept


def _always_matches(prefix: str, rest: Language | None, rule_prefix: str, rule_rest: Language | None) -> bool:
    """Whether a rule plainly holds every text of the command: a sure yes, or no answer."""
    if rule_rest == ANYTHING:
        return prefix.startswith(rule_prefix)
    if rule_rest == OPTIONAL_ARGUMENTS:
        return prefix.startswith(rule_prefix + SEPARATOR) or (rest is None and prefix == rule_prefix)
    return rule_rest is None and rest is None and prefix == rule_prefix


def _prefixes_agree(one: str, one_rest: Language | None, other: str, other_rest: Language | None) -> bool:
    if one.startswith(other):
        return other_rest is not None or one == other
    return other.startswith(one) and one_rest is not None


def _walk(
    command: Language,
    rules: Sequence[Language],
    candidates: list[int],
    uncertain: Collection[int],
    max_steps: int,
    is_enough: Callable[[set[int]], bool],
) -> set[int]:
    machine = Machine([command, *(rules[index] for index in candidates)], max_steps=max_steps)
    # The machine's owners: 0 is the command, each candidate is one more than its place in the list.
    unsure = frozenset(owner for owner, index in enumerate(candidates, start=1) if index in uncertain)
    winners: set[int] = set()
    start = _prune(machine, machine.start_state(), unsure)
    queue: deque[State] = deque([start])
    seen = {start}
    while queue:
        state = queue.popleft()
        accepted = machine.accepting(state)
        if 0 in accepted:
            for owner in sorted(accepted, reverse=True):
                winners.add(candidates[owner - 1] if owner else NO_RULE)
                if owner not in unsure:
                    break
        if len(winners) == len(candidates) + 1 or is_enough(winners):
            break
        for char in machine.alphabet(state):
            following = _prune(machine, machine.step(state, char), unsure)
            if following not in seen and 0 in machine.live(following):
                seen.add(following)
                queue.append(following)
    return winners


def _prune(machine: Machine, state: State, unsure: frozenset[int]) -> State:
    """Forget rules that a later rule outranks from here on, whatever follows."""
    always = max(machine.universal(state) - {0} - unsure, default=0)
    return machine.without(state, lambda owner: 0 < owner < always) if always else state
