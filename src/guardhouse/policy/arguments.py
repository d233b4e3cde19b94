"""Argument rules: a program's options and operands said exactly, compiled to the same languages as globs.

    argv:
      program: cat                   # or a list of programs
      words: [config, view]          # operands that must come first, in order; default none
      flags: [-A, --number]          # options without a value; one-letter ones may be joined (-bA)
      options: [--lines, -n]         # options with a value: `-n 5`, `-n5`, `--lines 5`, `--lines=5`
      any_options: true              # every option, for a program of which none is dangerous; then no flags, options
      operands: {below: [/var/log]}  # none (default) | any | {below: […]} | {match: [globs in one word]}
      at_most: 1                     # operands, default without bound

What is not named is not matched: an unknown option, an abbreviated long option, an operand elsewhere. ``--`` ends
the options, as getopt_long(3) reads it. ``options`` may be a mapping from option to what its value may be, in the
words of ``operands``. The value of an option is not read as an option, so the author must know the program.

Knows nothing of documents or rules. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from guardhouse.policy.language import (
    EMPTY,
    SEPARATOR,
    WORD_CHAR,
    Chars,
    Language,
    Repeat,
    choice,
    concat,
    optional,
)
from guardhouse.policy.patterns import REFUSED_CHARS, PatternError, program_language
from guardhouse.policy.subjects import path_below

__all__ = ["ArgumentRule", "Values", "compile_argument_rule"]

_AT_MOST_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Values:
    """Which words may stand in one position: ``kind`` is "any", "none", "below" or "match"."""

    kind: str = "any"
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """An ``argv`` rule as written; see the module's text for the meaning of each part."""

    programs: tuple[str, ...]
    words: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    options: Mapping[str, Values] | None = None
    any_options: bool = False
    operands: Values = Values("none")
    at_most: int | None = None

    def summary(self) -> str:
        """The rule in one line, for messages."""
        parts = ["|".join(self.programs), *self.words]
        if self.any_options:
            parts.append("[any options]")
        if self.flags:
            parts.append(f"[{' '.join(self.flags)}]")
        parts += [f"[{option} {_value_summary(values)}]" for option, values in (self.options or {}).items()]
        if self.operands.kind != "none":
            bound = f" (at most {self.at_most})" if self.at_most is not None else "…"
            parts.append(f"{_value_summary(self.operands)}{bound}")
        return "argv: " + " ".join(parts)


def _value_summary(values: Values) -> str:
    return values.kind.upper() if not values.items else f"{values.kind}({' '.join(values.items)})"


def compile_argument_rule(rule: ArgumentRule, *, trusted_path: Sequence[str], with_paths: bool = False) -> Language:
    """Return the language of the command lines that the rule matches; ``with_paths`` as in `parse_glob`.

    Raises:
        PatternError: an option is no option, a word holds NUL, or ``at_most`` is out of bounds.
    """
    _check(rule)
    options = rule.options or {}
    items: list[Language] = []
    if rule.any_options:
        items.append(concat(["-", Repeat(WORD_CHAR, 1)]))
    short_flags = frozenset(flag[1] for flag in rule.flags if _is_short(flag))
    cluster = Repeat(Chars(short_flags)) if short_flags else EMPTY
    if short_flags:
        items.append(concat(["-", Repeat(Chars(short_flags), 1)]))
    items += [flag for flag in rule.flags if not _is_short(flag)]
    for option, values in options.items():
        value = _values_language(values, is_operand=False)
        if _is_short(option):
            # A joined value is never empty: `-n` alone takes the next word, whatever that is. Reading it as `-n`
            # with an empty value would let `-n -m --evil` pass as `-n`, `-m --evil`.
            joined = value if _is_never_empty(values) else Repeat(WORD_CHAR, 1)
            items.append(concat(["-", cluster, option[1], choice([concat([SEPARATOR, value]), joined])]))
        else:
            items.append(concat([option, choice([SEPARATOR, "="]), value]))
    option_words = Repeat(concat([SEPARATOR, choice(items)])) if items else EMPTY
    operand = _values_language(rule.operands, is_operand=True)
    late_operand = _values_language(rule.operands, is_operand=False)
    programs = choice(program_language(program, trusted_path, with_paths=with_paths) for program in rule.programs)
    head = concat([programs, *(part for word in rule.words for part in (option_words, SEPARATOR + word))])
    if rule.operands.kind == "none":
        return concat([head, option_words, optional(SEPARATOR + "--")])
    if rule.at_most is None:
        either = choice([*items, operand])
        late = optional(concat([SEPARATOR + "--", Repeat(concat([SEPARATOR, late_operand]))]))
        return concat([head, Repeat(concat([SEPARATOR, either])), late])
    return concat([head, _bounded(option_words, operand, late_operand, rule.at_most)])


def _bounded(option_words: Language, operand: Language, late_operand: Language, left: int) -> Language:
    """Options, with at most ``left`` operands among them."""
    late: Language = EMPTY
    for _ in range(left):
        late = optional(concat([SEPARATOR, late_operand, late]))
    ending = optional(concat([SEPARATOR + "--", late]))
    if left == 0:
        return concat([option_words, ending])
    more = concat([SEPARATOR, operand, _bounded(option_words, operand, late_operand, left - 1)])
    return concat([option_words, choice([ending, more])])


def _is_short(option: str) -> bool:
    return len(option) == 2


def _check(rule: ArgumentRule) -> None:
    for word in (*rule.programs, *rule.words):
        if not word or any(char in REFUSED_CHARS for char in word):
            raise PatternError(f"{word!r} is no word of a command line")
    for option in (*rule.flags, *(rule.options or {})):
        if not option.startswith("-") or option in ("-", "--") or "=" in option or SEPARATOR in option:
            raise PatternError(f"{option!r} is no option; write '-x' or '--name'")
    if rule.any_options and (rule.flags or rule.options or rule.at_most is not None):
        raise PatternError("'any_options' leaves nothing for flags, options or at_most to say")
    named = [*rule.flags, *(rule.options or {})]
    twice = next((option for option in named if named.count(option) > 1), None)
    if twice:
        raise PatternError(f"the option {twice!r} stands twice; with and without a value cannot be told apart")
    if rule.at_most is not None and not 1 <= rule.at_most <= _AT_MOST_MAX:
        raise PatternError(f"at_most must be 1 to {_AT_MOST_MAX}, got {rule.at_most}; 'operands: none' allows none")


def _is_never_empty(values: Values) -> bool:
    if values.kind == "match":
        return all(item.strip("*") for item in values.items)
    return values.kind == "below"


def _values_language(values: Values, *, is_operand: bool) -> Language:
    """One word. As an operand before ``--`` it does not begin with ``-`` unless it is that alone (standard input)."""
    match values.kind:
        case "any" if is_operand:
            start = Chars(frozenset({SEPARATOR, "-"}), negated=True)
            return choice([concat([start, Repeat(WORD_CHAR)]), "-", EMPTY])
        case "any":
            return Repeat(WORD_CHAR)
        case "below":
            return choice(_in_one_word(path_below(directory)) for directory in values.items)
        case "match":
            return choice(_word_glob(item, is_operand=is_operand) for item in values.items)
        case _:
            return choice([])


def _in_one_word(language: Language) -> Language:
    """Take the word boundary out of every negated class."""
    if isinstance(language, str):
        return language
    if isinstance(language, Chars):
        return Chars(language.members | {SEPARATOR}, negated=True) if language.negated else language
    if isinstance(language, Repeat):
        return Repeat(_in_one_word(language.inner), language.minimum)
    parts = language.parts if hasattr(language, "parts") else language.options
    build = concat if hasattr(language, "parts") else choice
    return build(_in_one_word(part) for part in parts)


def _word_glob(pattern: str, *, is_operand: bool) -> Language:
    if not pattern or any(char in REFUSED_CHARS for char in pattern):
        raise PatternError(f"{pattern!r} is no pattern for a word")
    parts: list[Language] = []
    escaped = False
    for index, char in enumerate(pattern):
        if escaped:
            parts.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "*?":
            inner = Chars(frozenset({SEPARATOR, "-"}), negated=True) if is_operand and index == 0 else WORD_CHAR
            if char == "?":
                parts.append(inner)
            elif index == 0 and is_operand:
                parts.append(optional(concat([inner, Repeat(WORD_CHAR)])))
            else:
                parts.append(Repeat(WORD_CHAR))
        else:
            parts.append(char)
    if escaped:
        raise PatternError(r"the pattern ends in a lone backslash; write '\\' for a backslash itself")
    return concat(parts)
