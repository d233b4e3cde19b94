"""Patterns and subjects of the operations other than commands: paths, URLs, tools, skills, variables.

Each operation has one normal form for its subject and one way to read its patterns; both stand here side by side, so
that a pattern and the thing it is asked about can never be normalised differently.

| operation                      | subject's normal form                      | `*`                    | `**`        |
|--------------------------------|--------------------------------------------|------------------------|-------------|
| read, write, list, grep        | path without ``.``, ``..`` or doubled ``/``  | within one directory   | any depth   |
| webfetch, egress               | ``scheme://host:port/path?query``            | within host, or path   |             |
| mcp                            | ``server/tool``                              | within one part        |             |
| skill                          | the name                                   | any characters         |             |
| variable                       | ``NAME=value``                               | any characters         |             |

Knows nothing of rules. Pure.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import urlsplit

from guardhouse.limits import POLICY_PATTERN_MAX_CHARS
from guardhouse.policy.language import (
    ANY,
    ANYTHING,
    EMPTY,
    Chars,
    Language,
    Repeat,
    choice,
    concat,
    optional,
)
from guardhouse.policy.patterns import REFUSED_CHARS, PatternError

__all__ = [
    "normalise_path",
    "normalise_subject",
    "normalise_url",
    "parse_subject_pattern",
    "path_below",
    "safe_segment",
    "without_dots",
]

_SEGMENT_CHAR: Final = Chars(frozenset("/"), negated=True)
_HOST_CHAR: Final = Chars(frozenset("/:@?#"), negated=True)
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}


def parse_subject_pattern(operation: str, pattern: str) -> Language:
    """Read a pattern of any operation but ``bash``.

    Raises:
        PatternError: it is empty or cannot match any subject in normal form.
    """
    if not pattern:
        raise PatternError("the pattern is empty; write '*' to match everything")
    if len(pattern) > POLICY_PATTERN_MAX_CHARS:
        raise PatternError(f"the pattern has {len(pattern)} characters; at most {POLICY_PATTERN_MAX_CHARS} are read")
    for char in pattern:
        if char in REFUSED_CHARS:
            raise PatternError(f"a pattern cannot hold U+{ord(char):04X}")
    if pattern in ("*", "**"):
        return ANYTHING
    match operation:
        case "webfetch" | "egress":
            return _parse_url_pattern(pattern)
        case "mcp":
            if pattern.count("/") != 1:
                raise PatternError(f"{pattern!r} is not 'server/tool'; write 'server/*' for every tool of a server")
            return _glob(pattern, star=Repeat(_SEGMENT_CHAR), one=_SEGMENT_CHAR)
        case "skill":
            return _glob(pattern, star=ANYTHING, one=ANY)
        case "variable":
            if "=" not in pattern:
                raise PatternError(f"{pattern!r} is not 'NAME=value'; write '{pattern}=*' for every value")
            return _glob(pattern, star=ANYTHING, one=ANY)
        case _:
            return _parse_path_pattern(pattern)


def normalise_subject(operation: str, subject: str) -> str | None:
    """Return the subject's normal form, or None when it has none: such a subject matches no rule."""
    match operation:
        case "webfetch" | "egress":
            return normalise_url(subject)
        case "read" | "write" | "list" | "grep":
            return normalise_path(subject)
        case _:
            return subject


def normalise_path(path: str) -> str | None:
    """Remove ``.``, ``..`` and doubled slashes by text alone; None for an empty path or one with NUL.

    A relative path is relative to the workspace and may come out beginning with ``..``. Symbolic links are not
    looked at: that a path stays where its text says is the workspace's and the wall's promise, not this one's.
    """
    if not path or "\0" in path:
        return None
    kept: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif part == ".." and path.startswith("/"):
            continue
        else:
            kept.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(kept) or "."


def without_dots(word: str) -> str:
    """Resolve ``..`` in a word that is a path; other words, URLs among them, stay as they are."""
    if ".." not in word or ".." not in word.split("/") or "://" in word:
        return word
    return normalise_path(word) or word


def path_below(directory: str) -> Language:
    """Every way to write a path at or below ``directory`` that has no ``..`` part; ``.`` stands for the workspace.

    Raises:
        PatternError: the directory is not in normal form.
    """
    if normalise_path(directory) != directory:
        raise PatternError(f"{directory!r} is not a normal path; write {normalise_path(directory)!r}")
    tail = Repeat(concat([Repeat("/", 1), safe_segment()]))
    end = optional(Repeat("/", 1))
    if directory == "/":
        return concat([Repeat("/", 1), optional(concat([safe_segment(), tail, end]))])
    if directory == ".":
        plain_first = choice(
            [
                concat([Chars(frozenset("/.-"), negated=True), Repeat(_SEGMENT_CHAR)]),
                concat([".", Chars(frozenset("/."), negated=True), Repeat(_SEGMENT_CHAR)]),
                ".",
            ]
        )
        return concat([plain_first, tail, end])
    return concat([directory, tail, end])


def safe_segment(*, with_dot: bool = True) -> Language:
    """One part of a path that is neither empty nor ``..``, nor ``.`` without ``with_dot``."""
    not_dot = Chars(frozenset("/."), negated=True)
    return choice(
        [
            concat([not_dot, Repeat(_SEGMENT_CHAR)]),
            concat([".", not_dot, Repeat(_SEGMENT_CHAR)]),
            concat(["..", _SEGMENT_CHAR, Repeat(_SEGMENT_CHAR)]),
            *(["."] if with_dot else []),
        ]
    )


def _parse_path_pattern(pattern: str) -> Language:
    if pattern.startswith("~"):
        raise PatternError(f"{pattern!r}: no home directory is known here; write the path itself")
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts and (pattern.startswith("/") or parts[0] != ".."):
        raise PatternError(f"{pattern!r} holds '..' behind another part and can never match; write the path itself")
    languages: list[Language] = []
    for index, part in enumerate(parts):
        lead = "/" if index or pattern.startswith("/") else ""
        if part == "**" and index == len(parts) - 1:
            # `/var/log/**` is the directory and everything below it.
            languages.append(optional(concat([lead, ANYTHING])) if index else concat([lead, ANYTHING]))
        elif part == "**":
            languages.append(
                optional(concat([lead, Repeat(_SEGMENT_CHAR, 1), Repeat(concat(["/", Repeat(_SEGMENT_CHAR, 1)]))]))
            )
        else:
            if "**" in part:
                raise PatternError(f"{pattern!r}: '**' must be a whole part between slashes")
            languages.append(concat([lead, _glob(part, star=Repeat(_SEGMENT_CHAR), one=_SEGMENT_CHAR)]))
    if not parts:
        return "/" if pattern.startswith("/") else "."
    return concat(languages)


def _glob(pattern: str, *, star: Language, one: Language) -> Language:
    parts: list[Language] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            parts.append(star)
        elif char == "?":
            parts.append(one)
        elif char == "\\":
            if position == len(pattern):
                raise PatternError(r"the pattern ends in a lone backslash; write '\\' for a backslash itself")
            parts.append(pattern[position])
            position += 1
        else:
            parts.append(char)
    return concat(parts)


def normalise_url(url: str) -> str | None:
    """Return ``scheme://host:port/path?query`` with a lower-case host, no user and no fragment, or None.

    None for what has no host, carries a user or password, or holds blanks, controls or a backslash: two readers may
    disagree on where such a URL leads. None as well for a host that only some readers take for an address
    (``http://2130706433/``, ``http://0x7f.1/``), which would pass a rule about the address that it means.
    """
    if any(char.isspace() or ord(char) < 0x20 or ord(char) == 0x7F or char == "\\" for char in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if not host or "@" in parts.netloc or (port is None and scheme not in _DEFAULT_PORTS):
        return None
    try:
        host = host.encode("idna").decode("ascii").lower() if not host.isascii() else host
    except UnicodeError:
        return None
    shown_host = _normal_host(host.rstrip("."))
    if shown_host is None or ("[" in parts.netloc) is not shown_host.startswith("["):
        return None
    path = normalise_path(parts.path) if parts.path else "/"
    if path is None:
        return None
    if parts.path.endswith("/") and path != "/":
        path += "/"
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{shown_host}:{port if port is not None else _DEFAULT_PORTS[scheme]}{path}{query}"


def _normal_host(host: str) -> str | None:
    """Return a name as it is, an address in its one usual form (in brackets with colons), or None for neither."""
    if ":" in host:
        try:
            # Without a zone ("fe80::1%eth0"): it means something on one host alone.
            return f"[{IPv6Address(host)}]" if "%" not in host else None
        except ValueError:
            return None
    # "Ends in a number" of the URL standard (url.spec.whatwg.org, 3.5): such a host is an address or nothing.
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            return None
    return host or None


def _parse_url_pattern(pattern: str) -> Language:
    """``[scheme://]host[:port][/path]``; what is left out matches anything, save that a port follows its scheme."""
    scheme, separator, rest = pattern.partition("://")
    if not separator:
        scheme, rest = "*", pattern
    authority, slash, path = rest.partition("/")
    if "@" in authority or not authority:
        raise PatternError(f"{pattern!r} has no host, or a user in front of it; write 'https://host/path'")
    host, port = _split_port(authority, pattern)
    if scheme == "*":
        scheme_language: Language = Repeat(Chars(frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-")), 1)
    else:
        scheme_language = scheme.lower()
    if port is None and scheme.lower() in _DEFAULT_PORTS:
        port_language: Language = str(_DEFAULT_PORTS[scheme.lower()])
    elif port in (None, "*"):
        port_language = Repeat(Chars(frozenset("0123456789")), 1)
    else:
        port_language = str(port)
    host_language = _host_language(host.lower(), pattern)
    path_language = concat(["/", _glob(path, star=ANYTHING, one=ANY)]) if slash else concat(["/", ANYTHING])
    return concat([scheme_language, "://", host_language, ":", port_language, path_language])


def _split_port(authority: str, pattern: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        host, bracket, tail = authority.partition("]")
        host += bracket
        port = tail.removeprefix(":") if tail else None
    elif ":" in authority:
        host, _, port = authority.rpartition(":")
    else:
        host, port = authority, None
    if port is not None and port != "*" and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise PatternError(f"{pattern!r}: {port!r} is no port")
    return host, port


def _host_language(host: str, pattern: str) -> Language:
    if host == "*":
        return Repeat(Chars(frozenset("/?#@"), negated=True), 1)
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise PatternError(f"{pattern!r}: {host!r} is no host name") from None
    if host.startswith("["):
        shown_host = _normal_host(host[1:-1]) if host.endswith("]") else None
        if shown_host is None or not shown_host.startswith("["):
            raise PatternError(f"{pattern!r}: {host!r} is no IPv6 address in brackets")
        return shown_host
    host = host.rstrip(".")
    if not {"*", "?", "\\"} & set(host) and _normal_host(host) != host:
        raise PatternError(f"{pattern!r}: {host!r} can never match; write the name, or the address as in 192.0.2.1")
    return _glob(host, star=Repeat(_HOST_CHAR), one=_HOST_CHAR) or EMPTY
