"""HTTP/1 through the proxy: what a request asks for, and the request and response as they go on.

h11 reads and writes the bytes, once towards the command and once towards the origin: nothing is passed on as it came,
so what the origin reads is what was judged. Headers that belong to one connection stay behind. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import h11

from guardhouse.egress.host import Authority, HostError, parse_authority
from guardhouse.errors import PeerError

__all__ = ["ProxyRequest", "judged_urls", "make_error_response", "make_origin_request", "make_response", "read_request"]

HTTP_PORT: Final = 80
# RFC 9110, 7.6.1, and what proxies of old invented.
_OF_ONE_CONNECTION: Final = frozenset(
    {
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"http2-settings",
    }
)
# A Connection header cannot take these along: framing and host are ours to say.
_FRAMING: Final = frozenset({b"content-length", b"host"})
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """What one request asks the proxy for.

    Attributes:
        is_tunnel: CONNECT.
        path: path and query for the origin, byte for byte as it was asked for; empty for a tunnel.
    """

    method: str
    authority: Authority
    is_tunnel: bool
    path: str

    @property
    def url(self) -> str:
        """The whole, as a policy's rule and a record name it."""
        if self.is_tunnel:
            return self.authority.text
        return f"http://{self.authority.in_header(default_port=HTTP_PORT)}{'/' if self.path == '*' else self.path}"


def read_request(request: h11.Request) -> ProxyRequest:
    """Return what ``request`` asks for.

    Raises:
        PeerError: its target is not in the form that a proxy is asked in, or its framing could be read in two ways.
    """
    if request.http_version not in (b"1.0", b"1.1"):
        raise PeerError(f"HTTP/{request.http_version.decode('ascii')} is not spoken here, only 1.0 and 1.1")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
        raise PeerError("the request has two framings (Transfer-Encoding beside Content-Length or HTTP/1.0)")
    target, method = request.target.decode("ascii"), request.method.decode("ascii")
    if method == "CONNECT":
        if b"transfer-encoding" in names or dict(request.headers).get(b"content-length", b"0") != b"0":
            raise PeerError("a CONNECT request has no body")
        return ProxyRequest(method, _authority(target, default_port=None), is_tunnel=True, path="")
    scheme, separator, rest = target.partition("://")
    if not separator:
        raise PeerError(
            f"{target[:80]!r} is no absolute URL: this is a proxy, which is asked for http://host/path or by CONNECT"
        )
    if scheme.lower() != "http":
        raise PeerError(f"a proxy cannot be asked for {scheme[:20]!r} URLs; use CONNECT")
    if "#" in rest or "\\" in rest:
        raise PeerError("a request's URL holds neither '#' nor a backslash")
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if path.startswith("?"):
        path = "/" + path
    if not path:
        path = "*" if method == "OPTIONS" else "/"
    _check_path(path)
    return ProxyRequest(method, _authority(authority, default_port=HTTP_PORT), is_tunnel=False, path=path)


def judged_urls(request: ProxyRequest) -> tuple[str, ...]:
    """Return the URLs that a policy is asked about: as it was written, and with needless escapes undone.

    An origin may read ``/%61dmin`` as ``/admin``; both must be allowed.
    """
    plain = ProxyRequest(request.method, request.authority, is_tunnel=False, path=_unescaped(request.path)).url
    return (request.url,) if plain == request.url else (request.url, plain)


def make_origin_request(request: ProxyRequest, asked: h11.Request) -> h11.Request:
    """Return the request as the origin gets it: its own form of target, its own Host, one request to a connection."""
    kept = [(name, value) for name, value in _kept(asked.headers.raw_items(), asked.headers) if name.lower() != b"host"]
    if any(name == b"transfer-encoding" for name, _ in asked.headers):
        kept.append((b"Transfer-Encoding", b"chunked"))
    host = request.authority.in_header(default_port=HTTP_PORT).encode("ascii")
    return h11.Request(
        method=asked.method,
        target=request.path.encode("ascii"),
        headers=[(b"Host", host), *kept, (b"Connection", b"close")],
    )


def make_response(
    response: h11.Response | h11.InformationalResponse,
) -> h11.Response | h11.InformationalResponse:
    """Return the origin's response as the command gets it."""
    headers = _kept(response.headers.raw_items(), response.headers)
    if any(name == b"transfer-encoding" for name, _ in response.headers):
        # RFC 9112, 6.3: it outranks a length, and h11 has read it so.
        headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    if isinstance(response, h11.InformationalResponse):
        return h11.InformationalResponse(status_code=response.status_code, headers=headers, reason=response.reason)
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


def make_error_response(status: int, text: str) -> tuple[h11.Response, bytes]:
    """Return a response of the proxy's own, and its body: one line for a person or an agent."""
    body = f"guardhouse egress proxy: {text}\n".encode()
    headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", str(len(body)).encode("ascii")),
        (b"Cache-Control", b"no-store"),
        (b"X-Guardhouse", b"egress"),
        (b"Connection", b"close"),
    ]
    reasons = {400: b"Bad Request", 403: b"Forbidden by guardhouse", 431: b"Request Header Fields Too Large"}
    reasons |= {502: b"Bad Gateway", 504: b"Gateway Timeout"}
    return h11.Response(status_code=status, headers=headers, reason=reasons.get(status, b"")), body


def _authority(text: str, *, default_port: int | None) -> Authority:
    try:
        return parse_authority(text, default_port=default_port)
    except HostError as error:
        raise PeerError(f"{text[:80]!r}: {error}") from None


def _kept(raw: Iterable[tuple[bytes, bytes]], headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that go on, as they were written."""
    named = {
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    } - _FRAMING
    return [(name, value) for name, value in raw if name.lower() not in _OF_ONE_CONNECTION | named]


def _check_path(path: str) -> None:
    """Refuse what an origin may resolve to another path than the one that was judged."""
    for segment in path.partition("?")[0].split("/"):
        if _unescaped(segment) in (".", ".."):
            raise PeerError("a request's path holds no '.' or '..' segments, escaped or not; ask for the path itself")
    raw = path.encode("ascii")
    for at in (at for at, byte in enumerate(raw) if byte == 0x25):
        if len(raw[at + 1 : at + 3]) != 2 or not _HEX.issuperset(raw[at + 1 : at + 3]):
            raise PeerError("a request's path holds a '%' without two hexadecimal digits")


def _unescaped(path: str) -> str:
    """Undo escapes of characters that need none (RFC 3986, 6.2.2.2)."""
    parts = path.split("%")
    text = [parts[0]]
    for part in parts[1:]:
        code = part[:2]
        if len(code) == 2 and _HEX.issuperset(code.encode("ascii")) and int(code, 16) in _UNRESERVED:
            text.append(chr(int(code, 16)) + part[2:])
        else:
            text.append("%" + part)
    return "".join(text)
