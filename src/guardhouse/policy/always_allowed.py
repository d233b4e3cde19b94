"""Which programs a policy allows whatever their arguments, or with some: what can be promised of a file as a whole.

Pure; used at boot where the exec gate cannot be had and a profile falls back to Landlock.
"""

from collections.abc import Callable
from typing import Final

from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.language import ANYTHING, SEPARATOR, choice, concat, optional
from guardhouse.policy.model import Context, Policy, Rule
from guardhouse.policy.possible import NO_RULE
from guardhouse.policy.rulebook import Rulebook, rulebook_of
from guardhouse.policy.versions import is_version_of
from guardhouse.values import Verdict

__all__ = ["is_always_allowed", "is_sometimes_allowed"]

_ARGUMENTS: Final = optional(concat([SEPARATOR, ANYTHING]))


def is_always_allowed(policy: Policy, names: frozenset[str], paths: frozenset[str]) -> bool:
    """Tell whether every policy in force allows a program under each of its names with any arguments.

    What cannot be told within the bounds of the question is not. Conditions count as not known.

    Args:
        names: the plain names that mean this very file; all of them have to be allowed, or be one with another version.
        paths: where it is found; a rule that names it so counts as well.
    """
    return bool(names) and all(_allows_file(layer, names, paths, _allows) for layer in policy.layers)


def is_sometimes_allowed(policy: Policy, names: frozenset[str], paths: frozenset[str]) -> bool:
    """Tell whether every policy in force allows or asks about a program with some arguments; as `is_always_allowed`.

    Each policy by itself: that they agree on some arguments is for whoever judges these.
    """
    return bool(names) and all(_allows_file(layer, names, paths, _allows_some) for layer in policy.layers)


def _allows_file(
    policy: Policy,
    names: frozenset[str],
    paths: frozenset[str],
    allows: Callable[[Rulebook, str, frozenset[str]], bool],
) -> bool:
    book = rulebook_of(policy)
    if book is None:
        return False
    allowed = {name for name in names if allows(book, name, paths)}
    # Another version number in the name is the same program, unless a rule says no to it by that name.
    return all(
        name in allowed or (any(is_version_of(name, other) for other in allowed) and not _is_named_no(book, name))
        for name in names
    )


def _allows_some(book: Rulebook, name: str, paths: frozenset[str]) -> bool:
    try:
        by_name = book.find_possible(concat([name, _ARGUMENTS]), Context())
        by_path = book.find_possible(concat([choice(sorted(paths)), _ARGUMENTS]), Context()) if paths else []
    except TooManySteps:
        return False
    # As the exec gate asks: by name and by path at once, and the last rule that matches either wins.
    return _can_win(book, by_name, by_path) or _can_win(book, by_path, by_name)


def _can_win(book: Rulebook, winners: list[Rule | None], others: list[Rule | None]) -> bool:
    """Tell whether one of ``winners`` that does not deny could stand behind what wins by the other subject."""
    first = min((book.position(rule) for rule in others), default=NO_RULE)
    return any(
        rule is not None and rule.action is not Verdict.DENY and book.position(rule) >= first for rule in winners
    )


def _is_named_no(book: Rulebook, name: str) -> bool:
    try:
        winners = book.find_possible(concat([name, _ARGUMENTS]), Context())
    except TooManySteps:
        return True
    return any(rule is not None and rule.action is not Verdict.ALLOW and bool(rule.programs) for rule in winners)


def _allows(book: Rulebook, name: str, paths: frozenset[str]) -> bool:
    context = Context()
    try:
        winners = book.find_possible(concat([name, _ARGUMENTS]), context)
        if any(rule is None or rule.action is not Verdict.ALLOW for rule in winners):
            return False
        # As the exec gate asks: by name and by path at once, and the last rule that matches either wins.
        first = min(book.position(rule) for rule in winners)
        stricter = [rule for rule in book.later_rules(first, context) if rule.action is not Verdict.ALLOW]
        if not stricter:
            return True
        by_path = concat([choice(sorted(paths)), _ARGUMENTS])
        return all(rule is None for rule in Rulebook(stricter).find_possible(by_path, context))
    except TooManySteps:
        return False
