"""PROCESS: the fetch worker. Asks one server once for each request on its socket, until the socket ends.

It has a network and nothing else: no files, no programs. What was needed from files (certificate authorities, the
converters) is read by `load` before it is confined. It decides over addresses; which URLs may be asked for at all, and
whether a redirect is followed, is decided where the policy is, so a page that takes this process over can at most talk
to the network. A request that hangs is ended by the kernel (SIGALRM). Knows no policy.
"""

import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpcore2
import msgspec

from guardhouse import __version__
from guardhouse.errors import PeerError, SetupError
from guardhouse.limits import FETCH_ERROR_EXCERPT_CHARS
from guardhouse.wire.operations import WEBFETCH_TIMEOUT_MAX_S
from guardhouse.worker import protocol
from guardhouse.worker.fetch_address import parse_networks
from guardhouse.worker.fetch_connection import Deadline, PinnedBackend, load_authorities, resolve
from guardhouse.worker.fetch_content import MediaType, check_is_text, decode_text, expand_body, parse_media_type
from guardhouse.worker.fetch_protocol import FetchRefused, HopArgs, HopResult, failure_of, too_large
from guardhouse.worker.fetch_text import Rendered, html_to_markdown, html_to_text
from guardhouse.worker.fetch_url import FetchUrl, check_port, decide_redirect, parse_fetch_url

__all__ = ["USER_AGENT", "Loaded", "fetch_hop", "load", "main"]

USER_AGENT: Final = f"guardhouse/{__version__} (+webfetch of a Guardhouse runner, for an agent)"
# The client gives up first and says so; the alarm is for a worker whose client is gone.
_ALARM_MARGIN_S: Final = 5.0
_ACCEPT: Final = {
    "markdown": "text/markdown;q=1.0, text/html;q=0.9, application/xhtml+xml;q=0.9, text/plain;q=0.8, */*;q=0.1",
    "text": "text/plain;q=1.0, text/markdown;q=0.9, text/html;q=0.8, application/xhtml+xml;q=0.8, */*;q=0.1",
    "html": "text/html;q=1.0, application/xhtml+xml;q=0.9, text/plain;q=0.8, */*;q=0.1",
}
# Absolute links make Markdown longer than its page, which a page can exaggerate.
_EXPANSION_MAX: Final = 2
_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read before files went out of reach."""

    authorities: ssl.SSLContext


def load() -> Loaded:
    """Read what later needs files: certificate authorities, codecs, the converters. Call it before confinement."""
    for codec in ("idna", "cp1252", "cp1254", "gb18030", "big5", "cp932", "euc_jp", "cp949", "utf-16-le", "utf-32-le"):
        "".encode(codec)
    html_to_markdown("<p>a <a href=b>c</a><table><tr><td>d", base_url="http://a/")
    html_to_text("<p>a")
    return Loaded(load_authorities())


def main(sock_fd: int, loaded: Loaded) -> int:
    """Serve requests until the other side closes the socket.

    Args:
        sock_fd: connected SOCK_STREAM unix socket, this process's own.
        loaded: of `load`.

    Returns:
        The exit status: 0 after a regular end, 1 when the client broke the protocol.
    """
    # The default action ends the process even inside a C extension that never returns to the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Family and type are said, so that nothing has to be looked up under the filter.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sock_fd) as sock:
        try:
            while (head := _exactly(sock, protocol.LENGTHS.size)) is not None:
                header_size, body_size = protocol.parse_lengths(head)
                header = _exactly(sock, header_size)
                if header is None or (body_size and _exactly(sock, body_size) is None):
                    return 1
                request = protocol.parse_request(header)
                if request.operation != "cancel":
                    _serve(sock, request, loaded)
        except PeerError as error:
            sys.stderr.write(f"fetch worker: {error}\n")
            return 1
        except ConnectionError:
            return 0
    return 0


def _serve(sock: socket.socket, request: protocol.Request, loaded: Loaded) -> None:
    limit_s = min(request.deadline_s, WEBFETCH_TIMEOUT_MAX_S) if request.deadline_s > 0 else WEBFETCH_TIMEOUT_MAX_S
    signal.setitimer(signal.ITIMER_REAL, limit_s + _ALARM_MARGIN_S)
    body = b""
    try:
        args = msgspec.json.decode(request.args, type=HopArgs)
        result, body = fetch_hop(args, Deadline(limit_s), loaded)
        reply = protocol.Reply(id=request.id, result=msgspec.Raw(_ENCODER.encode(result)))
    except FetchRefused as error:
        reply = protocol.Reply(id=request.id, failure=failure_of(error))
    except SetupError as error:
        reply = protocol.Reply(
            id=request.id, failure=protocol.Failure(family="refusal", code="address_refused", text=str(error))
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        failure = protocol.Failure(family="peer", code="malformed", text=f"invalid fetch request: {error}")
        reply = protocol.Reply(id=request.id, failure=failure)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    sock.sendall(protocol.render(reply, body))
    if body:
        sock.sendall(body)


def fetch_hop(args: HopArgs, deadline: Deadline, loaded: Loaded) -> tuple[HopResult, bytes]:
    """Ask one server once; return what it said and, for a page, its text as UTF-8.

    Raises:
        FetchRefused: the address, the port, the server or the content stands against it.
        SetupError: a granted network is none.
    """
    url = parse_fetch_url(args.url)
    check_port(url, any_port=args.any_port)
    addresses = resolve(url, parse_networks(args.networks))
    backend = PinnedBackend(addresses, deadline, max_bytes=args.max_bytes)
    with _answer(url, args.format, backend, loaded) as answer:
        headers = _headers(answer)
        location = headers.get("location")
        if decide_redirect(url, answer.status, location, hops=0) is not None:
            return HopResult(status=answer.status, location=location), b""
        media = parse_media_type(headers.get("content-type"))
        body = expand_body(
            answer.iter_stream(),
            encoding=headers.get("content-encoding"),
            url=url.text,
            max_bytes=args.max_bytes,
        )
    if not 200 <= answer.status < 300:
        raise _status_error(url, answer, media, body)
    media = check_is_text(media, body, url=url.text)
    decoded = decode_text(body, media)
    deadline.remaining_s()
    rendered = _render(decoded.text, media, args.format, url)
    deadline.remaining_s()
    content = rendered.text.encode("utf-8", "replace")
    if len(content) > _EXPANSION_MAX * args.max_bytes:
        raise too_large(f"{url.text[:200]!r} as {args.format} has {len(content)} bytes", max_bytes=args.max_bytes)
    result = HopResult(
        status=answer.status,
        content_type=headers.get("content-type", "")[:200],
        notes=(*decoded.notes, *rendered.notes),
    )
    return result, content


def _render(text: str, media: MediaType, wanted: str, url: FetchUrl) -> Rendered:
    if not media.is_html or wanted == "html":
        return Rendered(text)
    if wanted == "text":
        return html_to_text(text)
    return html_to_markdown(text, base_url=url.text)


@contextmanager
def _answer(url: FetchUrl, wanted: str, backend: PinnedBackend, loaded: Loaded) -> Iterator[httpcore2.Response]:
    host = f"[{url.host}]" if ":" in url.host else url.host
    request = httpcore2.Request(
        "GET",
        httpcore2.URL(scheme=url.scheme, host=host, port=url.port, target=url.target),
        headers={
            "Host": url.authority,
            "User-Agent": USER_AGENT,
            "Accept": _ACCEPT[wanted],
            "Accept-Language": "en, zh;q=0.8, *;q=0.5",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "close",
        },
        extensions={"sni_hostname": url.host},
    )
    origin = httpcore2.Origin(url.scheme.encode(), host.encode(), url.port)
    connection = httpcore2.HTTPConnection(origin, ssl_context=loaded.authorities, network_backend=backend)
    try:
        with connection:
            answer = connection.handle_request(request)
            yield answer
    except (httpcore2.RemoteProtocolError, httpcore2.LocalProtocolError) as error:
        raise FetchRefused(
            f"webfetch failed: {url.text[:200]!r} answers no valid HTTP: {error}", code="bad_answer"
        ) from None
    except (httpcore2.NetworkError, httpcore2.TimeoutException, OSError) as error:
        raise FetchRefused(
            f"webfetch failed: {url.text[:200]!r}: {str(error) or 'connection lost'}", code="connect_failed"
        ) from None


def _headers(answer: httpcore2.Response) -> dict[str, str]:
    """Return the headers by lower-case name; of one that comes twice, the first."""
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        text = value.decode("utf-8") if _is_utf8(value) else value.decode("latin-1")
        headers.setdefault(name.decode("latin-1").lower(), text)
    return headers


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _status_error(url: FetchUrl, answer: httpcore2.Response, media: MediaType, body: bytes) -> FetchRefused:
    reason = bytes(answer.extensions.get("reason_phrase", b"")).decode("latin-1")[:100]
    status = f"{answer.status} {reason}".strip()
    try:
        media = check_is_text(media, body, url=url.text)
        text = decode_text(body, media).text
        text = html_to_text(text).text if media.is_html else text
    except FetchRefused:
        text = ""
    excerpt = text.strip()[:FETCH_ERROR_EXCERPT_CHARS]
    cut = (
        f" [the first {FETCH_ERROR_EXCERPT_CHARS} characters of {len(text.strip())}]"
        if len(text.strip()) > len(excerpt)
        else ""
    )
    shown = f":\n{excerpt}{cut}" if excerpt else ""
    return FetchRefused(f"http status {status} for {url.text[:500]!r}{shown}", code="http_status", status=answer.status)


def _exactly(sock: socket.socket, size: int) -> bytearray | None:
    """Return ``size`` bytes, None where the stream ends before."""
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = sock.recv_into(view[got:])
        if not count:
            return None
        got += count
    return data


if __name__ == "__main__":
    # Without a launcher (tests, fuzzing): unconfined, over an inherited socket.
    os.umask(0o077)
    sys.exit(main(int(sys.argv[1]), load()))
