"""Which URLs can be fetched, their one normal form, and where a redirect may lead. Pure.

The normal form is what the policy is asked about and what is requested, byte for byte, so that the two cannot differ:
ASCII throughout (IDNA 2008 with UTS 46 mapping), no user, no fragment, no dot segments, however they were encoded.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from guardhouse.egress.host import HostError, parse_host
from guardhouse.limits import FETCH_REDIRECTS_MAX, FETCH_URL_MAX_CHARS
from guardhouse.worker.fetch_protocol import FetchRefused

__all__ = ["DEFAULT_PORTS", "FetchUrl", "check_port", "decide_redirect", "parse_fetch_url", "rule_names_port"]

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Half a surrogate pair is no character: nothing could send it.
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOT: Final = re.compile(r"\.|%2[eE]")
# What RFC 3986 lets stand in a path or query; '%' stays, since escapes have been checked.
_SAFE_PATH: Final = "!$%&'()*+,-./:;=@_~"
_SAFE_QUERY: Final = _SAFE_PATH + "?"


@dataclass(frozen=True, slots=True)
class FetchUrl:
    """A URL that may be asked for, in parts.

    Attributes:
        scheme: ``http`` or ``https``.
        host: a name in ASCII and lower case, or an address without brackets.
        port: 1 to 65535.
        target: path and query, as the request line has them.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's, port, as in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The whole in its normal form."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an address and no name."""
        return ":" in self.host or self.host.replace(".", "").isdigit()


def parse_fetch_url(text: str) -> FetchUrl:
    """Return the URL in ``text``.

    Raises:
        FetchRefused: ``invalid_url``: not http or https, a user or password, a host that is none, a blank or control
            character, a number that only some read as an address.
    """
    shown = repr(text[:200])
    if len(text) > FETCH_URL_MAX_CHARS:
        raise _invalid(f"{shown}… has {len(text)} characters; at most {FETCH_URL_MAX_CHARS} are taken")
    if _FORBIDDEN.search(text):
        raise _invalid(f"{shown} holds a blank, a control character or a backslash; encode it as %XX")
    try:
        parts = urlsplit(text)
        port = parts.port
        name = parts.hostname or ""
    except ValueError as error:
        raise _invalid(f"{shown}: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not name:
        raise _invalid(f"{shown} is none")
    if "@" in parts.netloc:
        raise _invalid("it carries a user or a password, which is not shown; leave it out")
    if port == 0 or parts.netloc.endswith(":"):
        raise _invalid(f"{shown} has no usable port")
    host = _host(name, is_bracketed=parts.netloc.startswith("["), shown=shown)
    return FetchUrl(scheme, host, port or DEFAULT_PORTS[scheme], _target(parts.path, parts.query, shown))


def check_port(url: FetchUrl, *, any_port: bool) -> None:
    """Let 80 and 443 pass, and every port that a rule of the policy names.

    Raises:
        FetchRefused: ``port_refused``.
    """
    if url.port not in DEFAULT_PORTS.values() and not any_port:
        raise FetchRefused(
            f"webfetch denied: port {url.port} of {url.text[:200]!r} is neither 80 nor 443; a webfetch rule that names"
            f" it ('{url.scheme}://{url.authority}/*') opens it",
            code="port_refused",
        )


def rule_names_port(pattern: str, port: int) -> bool:
    """Tell whether a webfetch rule's pattern names ``port`` itself: ``https://host:8443/*``; ``:*`` names none."""
    authority = pattern.partition("://")[2] or pattern
    authority = authority.partition("/")[0]
    return authority.rpartition("]")[2].rpartition(":")[2] == str(port) and ":" in authority.rpartition("]")[2]


def decide_redirect(current: FetchUrl, status: int, location: str | None, *, hops: int) -> FetchUrl | None:
    """Return where the answer ``status`` to ``current`` leads; None when it is no redirect.

    Args:
        current: what was asked for.
        status: of the answer.
        location: its Location header.
        hops: redirects followed so far.

    Raises:
        FetchRefused: ``bad_redirect``: too many, nowhere, or from https to http; ``invalid_url`` for a bad target.
    """
    if status not in _REDIRECTS:
        return None
    if hops >= FETCH_REDIRECTS_MAX:
        raise FetchRefused(
            f"too many redirects: {FETCH_REDIRECTS_MAX} were followed, the last to {current.text[:200]!r}",
            code="bad_redirect",
            status=status,
        )
    if not location:
        raise FetchRefused(
            f"{current.text[:200]!r} answers {status} without a Location to go to", code="bad_redirect", status=status
        )
    location = location.strip(" \t")
    if _FORBIDDEN.search(location):
        raise _invalid(f"redirect to {location[:200]!r}, which holds a blank, a control character or a backslash")
    try:
        joined = urljoin(current.text, location)
    except ValueError as error:
        raise _invalid(f"redirect to {location[:200]!r}: {error}") from None
    target = parse_fetch_url(joined)
    if current.scheme == "https" and target.scheme == "http":
        raise FetchRefused(
            f"redirect from {current.text[:200]!r} to {target.text[:200]!r} would leave https; fetch that address"
            " itself if it is what you want",
            code="bad_redirect",
            status=status,
        )
    return target


def _invalid(why: str) -> FetchRefused:
    return FetchRefused(f"valid http/https url is required: {why}", code="invalid_url")


def _host(name: str, *, is_bracketed: bool, shown: str) -> str:
    try:
        return parse_host(name, is_bracketed=is_bracketed)
    except HostError as error:
        raise _invalid(f"{shown}: {error}") from None


def _target(path: str, query: str, shown: str) -> str:
    if _BAD_ESCAPE.search(path) or _BAD_ESCAPE.search(query):
        raise _invalid(f"{shown} holds a '%' without two hexadecimal digits; write %25 for the character itself")
    kept: list[str] = []
    segments = path.split("/")[1:] if path else [""]
    for number, segment in enumerate(segments):
        dots = _DOT.sub(".", segment)
        is_last = number == len(segments) - 1
        if dots == "..":
            if kept:
                kept.pop()
        elif dots != ".":
            kept.append(segment)
            continue
        if is_last:
            kept.append("")
    text = "/" + quote("/".join(kept), safe=_SAFE_PATH)
    return f"{text}?{quote(query, safe=_SAFE_QUERY)}" if query else text
