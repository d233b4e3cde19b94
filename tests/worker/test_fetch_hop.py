"""One hop against servers that misbehave, on loopback under a grant: each ends in time, with a reason."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import trustme

from guardhouse.worker.fetch import USER_AGENT, Loaded, fetch_hop
from guardhouse.worker.fetch_connection import Deadline
from guardhouse.worker.fetch_protocol import FetchRefused, HopArgs, HopResult

LOOPBACK = ("127.0.0.1/32",)
CA = trustme.CA()
Handler = Callable[[socket.socket, bytes], None]


@cache
def loaded() -> Loaded:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return Loaded(context)


@contextmanager
def serving(handler: Handler, *, tls: str | None = None) -> Iterator[int]:
    """Serve connections with ``handler(socket, request)`` on a loopback port, each in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            CA.issue_cert(tls).configure_cert(context)

        def one(sock: socket.socket) -> None:
            try:
                with sock if context is None else context.wrap_socket(sock, server_side=True) as stream:
                    stream.settimeout(5)
                    request = b""
                    while b"\r\n\r\n" not in request:
                        data = stream.recv(65_536)
                        if not data:
                            return
                        request += data
                    handler(stream, request)
            except OSError:
                return

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def answering(body: bytes, *, status: str = "200 OK", headers: str = "Content-Type: text/plain\r\n") -> Handler:
    def handler(sock: socket.socket, request: bytes) -> None:
        sock.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)

    return handler


def hop(port: int, path: str = "/", *, limit_s: float = 5, scheme: str = "http", host: str = "127.0.0.1", **more: Any):
    args = HopArgs(url=f"{scheme}://{host}:{port}{path}", any_port=True, **{"networks": LOOPBACK, **more})
    return fetch_hop(args, Deadline(limit_s), loaded())


def refused(handler: Handler, *, limit_s: float = 5, **more: Any) -> FetchRefused:
    with serving(handler) as port, pytest.raises(FetchRefused) as caught:
        hop(port, limit_s=limit_s, **more)
    return caught.value


def test_a_page_comes() -> None:
    """The twin of all that follows: a page is fetched, and the request says honestly who asks for what."""
    seen = []

    def handler(sock: socket.socket, request: bytes) -> None:
        seen.append(request)
        answering(b"hello")(sock, request)

    with serving(handler) as port:
        assert hop(port, "/a?b=c") == (HopResult(status=200, content_type="text/plain"), b"hello")
    text = seen[0].decode()
    assert text.startswith("GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n" in text
    assert f"User-Agent: {USER_AGENT}\r\n" in text
    assert USER_AGENT.startswith("guardhouse/")
    assert "Accept: text/markdown" in text
    assert "Cookie" not in text


def test_loopback_needs_a_grant() -> None:
    """Without the grant the same page is refused before anything is connected."""
    with serving(answering(b"x")) as port, pytest.raises(FetchRefused, match="loopback") as caught:
        hop(port, networks=())
    assert caught.value.code == "address_refused"


def test_the_port_needs_a_rule() -> None:
    """Without a rule that names the port it is refused."""
    with pytest.raises(FetchRefused) as caught:
        fetch_hop(HopArgs(url="http://127.0.0.1:22/", networks=LOOPBACK), Deadline(5), loaded())
    assert caught.value.code == "port_refused"


def answer_with(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to ``answers``, one after the other; return the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_is_resolved_once_and_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer that leads elsewhere (rebinding) is never asked for; Host keeps the name."""
    seen = []

    def handler(sock: socket.socket, request: bytes) -> None:
        seen.append(request)
        answering(b"ok")(sock, request)

    with serving(handler) as port:
        asked = answer_with(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
        assert hop(port, host="web.example")[1] == b"ok"
    assert asked == ["web.example"]
    assert f"Host: web.example:{port}".encode() in seen[0]


def test_a_mixed_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address in a name's answer refuses the name."""
    answer_with(monkeypatch, ["127.0.0.1", "10.0.0.1"])
    with pytest.raises(FetchRefused, match=r"leads to 10\.0\.0\.1, which is private"):
        hop(80, host="web.example")


def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is said to."""

    def getaddrinfo(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(FetchRefused, match="does not resolve: Name or service not known") as caught:
        hop(80, host="nowhere.example")
    assert caught.value.code == "unresolved"


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several granted addresses the first that answers is taken."""
    with serving(answering(b"ok")) as port:
        answer_with(monkeypatch, ["127.0.0.2", "127.0.0.1"])
        assert hop(port, host="web.example", networks=("127.0.0.0/8",))[1] == b"ok"


def test_https_with_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is checked against the name although the connection goes to an address."""
    with serving(answering(b"secure"), tls="web.example") as port:
        answer_with(monkeypatch, ["127.0.0.1"])
        assert hop(port, scheme="https", host="web.example")[1] == b"secure"


def test_https_with_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate for another name is refused."""
    with serving(answering(b"secure"), tls="other.example") as port:
        answer_with(monkeypatch, ["127.0.0.1"])
        with pytest.raises(FetchRefused, match="not trusted") as caught:
            hop(port, scheme="https", host="web.example")
    assert caught.value.code == "tls_failed"


def test_https_to_a_plain_server() -> None:
    """No TLS there is a TLS failure, not a hang."""
    with serving(answering(b"x")) as port, pytest.raises(FetchRefused) as caught:
        hop(port, scheme="https", limit_s=8)
    assert caught.value.code in ("tls_failed", "connect_failed")


def test_nobody_listens() -> None:
    """A closed port is a failed connection that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(FetchRefused, match=r"127\.0\.0\.1: Connection refused") as caught:
        hop(port)
    assert caught.value.code == "connect_failed"


def test_a_redirect_is_reported_and_not_followed() -> None:
    """Where it leads is for the client, and so for the policy, to decide."""
    with serving(answering(b"x", status="302 Found", headers="Location: /next\r\n")) as port:
        assert hop(port) == (HopResult(status=302, location="/next"), b"")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 503, 300, 304])
def test_http_errors_are_errors(status: int) -> None:
    """The status is an attribute, and a bounded excerpt of the page is in the text."""
    body = b"" if status == 304 else b"<html><p>Sorry, <b>gone</b>" + b"x" * 5_000
    error = refused(answering(body, status=f"{status} Some Reason", headers="Content-Type: text/html\r\n"))
    assert (error.code, error.status) == ("http_status", status)
    assert f"http status {status} Some Reason" in str(error)
    if body:
        assert "Sorry, gone" in str(error)
        assert "the first 1000 characters of" in str(error)
    assert len(str(error)) < 2_000


@pytest.mark.parametrize("status", [300, 304])
def test_a_location_alone_is_no_redirect(status: int) -> None:
    """Only the five statuses that mean it lead anywhere."""
    error = refused(answering(b"", status=f"{status} X", headers="Location: /next\r\n"))
    assert (error.code, error.status) == ("http_status", status)


def test_a_redirect_without_a_location() -> None:
    """It is an error that says so."""
    assert refused(answering(b"", status="302 Found")).code == "bad_redirect"


def test_gzip_comes_out() -> None:
    """What was packed on the way is text again."""
    headers = "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n"
    with serving(answering(gzip.compress(b"hello " * 1000), headers=headers)) as port:
        assert hop(port)[1] == b"hello " * 1000


def test_html_becomes_markdown() -> None:
    """HTML is converted as asked, its links absolute."""
    with serving(answering(b"<h1>T</h1><a href=/x>l</a>", headers="Content-Type: text/html\r\n")) as port:
        assert hop(port)[1].decode() == f"# T\n\n[l](http://127.0.0.1:{port}/x)\n"
        assert hop(port, format="text")[1] == b"T\n\nl\n" or hop(port, format="text")[1] == b"T\nl\n"
        assert hop(port, format="html")[1] == b"<h1>T</h1><a href=/x>l</a>"


def raw(data: bytes, *, close: bool = True) -> Handler:
    def handler(sock: socket.socket, request: bytes) -> None:
        sock.sendall(data)
        if not close:
            time.sleep(3)

    return handler


def endless(first: bytes, unit: bytes, *, pause_s: float = 0.0) -> Handler:
    def handler(sock: socket.socket, request: bytes) -> None:
        sock.sendall(first)
        while True:
            sock.sendall(unit)
            time.sleep(pause_s)

    return handler


BOMB = gzip.compress(bytes(50_000_000))
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        pytest.param(raw(b"", close=False), "timed_out", id="silence"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nX: ", b"a", pause_s=0.05), "timed_out", id="a header byte by byte"),
        pytest.param(endless(OK + b"\r\n", b"a", pause_s=0.05), "timed_out", id="a body byte by byte"),
        pytest.param(endless(OK + b"\r\n", b"a" * 65_536), "too_large", id="an endless body"),
        pytest.param(
            endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"a" * 4096 + b"\r\n"),
            "too_large",
            id="chunks",
        ),
        pytest.param(
            endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 4096 + b"\r\na\r\n"),
            "too_large",
            id="chunk extensions",
        ),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.01), "timed_out", id="informational"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"X-Flood: " + b"x" * 1000 + b"\r\n"), "bad_answer", id="headers"),
        pytest.param(endless(b"HTTP/1.1 200 ", b"x" * 1000), "bad_answer", id="a status line"),
        pytest.param(raw(OK + b"Content-Length: 100\r\n\r\nshort"), "bad_answer", id="shorter than it says"),
        pytest.param(raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), "bad_answer", id="two lengths"),
        pytest.param(raw(OK + b"Content-Length: -1\r\n\r\n"), "bad_answer", id="a negative length"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9\r\n"), "bad_answer", id="another protocol"),
        pytest.param(raw(b""), "bad_answer", id="nothing"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n"), "bad_answer", id="no header"),
        pytest.param(raw(OK + b"Content-Encoding: gzip\r\n\r\n" + BOMB), "bomb", id="a bomb"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG"), "binary", id="an image"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=zz\r\n\r\nx"), "charset", id="charset"),
        pytest.param(raw(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"), "invalid_url", id="to a file"),
        pytest.param(raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), "bad_answer", id="an upgrade"),
    ],
)  # fmt: skip
def test_misbehaving_servers(handler: Handler, code: str) -> None:
    """Each is refused for what it is, within the time limit."""
    # What never ends is given little time. Whoever floods is to be refused for that, on a busy machine as well: server
    # and client share an interpreter here, which is handed over thousands of times in a flood, after 5 ms each.
    limit_s = 1.0 if code == "timed_out" else 30.0
    start = time.monotonic()
    assert refused(handler, limit_s=limit_s).code == code
    assert time.monotonic() - start < limit_s + 10


def test_a_longer_body_than_said_is_cut_where_it_was_said() -> None:
    """Bytes beyond the length belong to nobody."""
    with serving(raw(OK + b"Content-Length: 3\r\n\r\nabcdef")) as port:
        assert hop(port)[1] == b"abc"
