"""A denied command behind another spelling: options moved, joined, split or written out.

A glob compares words in order, so ``git push *`` does not match ``git -C /srv push`` and ``rm -rf *`` does not match
``rm -r -f``. Changing what a pattern matches would make policies unreadable; instead, a command that is allowed while
a *later* rule denies (or asks about) the same command with its options elsewhere is doubted: undecided at gate one,
refused at gate two. Only rules in glob form that name their program are read this way.

Knows patterns and options; knows nothing of decisions. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.knowledge.options import FLAGS, SAME_OPTIONS
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
    optional,
)
from guardhouse.policy.matcher import Matcher
from guardhouse.policy.model import Policy, Rule
from guardhouse.policy.patterns import GlobPiece, parse_glob, word_language
from guardhouse.policy.possible import possible_winners
from guardhouse.values import Verdict

__all__ = ["Spellings", "loosened_languages", "respelled_rules"]

_ANY_WORD = Repeat(WORD_CHAR)
_STAR = (GlobPiece("star"),)


@dataclass(frozen=True, slots=True)
class Spellings:
    """The languages that together mean "this command, however its options are written": all must hold it."""

    languages: tuple[Language, ...]
    matcher: Matcher

    def hold(self, subject: str) -> bool:
        """Whether every language holds the subject."""
        return len(self.matcher.matches(subject)) == len(self.languages)

    def may_hold(self, command: Language) -> bool:
        """Whether each language holds some text of the command; True also where that cannot be found out."""
        try:
            return all(0 in possible_winners(command, [language]) for language in self.languages)
        except TooManySteps:
            return True


def respelled_rules(policy: Policy, program: str) -> list[tuple[int, Rule, Spellings]]:
    """Return the deny and ask rules that name ``program`` and can be spelled in another way, with their positions."""
    by_program = _RESPELLED.get(policy)
    if by_program is None:
        by_program = _RESPELLED[policy] = _index(policy)
    found = by_program.get(program, [])
    for entry in found:
        if entry.spellings is None:
            languages = loosened_languages(entry.rule.match, policy.trusted_path)
            entry.spellings = Spellings(languages, Matcher(languages))
    return [(entry.position, entry.rule, entry.spellings) for entry in found if entry.spellings is not None]


@dataclass(slots=True)
class _Entry:
    position: int
    rule: Rule
    spellings: Spellings | None = None


_RESPELLED: Final[WeakKeyDictionary[Policy, dict[str, list[_Entry]]]] = WeakKeyDictionary()


def _index(policy: Policy) -> dict[str, list[_Entry]]:
    by_program: dict[str, list[_Entry]] = {}
    for position, rule in enumerate(policy.rules()):
        if rule.action is Verdict.ALLOW or not rule.is_glob or not rule.programs:
            continue
        if len(parse_glob(rule.match).words) < 2:
            continue
        plain = rule.programs[0].rpartition("/")[2]
        by_program.setdefault(plain, []).append(_Entry(position, rule))
    return by_program


def loosened_languages(pattern: str, trusted_path: Sequence[str]) -> tuple[Language, ...]:
    """Return what a command must match to be ``pattern`` with its options elsewhere; empty when nothing can differ.

    The pattern must parse and name its program.
    """
    glob = parse_glob(pattern, trusted_path=trusted_path)
    program = glob.program
    if program is None or len(glob.words) < 2:
        return ()
    plain = program.rpartition("/")[2]
    head: Language = program if program == plain else choice([program, plain])
    options = [word for word in glob.words[1:] if _is_option(word)]
    operands = [word for word in glob.words[1:] if not _is_option(word)]
    languages = [_operand_language(head, plain, operands)]
    for word in options:
        languages += _option_languages(head, plain, word[0].value)
    return tuple(languages)


def _is_option(word: tuple[GlobPiece, ...]) -> bool:
    return word[0].kind == "text" and len(word[0].value) > 1 and word[0].value.startswith("-") and word[0].value != "--"


def _operand_language(head: Language, program: str, operands: list[tuple[GlobPiece, ...]]) -> Language:
    between = Repeat(_one_option(program))
    parts: list[Language] = [head]
    open_end = bool(operands) and operands[-1] == _STAR
    for word in operands[:-1] if open_end else operands:
        parts += [between, SEPARATOR, word_language(word)]
    if open_end:
        parts.append(optional(concat([SEPARATOR, ANYTHING])))
    else:
        parts.append(between)
    return concat(parts)


def _one_option(program: str) -> Language:
    """One option in front of an operand, with the word behind it when it may be its value."""
    flags = sorted(FLAGS.get(program, frozenset()))
    unknown = concat(["-", Repeat(WORD_CHAR, 1), optional(concat([SEPARATOR, _ANY_WORD]))])
    if not flags:
        return concat([SEPARATOR, unknown])
    # A known flag is read as such or, being a word that begins with '-', as the value of nothing: the general form
    # would swallow the word behind it, so it must not apply to it.
    return concat([SEPARATOR, choice([*flags, _unknown_option(flags)])])


def _unknown_option(flags: Sequence[str]) -> Language:
    word = _words_except(flags)
    return concat([word, optional(concat([SEPARATOR, _ANY_WORD]))])


def _words_except(words: Sequence[str], prefix: str = "") -> Language:
    """Every word that begins with ``-`` and is none of ``words``: a trie with an exit at every letter."""
    if not prefix:
        return concat(["-", _words_except([word[1:] for word in words], "-")])
    firsts = sorted({word[0] for word in words if word})
    options: list[Language] = []
    others = Chars(frozenset({SEPARATOR, *firsts}), negated=True)
    options.append(concat([others, _ANY_WORD]))
    if "" not in words:
        options.append(EMPTY)
    options += [
        concat([first, _words_except([word[1:] for word in words if word.startswith(first)], prefix + first)])
        for first in firsts
    ]
    return choice(options)


def _option_languages(head: Language, program: str, option: str) -> list[Language]:
    """One language an option letter, or one for a long option: "it stands somewhere"."""
    name = option.partition("=")[0]
    if name.startswith("--"):
        return [_stands_somewhere(head, _spellings(program, name))]
    letters = name[1:]
    if len(letters) > 1 and (not letters.isalpha() or program == "find"):
        return [_stands_somewhere(head, frozenset({name}))]
    return [_stands_somewhere(head, _spellings(program, f"-{letter}")) for letter in letters]


def _spellings(program: str, option: str) -> frozenset[str]:
    same = next((group for group in SAME_OPTIONS.get(program, ()) if option in group), frozenset())
    return same | {option}


def _stands_somewhere(head: Language, spellings: frozenset[str]) -> Language:
    words = choice(_one_spelling(spelling) for spelling in sorted(spellings))
    arguments = Repeat(concat([SEPARATOR, _ANY_WORD]))
    return concat([head, arguments, SEPARATOR, words, arguments])


def _one_spelling(option: str) -> Language:
    if option.startswith("--"):
        # getopt_long(3) takes any unambiguous beginning, were it one letter.
        tail: Language = EMPTY
        for char in reversed(option[3:]):
            tail = optional(concat([char, tail]))
        return concat([option[:3], tail, optional(concat(["=", _ANY_WORD]))])
    if len(option) > 2:
        return option
    letter = Chars(frozenset({SEPARATOR, "-"}), negated=True)
    return concat(["-", Repeat(letter), option[1], _ANY_WORD])
