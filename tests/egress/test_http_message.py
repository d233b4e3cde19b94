"""HTTP through the proxy: what a request asks for, what goes on to the origin, and what can be read in two ways."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.egress.host import Authority
from guardhouse.egress.http_message import (
    judged_urls,
    make_error_response,
    make_origin_request,
    make_response,
    read_request,
)
from guardhouse.errors import PeerError


def parse(raw: bytes) -> h11.Request:
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    return event


def ask(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> h11.Request:
    lines = [f"{method} {target} HTTP/{version}", "Host: elsewhere.example", *headers]
    return parse("\r\n".join([*lines, "", ""]).encode())


def at_origin(request: h11.Request) -> bytes:
    sent = h11.Connection(h11.CLIENT).send(make_origin_request(read_request(request), request))
    assert sent is not None
    return sent


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        ("http://Example.com/a?b=c", Authority("example.com", 80), "/a?b=c"),
        ("HTTP://example.com:8080", Authority("example.com", 8080), "/"),
        ("http://example.com?q", Authority("example.com", 80), "/?q"),
        ("http://[::1]:81/x", Authority("::1", 81), "/x"),
        ("http://example.com/%7Eme/a%20b", Authority("example.com", 80), "/%7Eme/a%20b"),
        ("http://example.com//a//b?c=/../d", Authority("example.com", 80), "//a//b?c=/../d"),
    ],
)
def test_absolute_form(target: str, authority: Authority, path: str) -> None:
    """Scheme, host and port are read; path and query stay as they are."""
    request = read_request(ask(target))
    assert (request.authority, request.path, request.is_tunnel) == (authority, path, False)


def test_connect() -> None:
    """CONNECT names host and port."""
    request = read_request(ask("Example.com:443", method="CONNECT"))
    assert (request.authority, request.is_tunnel) == (Authority("example.com", 443), True)


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/", "GET"), ("*", "OPTIONS"), ("example.com", "GET"), ("https://example.com/", "GET"),
        ("ftp://example.com/", "GET"), ("http://", "GET"), ("http:///a", "GET"), ("http://u:p@example.com/", "GET"),
        ("http://example.com/a#b", "GET"), ("http://example.com\\@evil.com/", "GET"),
        ("http://evil.com#@example.com/", "GET"), ("http://example.com:0/", "GET"), ("http://0x7f.1/", "GET"),
        ("http://2130706433/", "GET"), ("http://example.com/a/../b", "GET"), ("http://example.com/%2e%2E/b", "GET"),
        ("http://example.com/./b", "GET"), ("http://example.com/a/..", "GET"), ("http://example.com/%", "GET"),
        ("http://example.com/%zz", "GET"), ("http://example.com/a%2", "GET"),
        ("example.com", "CONNECT"), ("example.com:", "CONNECT"), ("http://example.com:443", "CONNECT"),
        ("example.com:443/", "CONNECT"), ("u@example.com:443", "CONNECT"), ("127.1:443", "CONNECT"),
    ],
)  # fmt: skip
def test_refused_targets(target: str, method: str) -> None:
    """What is not asked as a proxy is asked, or could lead to two places, is refused."""
    with pytest.raises(PeerError):
        read_request(ask(target, method=method))


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        (("Transfer-Encoding: chunked", "Content-Length: 3"), "1.1"),
        (("Content-Length: 3", "Transfer-Encoding: chunked"), "1.1"),
        (("Transfer-Encoding: chunked",), "1.0"),
    ],
)
def test_two_framings_are_refused(headers: tuple[str, ...], version: str) -> None:
    """Request smuggling begins with a body that ends in two places."""
    with pytest.raises(PeerError, match="two framings"):
        read_request(ask("http://example.com/", *headers, method="POST", version=version))


@pytest.mark.parametrize(
    "raw",
    [
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET http://a.example/ x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a.example/\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_malformed_heads_are_refused_by_the_reader(raw: bytes) -> None:
    """What one parser may frame so and another so never becomes a request."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    with pytest.raises(h11.RemoteProtocolError):
        server.next_event()


@pytest.mark.parametrize("version", ["0.9", "2.0", "9.9"])
def test_other_versions_are_refused(version: str) -> None:
    """Only HTTP/1.0 and HTTP/1.1 have the framing that is judged."""
    with pytest.raises(PeerError, match="not spoken"):
        read_request(ask("http://example.com/", version=version))


def test_the_origin_gets_its_own_form() -> None:
    """Origin form, the URL's host instead of the client's, no hop-by-hop header, one request to a connection."""
    sent = at_origin(
        ask("http://Example.com:8080/a", "Proxy-Authorization: Basic c2VjcmV0", "Proxy-Connection: keep-alive",
            "Connection: keep-alive, X-Mine", "X-Mine: 1", "X-Other: 2", "TE: trailers", "Upgrade: websocket",
            "Keep-Alive: 300", "Cookie: c=d")
    )  # fmt: skip
    assert sent == (
        b"GET /a HTTP/1.1\r\nHost: example.com:8080\r\nX-Other: 2\r\nCookie: c=d\r\nConnection: close\r\n\r\n"
    )


def test_a_connection_header_cannot_take_framing_along() -> None:
    """Naming Content-Length or Host in Connection does not drop them: the origin would read the body as a request."""
    asked = ask("http://example.com/", "Content-Length: 5", "Connection: content-length, host, close", method="POST")
    sent = at_origin(asked)
    assert b"\r\nContent-Length: 5\r\n" in sent
    assert sent.count(b"Host: ") == 1


def test_chunked_stays_chunked() -> None:
    """A body of unknown length is chunked anew."""
    sent = at_origin(ask("http://example.com/", "Transfer-Encoding: Chunked", method="PUT"))
    assert sent.endswith(b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")


def test_judged_urls_undo_needless_escapes() -> None:
    """An origin that decodes sees /admin, so that is asked about too."""
    assert judged_urls(read_request(ask("http://a.example/%61dmin%2Fx?%41=%20"))) == (
        "http://a.example/%61dmin%2Fx?%41=%20",
        "http://a.example/admin%2Fx?A=%20",
    )
    assert judged_urls(read_request(ask("http://a.example/admin"))) == ("http://a.example/admin",)


def test_response_headers() -> None:
    """Headers of the origin's connection stay behind; a length beside chunks does too."""
    origin = h11.Response(
        status_code=200,
        headers=[("Connection", "close, X-Hop"), ("X-Hop", "1"), ("Transfer-Encoding", "chunked"),
                 ("Content-Length", "3"), ("Proxy-Authenticate", "Basic"), ("Upgrade", "h2c"), ("Set-Cookie", "a=b"),
                 ("Set-Cookie", "c=d"), ("X-Kept", "Yes")],
        reason=b"Fine",
    )  # fmt: skip
    passed = make_response(origin)
    assert passed.headers.raw_items() == [(b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d"), (b"X-Kept", b"Yes")]
    assert passed.reason == b"Fine"


def test_error_response() -> None:
    """A refusal is one line of text that says who refuses."""
    response, body = make_error_response(403, "no entry covers 'evil.com'")
    assert body == b"guardhouse egress proxy: no entry covers 'evil.com'\n"
    assert dict(response.headers)[b"content-length"] == str(len(body)).encode()


@given(st.binary(max_size=200))
def test_any_target_is_read_or_refused(data: bytes) -> None:
    """Whatever stands in the request line, the answer is a request or a refusal."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"GET http://" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        event = server.next_event()
        if isinstance(event, h11.Request):
            request = read_request(event)
            assert b"\r\n\r\n" in at_origin(event)
            assert all(url.startswith("http://") for url in judged_urls(request))
    except (h11.RemoteProtocolError, PeerError):
        return
