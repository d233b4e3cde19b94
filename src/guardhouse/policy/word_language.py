"""Everything that a word, a program or an argument could become, as a language. Pure."""

from typing import Final

from guardhouse.policy.language import ANYTHING, SEPARATOR, WORD_CHAR, Language, Repeat, choice, concat
from guardhouse.policy.shell import Word

__all__ = ["ANY_WORD", "argument_language", "program_language", "word_language"]

ANY_WORD: Final = Repeat(WORD_CHAR)


def _pieces_language(word: Word) -> Language:
    unknown = ANYTHING if word.may_split else ANY_WORD
    return concat(unknown if piece is None else piece for piece in word.pattern)


def word_language(word: Word) -> Language:
    """A word behind the program, with the boundary before it."""
    if word.value is not None:
        return SEPARATOR + word.value
    inner = concat([SEPARATOR, _pieces_language(word)])
    return choice([inner, ""]) if word.may_split else inner


def program_language(word: Word) -> Language:
    """The first word when it is not known. One that splits may vanish and leave the next word as the program."""
    return ANYTHING if word.may_split else _pieces_language(word)


def argument_language(argument: str | None) -> Language:
    """Return the boundary before an argument and the argument; anything where it is None."""
    return concat([SEPARATOR, ANYTHING]) if argument is None else SEPARATOR + argument
