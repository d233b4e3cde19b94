"""What a reviewer should see in a policy before it is taken: rules that do nothing, rules that do too much.

Levels: ``error`` a rule that cannot do what its author meant; ``warning`` a rule that lets more through than it says;
``note`` something missing. A policy is clean when there is neither error nor warning. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from guardhouse.limits import POLICY_COMPARE_MAX_STEPS
from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.compare import subject_space
from guardhouse.policy.knowledge.tables import ESCAPES, Escape
from guardhouse.policy.language import (
    ANYTHING,
    EMPTY,
    SEPARATOR,
    WORD_CHAR,
    Chars,
    Language,
    Repeat,
    choice,
    concat,
    is_anything,
    optional,
)
from guardhouse.policy.model import Policy, Rule
from guardhouse.policy.patterns import parse_glob
from guardhouse.policy.possible import NO_RULE, possible_winners
from guardhouse.policy.rule_fields import expanded_language
from guardhouse.policy.shell.wrappers import WRAPPERS
from guardhouse.values import Verdict

__all__ = ["Finding", "lint_policy"]

_ANY_WORD: Final = Repeat(WORD_CHAR)
# With more rules than this the exact question "does this rule ever decide" is not asked.
_EXACT_MAX_RULES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark. ``code`` is a stable word for programs; ``source`` says where a fact about a program is written."""

    level: str
    code: str
    place: str
    message: str
    source: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "level": self.level,
            "code": self.code,
            "place": self.place,
            "message": self.message,
            "source": self.source,
        }


def lint_policy(policy: Policy) -> tuple[Finding, ...]:
    """Return every finding, in the order of the rules."""
    findings: list[Finding] = []
    for operation, section in policy.sections.items():
        languages = [expanded_language(rule, policy.trusted_path) for rule in section.rules]
        findings += _find_idle(operation, section.rules, languages)
        for index, rule in enumerate(section.rules):
            findings += _find_missing(rule)
            if operation == "bash" and rule.action is not Verdict.DENY:
                findings += _find_open(rule)
                findings += _find_escapes(rule, index, section.rules)
                findings += _find_crossing(rule)
                findings += _find_paths(rule, policy)
    order = {rule.place: index for index, rule in enumerate(policy.rules())}
    return tuple(sorted(findings, key=lambda finding: order.get(finding.place, -1)))


def _find_idle(operation: str, rules: tuple[Rule, ...], languages: list[Language]) -> Iterator[Finding]:
    """Rules that never decide: nothing matches them, or later rules match all that they do."""
    if not rules or len(rules) > _EXACT_MAX_RULES:
        return
    plain = [index for index, rule in enumerate(rules) if rule.when is None]
    space = subject_space(operation)
    try:
        found = _winners(space, [languages[index] for index in plain])
        winners = {plain[index] for index in found if index != NO_RULE}
        for index in plain:
            if index not in winners:
                yield _idle(space, index, plain, languages, rules)
    except TooManySteps:
        yield Finding("note", "too-large", rules[0].place, f"the rules of {operation} are too many to find idle ones")


def _idle(space: Language, index: int, plain: list[int], languages: list[Language], rules: tuple[Rule, ...]) -> Finding:
    rule = rules[index]
    if _winners(space, [languages[index]]) == {NO_RULE}:
        return Finding("error", "never-matches", rule.place, f"{rule.match!r} can match nothing")
    shadow = next(
        (later for later in plain if later > index and _winners(languages[index], [languages[later]]) == {0}), None
    )
    by = f"by {rules[shadow].says()}" if shadow is not None else "by later rules together"
    return Finding("error", "shadowed", rule.place, f"{rule.match!r} never decides: outranked {by}")


def _winners(command: Language, languages: list[Language]) -> set[int]:
    return possible_winners(command, languages, max_steps=POLICY_COMPARE_MAX_STEPS)


def _find_missing(rule: Rule) -> Iterator[Finding]:
    if not rule.because:
        yield Finding("note", "no-reason", rule.place, f"{rule.match!r} has no 'because'")
    if not rule.examples:
        yield Finding("note", "no-examples", rule.place, f"{rule.match!r} has no examples")


def _find_open(rule: Rule) -> Iterator[Finding]:
    """An open program: everything is let through."""
    if rule.action is Verdict.ALLOW and not rule.programs and not rule.because:
        what = "every command" if is_anything(rule.language) else "programs that it does not name"
        yield Finding(
            "warning", "open-program", rule.place, f"{rule.match!r} allows {what}; say why with 'because', or name them"
        )


def _find_crossing(rule: Rule) -> Iterator[Finding]:
    """A star that is not a word by itself also takes in further words, and slashes."""
    if not rule.is_glob or rule.action is not Verdict.ALLOW:
        return
    words = parse_glob(rule.match).words
    for word in words:
        if len(word) > 1 and any(piece.kind == "star" for piece in word):
            text = "".join(
                "*" if piece.kind == "star" else "?" if piece.kind == "one" else piece.value for piece in word
            )
            yield Finding(
                "warning",
                "star-crosses",
                rule.place,
                f"the star in {text!r} also matches blanks and slashes: further words and '..' pass; an 'argv' rule"
                " with operands: {below: […]} or {match: […]} says one word",
            )
            return
    if any(len(word) == 1 and word[0].kind == "star" for word in words[1:-1]):
        yield Finding(
            "warning",
            "star-crosses",
            rule.place,
            f"a star in the middle of {rule.match!r} also matches further words; an 'argv' rule says which",
        )


def _find_paths(rule: Rule, policy: Policy) -> Iterator[Finding]:
    for program in rule.programs:
        directory, slash, _ = program.rpartition("/")
        if slash and directory not in policy.trusted_path and rule.action is Verdict.ALLOW:
            yield Finding(
                "note",
                "untrusted-path",
                rule.place,
                f"{program!r} lies outside the trusted path: whoever can write there chooses what runs",
            )


def _find_escapes(rule: Rule, index: int, rules: tuple[Rule, ...]) -> Iterator[Finding]:
    """Programs that start others, or run code, by words that the rule lets through."""
    if "children" in rule.source and rule.because:
        return
    for program in rule.programs:
        name = program.rpartition("/")[2]
        escape = ESCAPES.get(name)
        if escape is None or name in WRAPPERS:
            continue
        if not _lets_through(program, escape, index, rules):
            continue
        yield Finding(
            "warning",
            "escape",
            rule.place,
            f"{rule.match!r} lets {name} through, which {escape.because}; name the safe options in an 'argv' rule, or"
            " accept it with 'children:' and 'because:'",
            source=escape.source,
        )


def _lets_through(program: str, escape: Escape, index: int, rules: tuple[Rule, ...]) -> bool:
    rule = rules[index]
    arguments = Repeat(concat([SEPARATOR, _ANY_WORD]))
    if escape.always:
        # Called alone, most of these only print what they are; with one more word they run it.
        dangerous = concat([program, SEPARATOR, WORD_CHAR, _ANY_WORD, arguments])
    elif not rule.is_glob:
        return _names_danger(rule, escape)
    elif _names_subcommand(rule, escape):
        return False
    else:
        dangerous = concat([program, arguments, SEPARATOR, _dangerous_word(escape), arguments])
    try:
        return index in possible_winners(dangerous, [other.language for other in rules])
    except TooManySteps:
        return True


def _names_danger(rule: Rule, escape: Escape) -> bool:
    """Whether an argument rule names a dangerous option, or leaves open a word that may be one."""
    written = rule.source["argv"]
    named = [*written.get("flags", ()), *written.get("options", {})]
    if any(_is_dangerous_option(option, escape) for option in named):
        return True
    has_options = bool(escape.long or escape.short) or any(word.startswith("-") for word in escape.words)
    if written.get("any_options") and has_options:
        return True
    open_operands = written.get("operands", "none") == "any"
    subcommands = any(not word.startswith("-") for word in escape.words)
    return open_operands and (bool(escape.contains) or (subcommands and not written.get("words")))


def _is_dangerous_option(option: str, escape: Escape) -> bool:
    if option in escape.words or option in escape.long:
        return True
    return len(option) == 2 and option[1] in escape.short


def _names_subcommand(rule: Rule, escape: Escape) -> bool:
    """Whether the rule fixes a harmless subcommand, so that a dangerous one can only be an operand."""
    if any(word.startswith("-") for word in escape.words) or not escape.words:
        return False
    words = parse_glob(rule.match).words
    second = words[1] if len(words) > 1 else ()
    fixed = second[0].value if len(second) == 1 and second[0].kind == "text" else None
    return fixed is not None and not fixed.startswith("-") and fixed not in escape.words


def _dangerous_word(escape: Escape) -> Language:
    options: list[Language] = [*sorted(escape.words), *(concat([start, _ANY_WORD]) for start in escape.starts)]
    options += [concat([_ANY_WORD, text, _ANY_WORD]) for text in escape.contains]
    options += [concat([option, optional(concat(["=", _ANY_WORD]))]) for option in escape.long]
    if escape.short:
        letters = Repeat(Chars(frozenset({SEPARATOR, "-"}), negated=True))
        options.append(concat(["-", letters, Chars(frozenset(escape.short)), _ANY_WORD]))
    return choice(options) if options else concat([ANYTHING, EMPTY])
