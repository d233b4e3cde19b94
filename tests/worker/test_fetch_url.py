"""URLs: one normal form for the policy and the request; what two readers could take differently is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.policy.subjects import normalise_url
from guardhouse.worker.fetch_protocol import FetchRefused
from guardhouse.worker.fetch_url import check_port, decide_redirect, parse_fetch_url, rule_names_port


@pytest.mark.parametrize(
    ("given_text", "normal"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM:443/A?b=C#frag", "https://example.com/A?b=C"),
        ("http://example.com:8080/", "http://example.com:8080/"),
        ("http://example.com./x", "http://example.com/x"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/a/%2e%2E/c", "http://example.com/c"),
        ("http://example.com/../../x", "http://example.com/x"),
        ("http://example.com/a/..", "http://example.com/"),
        ("http://example.com/a%2Fb//c", "http://example.com/a%2Fb//c"),
        ("http://b\u00fccher.example/\u00fc?\u00fc", "http://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ("http://stra\u00dfe.example/", "http://xn--strae-oqa.example/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1/"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("http://h/a\"<>|{}'", "http://h/a%22%3C%3E%7C%7B%7D'"),
    ],
)
def test_normal_form(given_text: str, normal: str) -> None:
    """What is asked for is this, byte for byte."""
    url = parse_fetch_url(given_text)
    assert url.text == normal or (url.text, normal) == ("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/")
    assert parse_fetch_url(url.text) == url


@pytest.mark.parametrize(
    "text",
    [
        "", "example.com", "ftp://example.com/", "file:///etc/passwd", "gopher://x/", "javascript:1", "http://", "http:///x",
        "http://user@example.com/", "http://u:p@example.com/", "http://example.com@127.0.0.1/", "http://a b/", "http://a\\b/",
        "http://a/\n", "\thttp://a/", "http://a:0/", "http://a:65536/", "http://a:x/", "http://a:/", "http://2130706433/",
        "http://0x7f.1/", "http://127.1/", "http://0177.0.0.1/", "http://1.2.3.4.5/", "http://0x7f000001/", "http://1.2.3.256/",
        "http://[::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/", "http://[v1.x]/", "http://a..b/", "http://-a/",
        "http://a%2eb/", "http://exa\u2024mple\u3002/x y", "http://xn--/", "http://a/%", "http://a/%zz", "http://a/?%1",
        "http://" + "a" * 64 + ".example/", "http://a/" + "x" * 9000, "http://a\x00b/", "http://a/\udc9c",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    """Other schemes, users, numbers that are no plain address, and whatever is no host."""
    with pytest.raises(FetchRefused, match="valid http/https url is required") as caught:
        parse_fetch_url(text)
    assert caught.value.code == "invalid_url"
    assert ":p@" not in str(caught.value)


@given(st.text(alphabet="htps:/.@[]%2eE\\ ?#a0\u00fc-_", max_size=30).map(lambda tail: "http://a" + tail))
def test_the_policy_reads_the_same_host(text: str) -> None:
    """Of every URL that is fetched, the policy sees the very host, port and scheme that are asked."""
    try:
        url = parse_fetch_url(text)
    except FetchRefused:
        return
    seen = normalise_url(url.text)
    assert seen is not None
    host = f"[{url.host}]" if ":" in url.host else url.host
    assert seen.startswith(f"{url.scheme}://{host}:{url.port}/")
    assert url.text.isascii()


@pytest.mark.parametrize(
    ("url", "any_port", "passes"),
    [
        ("http://a/", False, True),
        ("https://a/", False, True),
        ("http://a:443/", False, True),
        ("https://a:8443/", False, False),
        ("https://a:8443/", True, True),
        ("http://a:22/", False, False),
    ],
)
def test_ports(url: str, any_port: bool, passes: bool) -> None:
    """80 and 443, and others where a rule names them."""
    if passes:
        check_port(parse_fetch_url(url), any_port=any_port)
    else:
        with pytest.raises(FetchRefused, match="neither 80 nor 443"):
            check_port(parse_fetch_url(url), any_port=any_port)


@pytest.mark.parametrize(
    ("pattern", "port", "names"),
    [
        ("https://h:8443/*", 8443, True), ("h:8443", 8443, True), ("https://h:8443", 443, False),
        ("https://h/*", 443, False),
        ("*", 8443, False), ("https://h:*/x", 8443, False), ("https://[::1]:8443/", 8443, True),
        ("https://[::8443]/", 8443, False),
        ("https://h/a:8443", 8443, False),
    ],
)  # fmt: skip
def test_a_rule_that_names_a_port(pattern: str, port: int, names: bool) -> None:
    """Only a port written as such opens one."""
    assert rule_names_port(pattern, port) is names


HTTPS = parse_fetch_url("https://a.example/x/y?z")
HTTP = parse_fetch_url("http://a.example/x/y?z")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b", "https://a.example/b"),
        ("b", "https://a.example/x/b"),
        ("?q", "https://a.example/x/y?q"),
        ("//b.example/c", "https://b.example/c"),
        ("https://b.example", "https://b.example/"),
        (" /b\t", "https://a.example/b"),
    ],
)
def test_redirects(location: str, target: str) -> None:
    """A Location is read relative to what was asked for."""
    found = decide_redirect(HTTPS, 302, location, hops=0)
    assert found is not None
    assert found.text == target


@pytest.mark.parametrize("status", [200, 204, 300, 304, 305, 404, 500])
def test_no_redirect(status: int) -> None:
    """Other statuses lead nowhere, whatever their Location says."""
    assert decide_redirect(HTTPS, status, "/b", hops=0) is None


@pytest.mark.parametrize(
    ("url", "location", "hops", "words"),
    [
        (HTTPS, "http://a.example/", 0, "would leave https"),
        (HTTPS, "/b", 10, "too many redirects"),
        (HTTPS, None, 0, "without a Location"),
        (HTTPS, "", 0, "without a Location"),
        (HTTP, "file:///etc/passwd", 0, "valid http/https url"),
        (HTTP, "http://u:p@h/", 0, "user or a password"),
        (HTTP, "http://127.1/", 0, "no address in four"),
        (HTTP, "http://a/\r\nx", 0, "valid http/https url"),
        (HTTP, "http://[/", 0, "valid http/https url"),
    ],
)
def test_refused_redirects(url, location, hops, words) -> None:
    """Loops, downgrades and targets that are no URL."""
    with pytest.raises(FetchRefused, match=words):
        decide_redirect(url, 302, location, hops=hops)


def test_http_to_https_is_a_redirect() -> None:
    """The twin of the downgrade."""
    assert decide_redirect(HTTP, 301, "https://a.example/", hops=9) is not None
