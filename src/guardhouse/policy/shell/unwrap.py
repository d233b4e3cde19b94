"""A wrapper's arguments taken apart: which of its words are the command that it runs.

Follows the option grammars of ``wrappers.py`` and never guesses: an unknown option, or a word that is not literal
where an option may stand, leaves the wrapped command undecided. Pure.
"""

import re
from dataclasses import dataclass
from typing import Final

from guardhouse.policy.shell.reading import Span, Word
from guardhouse.policy.shell.wrappers import FIND_ACTIONS, SHELL_OPTIONS, SHELLS, WRAPPERS, Wrapper

__all__ = ["Unwrapped", "unwrap"]

_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_MINUS_NUMBER: Final = re.compile(r"-[-+]?[0-9]+")
_ANCHORED_GLOB: Final = re.compile(r"[./][A-Za-z0-9_./*?-]*")
_APPENDED: Final = "words are added from input that is known only when it runs"


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What a wrapper runs: commands as words, texts with the language they are read in, variables it sets."""

    commands: tuple[tuple[Word, ...], ...] = ()
    texts: tuple[tuple[str, Span, str], ...] = ()
    environment: tuple[tuple[str, str | None, Span], ...] = ()
    undecided_because: str | None = None


class _Undecided(Exception):  # noqa: N818 - an answer inside this module
    pass


def unwrap(name: str, words: tuple[Word, ...], _source_text: str) -> Unwrapped:
    """Return what the wrapper ``name`` runs, given all its words, the name first."""
    try:
        if name in SHELLS:
            return _unwrap_shell(name, words)
        if name == "find":
            return _unwrap_find(words)
        return _unwrap_options(name, WRAPPERS[name], words)
    except _Undecided as error:
        return Unwrapped(undecided_because=f"{name}: {error}")


def _unwrap_options(name: str, wrapper: Wrapper, words: tuple[Word, ...]) -> Unwrapped:
    environment: list[tuple[str, str | None, Span]] = []
    texts: list[Word] = []
    operands = wrapper.operands
    replaces: str | None = None
    joins = wrapper.joined
    options = True
    index = 1
    while index < len(words):
        value = words[index].value
        if value is None:
            raise _Undecided("a word that is not literal stands where an option or the command may")
        if options and value == "--":
            options = False
            index += 1
            continue
        if options and value.startswith("-") and len(value) > 1:
            taken = _take_option(wrapper, words, index)
            if taken is None:
                return Unwrapped(environment=tuple(environment))
            index, option, argument = taken
            if option in wrapper.text:
                if argument is None:
                    raise _Undecided(f"{option} without its text")
                texts.append(argument)
            elif name == "env" and option in ("u", "--unset"):
                pass
            elif option == "I" and argument is not None:
                replaces = argument.value
            elif option in ("x", "--exec") and wrapper.joined:
                joins = False
            continue
        if name == "env" and value == "-":
            index += 1
            continue
        if wrapper.assignments and (match := _ASSIGNMENT.fullmatch(value)) is not None:
            environment.append((match[1], match[2], words[index].span))
            options = name == "sudo" and options
            index += 1
            continue
        if wrapper.assignments and "=" in value and operands == 0:
            raise _Undecided("an assignment to a name that is not plain")
        if operands and not (name == "su" and value == "-"):
            operands -= 1
            index += 1
            options = options and bool(wrapper.text)
            continue
        if name == "su" and value == "-":
            index += 1
            continue
        break
    return _finish(name, wrapper, words[index:], tuple(environment), texts, joins=joins, replaces=replaces)


def _take_option(wrapper: Wrapper, words: tuple[Word, ...], index: int) -> tuple[int, str, Word | None] | None:
    """Read one option word: the next index, the option with a meaning of its own, its value. None: runs nothing."""
    value = words[index].value or ""
    if value.startswith("--"):
        option, equals, _rest = value.partition("=")
        if option in wrapper.none:
            return None
        if option in wrapper.refuse:
            raise _Undecided(f"the option {option} is not taken apart")
        if option in wrapper.long_flags:
            return index + 1, option, None
        if option in wrapper.long_values or option in wrapper.text:
            if equals:
                word = words[index]
                inner = _rest
                return index + 1, option, Word(word.text, word.span, inner, (inner,))
            return index + 2, option, _value_at(words, index + 1, option)
        raise _Undecided(f"the option {option} is not known")
    if wrapper.minus_number and _MINUS_NUMBER.fullmatch(value) is not None:
        return index + 1, value, None
    last = ""
    for at, letter in enumerate(value[1:], start=1):
        if letter in wrapper.none:
            return None
        if letter in wrapper.refuse:
            raise _Undecided(f"the option -{letter} is not taken apart")
        if letter in wrapper.flags:
            last = letter if not last or letter == "x" else last
            continue
        if letter in wrapper.values or letter in wrapper.text:
            rest = value[at + 1 :]
            if rest:
                word = words[index]
                return index + 1, letter, Word(word.text, word.span, rest, (rest,))
            return index + 2, letter, _value_at(words, index + 1, f"-{letter}")
        raise _Undecided(f"the option -{letter} is not known")
    return index + 1, last, None


def _value_at(words: tuple[Word, ...], index: int, option: str) -> Word:
    if index >= len(words):
        raise _Undecided(f"the option {option} lacks its value")
    if words[index].may_split:
        raise _Undecided(f"the value of {option} may become several words")
    return words[index]


def _finish(
    name: str,
    wrapper: Wrapper,
    command: tuple[Word, ...],
    environment: tuple[tuple[str, str | None, Span], ...],
    texts: list[Word],
    *,
    joins: bool,
    replaces: str | None,
) -> Unwrapped:
    if texts:
        if any(text.value is None for text in texts):
            raise _Undecided("a text to run that is not literal")
        read = tuple((text.value or "", text.span, "posix") for text in texts)
        return Unwrapped(texts=read, environment=environment, undecided_because=wrapper.foreign)
    if not command:
        if wrapper.alone is not None:
            raise _Undecided(f"{wrapper.alone} that reads its input")
        return Unwrapped(environment=environment)
    if name in ("su", "script"):
        raise _Undecided("words after its operands")
    if joins:
        if any(word.value is None for word in command):
            raise _Undecided("a text to run that is not literal")
        text = " ".join(word.value or "" for word in command)
        span = (command[0].span[0], command[-1].span[1])
        return Unwrapped(texts=((text, span, "posix"),), environment=environment)
    if wrapper.appends:
        command = _with_input(command, replaces)
    foreign = wrapper.foreign if name != "runuser" else None
    if name == "flock" and len(command) > 1 and command[0].value in ("-c", "--command"):
        if command[1].value is None:
            raise _Undecided("a text to run that is not literal")
        return Unwrapped(texts=((command[1].value, command[1].span, "posix"),))
    return Unwrapped(commands=(command,), environment=environment, undecided_because=foreign)


def _with_input(command: tuple[Word, ...], replaces: str | None) -> tuple[Word, ...]:
    """The words that xargs runs: with its input behind, or in place of the replacement string."""
    if replaces is None:
        at = command[-1].span[1]
        return (*command, Word("", (at, at), None, (None,), _APPENDED, may_split=True))
    return tuple(_replaced(word, replaces) for word in command)


def _replaced(word: Word, marker: str) -> Word:
    if word.value is None:
        return Word(word.text, word.span, None, (None,), word.undecided_because, word.may_split)
    if not marker or marker not in word.value:
        return word
    pattern: list[str | None] = []
    for index, piece in enumerate(word.value.split(marker)):
        if index:
            pattern.append(None)
        if piece:
            pattern.append(piece)
    return Word(word.text, word.span, None, tuple(pattern), _APPENDED)


def _unwrap_find(words: tuple[Word, ...]) -> Unwrapped:
    commands: list[tuple[Word, ...]] = []
    loose: Word | None = None
    index = 1
    while index < len(words):
        word = words[index]
        if word.value in FIND_ACTIONS:
            end = index + 1
            while end < len(words) and not _ends_exec(words, end):
                if words[end].value is None and _may_be(words[end], ";"):
                    raise _Undecided("a word that is not literal may end the command that it runs")
                end += 1
            if end == index + 1 or end >= len(words):
                raise _Undecided(f"{word.value} without a command or its end")
            command = tuple(_replaced(one, "{}") for one in words[index + 1 : end])
            if words[end].value == "+":
                at = words[end].span[0]
                command = (*command[:-1], Word("{}", (at, at), None, (None,), _APPENDED, may_split=True))
                if len(command) == 1:
                    raise _Undecided("the command that it runs is a file that it finds")
            commands.append(command)
            index = end + 1
            continue
        if word.may_split and not _is_anchored_glob(word):
            raise _Undecided("a word that may become several may name a command to run")
        if word.value is None and not word.may_split and _may_be_action(word):
            loose = word
        elif loose is not None and (word.value is None or word.value in (";", "+")):
            raise _Undecided("a word that is not literal may be -exec")
        index += 1
    return Unwrapped(commands=tuple(commands))


def _ends_exec(words: tuple[Word, ...], at: int) -> bool:
    return words[at].value == ";" or (words[at].value == "+" and words[at - 1].value == "{}")


def _is_anchored_glob(word: Word) -> bool:
    """Whether every word that it becomes begins with a path, so that none is an option."""
    return _ANCHORED_GLOB.fullmatch(word.text) is not None


def _head(word: Word) -> str | None:
    return word.pattern[0] if word.pattern else None


def _may_be(word: Word, text: str) -> bool:
    if word.may_split:
        return True
    pattern = word.pattern
    if not pattern:
        return True
    head, tail = pattern[0], pattern[-1]
    return (head is None or text.startswith(head)) and (tail is None or text.endswith(tail))


def _may_be_action(word: Word) -> bool:
    return any(_may_be(word, action) for action in FIND_ACTIONS)


def _unwrap_shell(name: str, words: tuple[Word, ...]) -> Unwrapped:
    dialect = SHELLS[name]
    runs_text = False
    index = 1
    startup: str | None = None
    while index < len(words):
        value = words[index].value
        if value is None:
            if not runs_text:
                raise _Undecided("a word that is not literal stands where an option or a file may")
            break
        if value in ("-", "--"):
            index += 1
            break
        if value.startswith("--"):
            if value == "--posix":
                dialect = "posix"
            elif value in ("--version", "--help"):
                return Unwrapped()
            elif value in ("--login",):
                startup = "a login shell reads start-up files"
            elif value not in ("--norc", "--noprofile", "--noediting"):
                raise _Undecided(f"the option {value} is not known")
            index += 1
            continue
        if value[:1] not in ("-", "+"):
            break
        index, text_flag, start = _take_shell_options(words, index)
        runs_text |= text_flag
        startup = start or startup
    if not runs_text:
        reads = "runs the text of a file" if index < len(words) else "runs the text of its input"
        return Unwrapped(undecided_because=startup or f"{name} {reads}")
    if index >= len(words):
        raise _Undecided("-c without its text")
    text = words[index]
    if text.value is None:
        raise _Undecided("a text to run that is not literal")
    return Unwrapped(texts=((text.value, text.span, dialect),), undecided_because=startup)


def _take_shell_options(words: tuple[Word, ...], index: int) -> tuple[int, bool, str | None]:
    value = words[index].value or ""
    runs_text = False
    startup: str | None = None
    following = index + 1
    for letter in value[1:]:
        if letter == "c" and value[0] == "-":
            runs_text = True
        elif letter in "il":
            startup = "an interactive or login shell reads start-up files"
        elif letter == "o":
            name = words[following].value if following < len(words) else None
            if name not in ("pipefail", "errexit", "nounset", "xtrace", "noglob", "noclobber", "verbose"):
                raise _Undecided("-o with an option that changes how text is read, or is not known")
            following += 1
        elif letter not in SHELL_OPTIONS:
            raise _Undecided(f"the option -{letter} is not known or changes how text is read")
    return following, runs_text, startup
