"""Other words for the same deed: ``rm -rf //`` is ``rm -rf /``, and ``rm -rf a /`` is that too, besides ``rm -rf a``.

A glob compares words, so a rule that denies ``rm -rf /`` does not match either. As with options in other places
(reordered.py) patterns keep their meaning; instead, a command that is allowed while a *later* rule denies (or asks
about) the same deed in plainer words gets that rule's verdict, at both gates.

Knows words; knows nothing of rules. Pure.
"""

from collections.abc import Sequence
from typing import Final

from guardhouse.policy.patterns import parse_glob

__all__ = ["OPERANDS_MAX", "operand_text", "plainer_commands"]

# Operands that are judged each by itself: only such as some rule could name. 256 take 40 ms.
OPERANDS_MAX: Final = 256

# They do the same to each operand, whatever the others are: one command for many is that many commands.
# fmt: off
_FOR_EACH_OPERAND: Final = frozenset({
    "base32", "base64", "cat", "cksum", "file", "head", "hexdump", "kill", "less", "ls", "md5sum", "mkdir",
    "more", "nl", "od", "realpath", "rev", "rm", "rmdir", "sha1sum", "sha256sum", "sha512sum", "shred", "stat",
    "strings", "tac", "tail", "touch", "truncate", "umount", "unlink", "userdel", "wc", "xxd",
})
# fmt: on
# Different options of one command; what has more is read with the first of them.
_OPTIONS_MAX: Final = 16


def operand_text(pattern: str) -> str | None:
    """Return a text that every operand which a glob names by itself must hold; None where it names none.

    A pattern of stars alone names none: what it matches for one operand it matches for many.
    """
    operands = [word for word in parse_glob(pattern).words[1:] if not word[0].value.startswith("-")]
    texts = [piece.value for word in operands for piece in word if piece.kind == "text"]
    if texts:
        return max(texts, key=len)
    return "" if any(piece.kind == "one" for word in operands for piece in word) else None


def plainer_commands(program: str, arguments: Sequence[str], *, named: Sequence[str]) -> list[tuple[str, ...]] | None:
    """Return the arguments of every plainer command that the given one does as well; none for most.

    Args:
        program: its plain name.
        arguments: the words behind it.
        named: texts, one of which an operand must hold to be judged by itself (`operand_text`).

    Returns:
        None where more than `OPERANDS_MAX` operands would have to be.
    """
    plain = tuple(map(_plain_path, arguments))
    found = [plain] if plain != tuple(arguments) else []
    if program in _FOR_EACH_OPERAND:
        options = tuple(dict.fromkeys(word for word in plain if _is_option(word)))[:_OPTIONS_MAX]
        operands = [word for word in plain if not _is_option(word)]
        candidates = dict.fromkeys(word for word in operands if any(text in word for text in named))
        if len(candidates) > OPERANDS_MAX:
            return None
        if len(operands) > 1:
            found += [(*options, operand) for operand in candidates]
            found += [(operand,) for operand in candidates if options]
    return found


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")


def _plain_path(word: str) -> str:
    """Return a path without doubled slashes, ``.`` parts and a slash at its end; any other word as it is."""
    if "/" not in word or "://" in word:
        return word
    parts = [part for part in word.split("/") if part not in ("", ".")]
    return ("/" if word.startswith("/") else "") + "/".join(parts) if parts or word.startswith("/") else "."
