"""Any bytes that a command says to its egress proxy are a request for a host in normal form, or one clear refusal.

The first byte of an input picks the reader. Whatever is read of HTTP goes on to the origin as exactly one request,
whose body an independent reader ends where ours does: that is what smuggling would break.
"""

import contextlib
import ipaddress

import h11

from driver import main
from guardhouse.egress.detect import Speaks, detect_protocol
from guardhouse.egress.host import Authority, parse_authority, parse_host
from guardhouse.egress.http_message import judged_urls, make_origin_request, make_response, read_request
from guardhouse.egress.rules import EgressRefused, EgressRules
from guardhouse.egress.socks import SocksRequest
from guardhouse.errors import PeerError

RULES = EgressRules.from_plan(
    [("example.com", (80, 443)), ("*.example.org", (443,))], [("10.0.0.0/8", (5432,))], profile="fuzz"
)


def fuzz_one(data: bytes) -> None:
    readers = (_socks, _http, _response, _host, _authority)
    with contextlib.suppress(PeerError, h11.RemoteProtocolError):
        readers[data[0] % len(readers) if data else 0](data[1:])


def _judge(authority: Authority) -> None:
    assert parse_host(authority.host, is_bracketed=":" in authority.host) == authority.host, "no normal form"
    assert 0 < authority.port < 65536
    try:
        RULES.check_target(authority)
    except EgressRefused:
        return
    if authority.is_address:
        assert authority.port == 5432
        address = ipaddress.ip_address(authority.host)
        assert isinstance(address, ipaddress.IPv6Address) or address in ipaddress.ip_network("10.0.0.0/8")
    else:
        assert authority.host == "example.com" or authority.host.endswith(".example.org")


def _socks(data: bytes) -> None:
    whole = SocksRequest()
    read = whole.feed(data)
    pieces = SocksRequest()
    done = False
    for at in range(len(data)):
        done = done or pieces.feed(data[at : at + 1])
    assert done == read
    assert pieces.target == whole.target
    if whole.target is not None:
        assert detect_protocol(data[0]) is Speaks.SOCKS5
        _judge(whole.target)


def _http(data: bytes) -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    server.receive_data(b"")
    asked = server.next_event()
    if not isinstance(asked, h11.Request):
        return
    assert detect_protocol(data.lstrip(b"\r\n")[0]) is Speaks.HTTP
    request = read_request(asked)
    _judge(request.authority)
    if request.is_tunnel:
        return
    assert all(url.startswith("http://") and "\r" not in url and " " not in url for url in judged_urls(request))
    client = h11.Connection(h11.CLIENT)
    sent = client.send(make_origin_request(request, asked)) or b""
    body = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        if not isinstance(event, h11.Data):
            return
        body += event.data
        sent += client.send(h11.Data(data=event.data)) or b""
    sent += client.send(h11.EndOfMessage()) or b""
    _check_one_request(sent, body)


def _check_one_request(sent: bytes, body: bytes) -> None:
    """Read it by the letter of RFC 9112, without h11: one head, one framing, one body, nothing behind it."""
    head, separator, rest = sent.partition(b"\r\n\r\n")
    assert separator
    lines = head.split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line and b"\0" not in line for line in lines)
    assert len(lines[0].split(b" ")) == 3
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
    names = [name for name, _ in headers]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert not {b"proxy-authorization", b"upgrade", b"te", b"keep-alive"} & set(names)
    found = dict(headers)
    if b"transfer-encoding" in found:
        got = b""
        while (size := int(rest.partition(b"\r\n")[0], 16)) != 0:
            rest = rest.partition(b"\r\n")[2]
            got, rest = got + rest[:size], rest[size:].removeprefix(b"\r\n")
        assert rest == b"0\r\n\r\n"
        assert got == body
    else:
        assert len(rest) == int(found.get(b"content-length", b"0"))
        assert rest == body


def _response(data: bytes) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "example.com")]))
    client.send(h11.EndOfMessage())
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
    server.next_event()
    server.next_event()
    client.receive_data(data)
    client.receive_data(b"")
    while isinstance(event := client.next_event(), h11.InformationalResponse | h11.Response | h11.Data):
        is_head = not isinstance(event, h11.Data)
        # What our side cannot frame is an origin that failed; anything but h11's own refusal is a defect.
        with contextlib.suppress(h11.LocalProtocolError):
            server.send(make_response(event) if is_head else h11.Data(data=event.data))


def _host(data: bytes) -> None:
    host = parse_host(data.decode("utf-8", "replace"))
    assert host.isascii()
    assert parse_host(host) == host


def _authority(data: bytes) -> None:
    authority = parse_authority(data.decode("latin-1"), default_port=80)
    assert parse_authority(authority.text) == authority
    _judge(authority)


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
