"""Any text as a URL to fetch, and any text as a redirect from it: one normal form that parses to itself, or a refusal.

The input is a URL, a newline, and what a server would write as `Location`. What the policy is asked about is exactly
what is requested: no user, no blank, no second reading of the host.
"""

from urllib.parse import urlsplit

from driver import main
from guardhouse.egress.address import why_not_public
from guardhouse.worker.fetch_protocol import FetchRefused
from guardhouse.worker.fetch_url import FetchUrl, check_port, decide_redirect, parse_fetch_url


def check(url: FetchUrl) -> None:
    """Hold what is promised of a URL that was not refused."""
    assert parse_fetch_url(url.text) == url, "the normal form is another URL"
    assert url.scheme in {"http", "https"}
    assert 1 <= url.port <= 65_535
    assert url.text.isascii()
    assert not any(ord(letter) <= 0x20 or letter in "\\\x7f" for letter in url.text)
    parts = urlsplit(url.text)
    assert (parts.username, parts.password, parts.fragment) == (None, None, "")
    assert parts.hostname == url.host, "another reader sees another host"
    assert (parts.port or {"http": 80, "https": 443}[parts.scheme]) == url.port
    why_not_public(url.host)
    try:
        check_port(url, any_port=False)
    except FetchRefused:
        assert url.port not in {80, 443}


def fuzz_one(data: bytes) -> None:
    text, _, location = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        url = parse_fetch_url(text)
        check(url)
        target = decide_redirect(url, 302, location, hops=0)
    except FetchRefused:
        return
    if target is not None:
        check(target)
        assert not (url.scheme == "https" and target.scheme == "http"), "a redirect gave up TLS"


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
