"""Whether one command can start programs, or run code, that its own words do not show.

Reads the reviewed table; knows nothing of rules. A word that is not known counts as whatever would be worst. Pure.
"""

import re
from collections.abc import Sequence
from typing import Final

from guardhouse.policy.knowledge.tables import ESCAPES, HARMLESS, Escape

__all__ = ["is_known", "why_starts_others"]

_AWKS: Final = frozenset({"awk", "gawk", "mawk", "nawk", "original-awk"})
_SEDS: Final = frozenset({"sed", "gsed", "ssed"})
# Versioned interpreters: python3.11, perl5.36, lua5.4, php8.2, ruby3.1, gcc-12.
_VERSION: Final = re.compile(r"^([A-Za-z+_-]*[A-Za-z+])-?[0-9]+(?:\.[0-9]+)*$")
# An awk program that calls, pipes, loads or writes nothing. `||` is the only bar it may hold, so regular expressions
# with alternation count as a pipe; gate two then looks.
_AWK_DANGER: Final = re.compile(r"system|getline|@|(?<!\|)\|(?!\|)|\|&|\"\s*\||close|ENVIRON|\bload\b|extension")
_SED_SAFE: Final = re.compile(
    r"""(?:
        (?:(?:[0-9]+|\$|/[^/\\\n;{}]*/)(?:,(?:[0-9]+|\$|\+[0-9]+|/[^/\\\n;{}]*/))?!?)?\s*
        (?:[pdqQPDGgHhnNx=l]|s([/|,\#:@])(?:(?!\1)[^\\\n]|\\[^\n])*\1(?:(?!\1)[^\\\n]|\\[^\n])*\1[gpiIM0-9]*)
        \s*;?\s*
    )*""",
    re.VERBOSE,
)


def is_known(program: str) -> bool:
    """Whether the table says of this program all that it can start: nothing, or only with the options it lists."""
    if program in _AWKS or program in _SEDS:
        return True
    escape = ESCAPES.get(program)
    if escape is not None:
        return not escape.always
    return program in HARMLESS


def why_starts_others(program: str, arguments: Sequence[str | None]) -> str | None:
    """Return why a command may start something that is not shown, or None when it cannot.

    Args:
        program: its plain name.
        arguments: the words behind it; None for a word whose value is not known.
    """
    if program in _AWKS:
        return _why_awk(program, arguments)
    if program in _SEDS:
        return _why_sed(program, arguments)
    escape = ESCAPES.get(program)
    if escape is None:
        version = _VERSION.match(program)
        escape = ESCAPES.get(version[1]) if version else None
    if escape is None:
        return None
    if escape.always:
        first = next((word for word in arguments if word is None or not word.startswith("-")), "")
        shown_version = any(word in escape.unless_first for word in arguments[:1] if word is not None)
        harmless = shown_version or (first is not None and first in escape.unless_first and not arguments[1:])
        return None if harmless else f"{program} {escape.because}"
    if escape.bundle and arguments and arguments[0] and set(arguments[0]) & set(escape.short):
        return f"{program} {escape.because} ({arguments[0]!r})"
    found = next((word for word in arguments if _counts(word, escape)), False)
    if found is False:
        return None
    shown = "a word that is not known here" if found is None else repr(found)
    return f"{program} {escape.because} ({shown})"


def _counts(word: str | None, escape: Escape) -> bool:
    if word is None or word in escape.words or word.startswith(escape.starts or ("\0",)):
        return True
    if any(text in word for text in escape.contains):
        return True
    if word.startswith("--"):
        name = word.partition("=")[0]
        return len(name) > 2 and any(option.startswith(name) for option in escape.long)
    return word.startswith("-") and any(letter in escape.short for letter in word[1:])


def _why_awk(program: str, arguments: Sequence[str | None]) -> str | None:
    """Awk runs `system()`, pipes and `getline`; a program of which every character is visible may show none."""
    texts: list[str] = []
    words = iter(arguments)
    for word in words:
        if word is None:
            return f"{program} runs a program text that is not known here"
        if word in ("-F", "-v"):
            value = next(words, "")
            if value is None and word == "-v":
                # A variable's value is data; awk only unescapes it.
                continue
            continue
        if re.fullmatch(r"-F.+|-v.+=.*", word, re.DOTALL):
            continue
        if word.startswith("-") and word != "--":
            return f"{program} reads its program or settings from {word!r}"
        if word != "--":
            texts.append(word)
            break
    if not texts:
        return None
    if _AWK_DANGER.search(texts[0]):
        return f"{program} may start a program from its own language (system, a pipe, getline)"
    return None


def _why_sed(program: str, arguments: Sequence[str | None]) -> str | None:
    """GNU sed's `e` and `s///e` start programs; `w`, `r` and -i touch files. Plain edits are recognised positively."""
    scripts: list[str] = []
    operands: list[str] = []
    words = iter(arguments)
    for word in words:
        if word is None:
            if scripts or operands:
                # A word behind the script may be an option only if it begins with '-': it may.
                return f"{program} may be given a script by a word that is not known here"
            return f"{program} runs a script that is not known here"
        if word in (
            "-n",
            "-E",
            "-r",
            "-s",
            "-u",
            "-z",
            "--quiet",
            "--silent",
            "--regexp-extended",
            "-nE",
            "-nr",
            "-En",
        ):
            continue
        if word in ("-e", "--expression"):
            script = next(words, None)
            if script is None:
                return f"{program} runs a script that is not known here"
            scripts.append(script)
        elif word.startswith("-") and word not in ("-", "--"):
            return f"{program} is given {word!r}, which may change files or read a script"
        else:
            operands.append(word)
    if not scripts and operands:
        scripts.append(operands[0])
    if all(_SED_SAFE.fullmatch(script) for script in scripts):
        return None
    return f"{program} may start a program or write a file from its own language (e, w, s///e)"
