"""A second destination behind a star: ``curl -s https://status.example.com*`` and an argument that names another host.

A glob's star crosses words, so a rule that names one URL also matches a command that asks a second one, goes through
a proxy, or hides a host behind a user name (``https://status.example.com@10.0.0.1/``). Changing what a pattern matches
would make policies unreadable; instead, where a rule for a known client names a URL, a command that also connects
elsewhere is doubted: undecided at gate one, refused at gate two. An option that the rule itself writes out is the
author's word and is not doubted. Where a server redirects to, and where a resolver sends a name, no text can tell:
the wall bounds that (docs/egress.md).

Knows patterns and options; knows nothing of decisions. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from guardhouse.policy.knowledge.clients import CLIENTS, Client
from guardhouse.policy.patterns import GlobPiece, parse_glob

__all__ = ["Argument", "why_connects_elsewhere"]

_SCHEME_END: Final = "://"
# What ends the host part of a URL (RFC 3986, 3.2); curl takes a backslash for none.
_HOST_END: Final = "/?#"
# Of a host part's characters, those that make it another host than the one that it begins with: a user name, escapes,
# curl's own lists ({a,b}, [1-9]).
_HOST_CHANGERS: Final = "@{}[]\\% \t\r\n"


@dataclass(frozen=True, slots=True)
class Argument:
    """A word behind the program: ``start`` is what is known of it from its beginning, all of it if ``is_whole``."""

    start: str
    is_whole: bool = True


def why_connects_elsewhere(pattern: str, program: str, arguments: Sequence[Argument]) -> str | None:
    """Return why the command may connect to more than ``pattern`` names, or None.

    Args:
        pattern: the glob of the rule that allows the command.
        program: the plain name of the program that runs.
        arguments: the words behind it.
    """
    client = CLIENTS.get(program)
    if client is None:
        return None
    named = _named(pattern)
    if not named.urls:
        return None
    takes_value = False
    for index, argument in enumerate(arguments):
        text = argument.start
        if takes_value:
            takes_value = False
            continue
        if text == "--" and argument.is_whole:
            rest = arguments[index + 1 :]
            return next((why for why in (_doubt_url(named, word) for word in rest) if why), None)
        if not text.startswith("-") or text == "-":
            why = _doubt_url(named, argument)
            if why:
                return why
            continue
        option, takes_value, why = _read_option(client, argument)
        if option in named.options:
            # Behind --url stands a destination like any other.
            takes_value = takes_value or (option in client.elsewhere and option == text != "--url")
        elif why:
            return f"{why}, and the rule names {named.urls[0].shown} alone"
    return None


@dataclass(frozen=True, slots=True)
class _Url:
    pieces: tuple[GlobPiece, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class _Named:
    """What a pattern says of destinations: its URLs, and the options that it writes out."""

    urls: tuple[_Url, ...]
    options: frozenset[str]


@lru_cache(maxsize=1_024)
def _named(pattern: str) -> _Named:
    urls, options = [], set()
    for word in parse_glob(pattern).words[1:]:
        text = "".join(piece.value if piece.kind == "text" else "*" for piece in word)
        if text.startswith("-"):
            options.add(text.partition("=")[0])
        elif _SCHEME_END in text:
            urls.append(_Url(word, repr(text)))
    return _Named(tuple(urls), frozenset(options))


def _read_option(client: Client, argument: Argument) -> tuple[str, bool, str | None]:
    """Return the option, whether the next word is its value, and why it leads elsewhere, if so."""
    text = argument.start
    if not argument.is_whole:
        return text, False, f"an option that begins with {text!r} is not known from the text"
    if text.startswith("--"):
        name, joined, _ = text.partition("=")
        if name in client.valued:
            return name, not joined, None
        # Both programs take an abbreviation for the option that it begins.
        led = next((option for option in sorted(client.elsewhere) if option.startswith(name)), None)
        return name, False, None if led is None else f"{name} can name another destination"
    for position, letter in enumerate(text[1:], 1):
        option = f"-{letter}"
        if option in client.elsewhere:
            return option, False, f"{option} can name another destination"
        if option in client.valued:
            return option, position == len(text) - 1, None
    return text, False, None


def _doubt_url(named: _Named, argument: Argument) -> str | None:
    text = argument.start
    if any(_is_within(url, argument) for url in named.urls):
        return None
    shown = repr(text) if argument.is_whole else "a word that is not known from the text"
    return f"{shown} may be another destination than the rule's {named.urls[0].shown}"


def _is_within(url: _Url, argument: Argument) -> bool:
    """Whether the word is this URL of the rule, the host that it names included."""
    scheme, found, rest = argument.start.partition(_SCHEME_END)
    if not found or not scheme:
        return False
    length = min((at for at in map(rest.find, _HOST_END) if at >= 0), default=-1)
    if length < 0 and not argument.is_whole:
        return False
    host = rest if length < 0 else rest[:length]
    written = "".join(piece.value for piece in url.pieces if piece.kind == "text")
    if any(char in host and char not in written for char in _HOST_CHANGERS):
        return False
    # What is not known comes behind the host: it may be anything where the rule ends in a star.
    return _fits(url.pieces, argument.start) and (argument.is_whole or url.pieces[-1].kind == "star")


def _fits(pieces: Sequence[GlobPiece], text: str) -> bool:
    """Whether one word fits the pieces; linear in the text for each star."""
    at, back_piece, back_at, index = 0, -1, 0, 0
    while True:
        if index == len(pieces):
            if at == len(text):
                return True
        else:
            piece = pieces[index]
            if piece.kind == "star":
                back_piece, back_at, index = index, at, index + 1
                continue
            step = len(piece.value) if piece.kind == "text" else 1
            fits = text.startswith(piece.value, at) if piece.kind == "text" else at < len(text)
            if fits:
                at, index = at + step, index + 1
                continue
        if back_piece < 0 or back_at >= len(text):
            return False
        back_at += 1
        at, index = back_at, back_piece + 1
