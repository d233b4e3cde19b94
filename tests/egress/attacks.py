"""Attacks on network mode `domains`, one a row, each with the twin that must succeed in the same sandbox.

An attack is the body of a Python function; `tests/escapes/attacker.py` and `PRELUDE` stand before it. Placeholders:
``{http}`` and ``{https}`` ports of a granted server, ``{closed}`` a listening port of the host's loopback that nobody
granted.
"""

# ruff: noqa: E501 - a row is one line of thought

from dataclasses import dataclass

__all__ = ["ATTACKS", "PRELUDE", "Attack"]

PRELUDE = r'''
import hashlib
import http.client
import ssl
import urllib.error
import urllib.request

PROXY = ("127.0.0.1", 3128)
UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


def refused_by(status):
    """What the proxy's status means as an errno: 403 EACCES, 400 EINVAL, 502 EHOSTUNREACH."""
    return OSError({403: 13, 400: 22, 502: 113}.get(status, status), f"status {status}")


def get(url, **headers):
    """As programs do it: by the variables of the environment."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=15) as response:
            return response.status, response.read(100)
    except urllib.error.HTTPError as error:
        raise refused_by(error.code) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError) and "Tunnel connection failed" in str(error.reason):
            raise refused_by(int(str(error.reason).split()[3])) from None
        raise error.reason if isinstance(error.reason, OSError) else error


def raw(data):
    """Bytes to the proxy and everything that comes back."""
    with socket.create_connection(PROXY, 15) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        found = b""
        while more := sock.recv(65536):
            found += more
        return found


def first_status(data):
    status = int(raw(data).split()[1])
    if status >= 400:
        raise refused_by(status)
    return status


def tunnel(target):
    sock = socket.create_connection(PROXY, 15)
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    status = int(sock.recv(65536).split()[1])
    if status != 200:
        raise refused_by(status)
    return sock


def hello(name):
    """What a TLS client says first to a server of this name."""
    outgoing = ssl.MemoryBIO()
    tls = UNVERIFIED.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def answered(sock, pieces):
    """Say pieces, each in a segment of its own; the server's ServerHello, or the proxy's alert."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        sock.sendall(piece)
    found = sock.recv(65536)
    if found == bytes((21, 3, 3, 0, 2, 2, 49)):
        raise OSError(13, "alert: access denied")
    assert found[0] == 22, found
    return found[0]


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def records(data, size):
    return b"".join(b"\x16\x03\x01" + len(one).to_bytes(2, "big") + one for one in cut(data[5:], size))


def socks(kind, host, port):
    sock = socket.create_connection(PROXY, 15)
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2) == b"\x05\x00"
    name = bytes((len(host),)) + host if kind == 3 else host
    sock.sendall(b"\x05\x01\x00" + bytes((kind,)) + name + port.to_bytes(2, "big"))
    reply = sock.recv(10)[1]
    if reply:
        raise OSError({2: 13, 4: 113, 5: 111}.get(reply, reply), "socks")
    return sock
'''


@dataclass(frozen=True, slots=True)
class Attack:
    """One row; ``refused`` are the errnos, one of which the attempt must end with."""

    name: str
    body: str
    twin: str
    refused: tuple[str, ...] = ("EACCES",)


HELLO = 'return get("http://web.test:{http}/hello")'
TUNNEL = 'return bool(tunnel("web.test:{http}"))'
SOCKS = 'return bool(socks(3, b"web.test", {http}))'
OWN = "return socket.create_connection(PROXY, 5).getpeername()"
NO_WAY = ("EACCES", "ENETUNREACH", "ECONNREFUSED", "EPERM")
NO_SOCKET = ("EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT")
TCP = "return socket.socket(socket.AF_INET, socket.SOCK_STREAM).fileno() > 0"

ATTACKS = (
    Attack("http-other-name", 'return get("http://evil.test:{http}/hello")', HELLO),
    Attack("https-other-name", 'return get("https://evil.test:{https}/hello")', TUNNEL),
    Attack("connect-other-name", 'return tunnel("evil.test:{http}")', TUNNEL),
    Attack("socks-other-name", 'return socks(3, b"evil.test", {http})', SOCKS),
    Attack("name-above-a-wildcard", 'return tunnel("wild.test:{http}")', 'return bool(tunnel("a.wild.test:{http}"))'),
    Attack("name-beside-a-wildcard", 'return tunnel("awild.test:{http}")', 'return bool(tunnel("A.B.WILD.test.:{http}"))'),
    Attack("granted-name-in-another", 'return tunnel("web.test.evil.test:{http}")', TUNNEL),
    Attack("name-with-nul", r'return socks(3, b"web.test\0.evil.test", {http})', SOCKS),
    Attack("name-with-line-end", r'return first_status(b"CONNECT evil.test:80\r\nX: web.test:{http} HTTP/1.1\r\n\r\n")', TUNNEL, ("EINVAL",)),
    Attack("user-in-front-of-host", 'return first_status(b"GET http://web.test:{http}@evil.test/ HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")', HELLO, ("EINVAL",)),
    Attack("other-port", 'return tunnel("web.test:22")', TUNNEL),
    Attack("other-port-socks", 'return socks(3, b"web.test", {closed})', SOCKS),
    # Addresses by every name that they have.
    Attack("metadata-address", 'return get("http://169.254.169.254/latest/meta-data/")', HELLO),
    Attack("metadata-address-tunnel", 'return tunnel("169.254.169.254:80")', TUNNEL),
    Attack("metadata-address-hex", 'return get("http://0xa9fea9fe/")', HELLO, ("EINVAL",)),
    Attack("metadata-address-decimal", 'return tunnel("2852039166:80")', TUNNEL, ("EINVAL",)),
    Attack("metadata-address-octal", 'return tunnel("0251.0376.0251.0376:80")', TUNNEL, ("EINVAL",)),
    Attack("metadata-address-short", 'return tunnel("169.254.43518:80")', TUNNEL, ("EINVAL",)),
    Attack("metadata-address-mapped", 'return tunnel("[::ffff:169.254.169.254]:80")', TUNNEL),
    Attack("metadata-address-nat64", 'return tunnel("[64:ff9b::a9fe:a9fe]:80")', TUNNEL),
    Attack("metadata-address-6to4", 'return tunnel("[2002:a9fe:a9fe::]:80")', TUNNEL),
    Attack("metadata-address-ipv6", 'return tunnel("[fd00:ec2::254]:80")', TUNNEL),
    Attack("metadata-address-socks", r'return socks(1, b"\xa9\xfe\xa9\xfe", 80)', SOCKS),
    Attack("loopback-address", 'return tunnel("127.0.0.1:{closed}")', 'return bool(tunnel("127.0.0.1:{http}"))'),
    Attack("loopback-address-socks6", 'return socks(4, bytes(15) + b"\\x01", {closed})', 'return bool(socks(1, bytes((127, 0, 0, 1)), {http}))'),
    Attack("loopback-other-address", 'return tunnel("127.0.0.2:{http}")', 'return bool(tunnel("127.0.0.1:{http}"))'),
    Attack("unspecified-address", 'return tunnel("0.0.0.0:{closed}")', TUNNEL),
    Attack("localhost", 'return tunnel("localhost:{closed}")', TUNNEL),
    Attack("private-address", 'return tunnel("10.0.0.1:80")', TUNNEL),
    Attack("public-address", 'return tunnel("1.1.1.1:443")', TUNNEL),
    Attack("own-proxy-by-itself", 'return tunnel("127.0.0.1:3128")', TUNNEL),
    # Names that lead inside.
    Attack("rebinding-metadata", 'return get("http://meta.test/latest/")', HELLO),
    Attack("rebinding-loopback", 'return tunnel("loop.test:{closed}")', TUNNEL),
    Attack("rebinding-private", 'return tunnel("ten.test:80")', TUNNEL),
    Attack("rebinding-mixed", 'return tunnel("mixed.test:80")', TUNNEL),
    Attack("rebinding-mapped", 'return socks(3, b"mapped.test", 80)', SOCKS),
    Attack("redirect-to-metadata", 'return get("http://web.test:{http}/to-metadata")', 'return get("http://web.test:{http}/to-hello")'),
    Attack("redirect-to-other-name", 'return get("http://web.test:{http}/to-evil")', 'return get("http://web.test:{http}/to-hello")'),
    # The same connection once more.
    Attack(
        "second-request-elsewhere",
        'sock = http.client.HTTPConnection(*PROXY, timeout=15)\n'
        '    sock.request("GET", "http://web.test:{http}/hello"); first = sock.getresponse(); first.read()\n'
        '    sock.request("GET", "http://evil.test:{http}/hello"); second = sock.getresponse(); second.read()\n'
        "    if second.status != 200: raise refused_by(second.status)\n    return first.status",
        'sock = http.client.HTTPConnection(*PROXY, timeout=15)\n'
        '    sock.request("GET", "http://web.test:{http}/hello"); first = sock.getresponse(); first.read()\n'
        '    sock.request("GET", "http://web.test:{http}/hello"); second = sock.getresponse(); second.read()\n'
        "    return first.status, second.status",
    ),
    Attack(
        "smuggling-two-framings",
        r'return first_status(b"POST http://web.test:{http}/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://evil.test/ HTTP/1.1\r\nHost: a\r\n\r\n")',
        r'return first_status(b"POST http://web.test:{http}/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")',
        ("EINVAL",),
    ),
    Attack("denied-by-policy", 'return get("http://web.test:{http}/forbidden")', HELLO),
    Attack("denied-by-policy-escaped", 'return get("http://web.test:{http}/%66orbidden")', 'return get("http://web.test:{http}/%68ello")'),
    Attack("dot-segments", r'return first_status(b"GET http://web.test:{http}/hello/../forbidden HTTP/1.1\r\nHost: a\r\n\r\n")', HELLO, ("EINVAL",)),
    # Another server's name inside a tunnel to a granted one (domain fronting in clear).
    Attack("tls-other-name", 'return answered(tunnel("web.test:{https}"), [hello("evil.test")])', 'return answered(tunnel("web.test:{https}"), [hello("web.test")])'),
    Attack("tls-other-name-by-socks", 'return answered(socks(3, b"web.test", {https}), [hello("evil.test")])', 'return answered(socks(3, b"web.test", {https}), [hello("web.test")])'),
    Attack("tls-other-name-of-a-wildcard", 'return answered(tunnel("web.test:{https}"), [hello("a.wild.test")])', 'return answered(tunnel("WEB.test.:{https}"), [hello("web.TEST")])'),
    Attack("tls-name-below", 'return answered(tunnel("web.test:{https}"), [hello("b.web.test")])', 'return answered(tunnel("web.test:{https}"), [hello(None)])'),
    Attack("tls-other-name-in-segments", 'return answered(tunnel("web.test:{https}"), cut(hello("evil.test"), 1))', 'return answered(tunnel("web.test:{https}"), cut(hello("web.test"), 1))'),
    Attack("tls-other-name-in-records", 'return answered(tunnel("web.test:{https}"), [records(hello("evil.test"), 1)])', 'return answered(tunnel("web.test:{https}"), [records(hello("web.test"), 20)])'),
    Attack("tls-other-name-ahead-of-the-answer", 'sock = socket.create_connection(PROXY, 15); sock.sendall(b"CONNECT web.test:{https} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" + hello("evil.test")); sock.recv(39); return answered(sock, [])', 'sock = socket.create_connection(PROXY, 15); sock.sendall(b"CONNECT web.test:{https} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" + hello("web.test")); sock.recv(39); return answered(sock, [])'),
    Attack("tls-second-hello", 'return answered(tunnel("web.test:{https}"), [hello("web.test") + hello("evil.test")])', 'return answered(tunnel("web.test:{https}"), [hello("web.test")])'),
    # Round the proxy.
    Attack("direct-to-the-hosts-loopback", 'return socket.create_connection(("127.0.0.1", {closed}), 5).getpeername()', OWN, NO_WAY),
    Attack("direct-to-a-granted-server", 'return socket.create_connection(("127.0.0.1", {http}), 5).getpeername()', OWN, NO_WAY),
    Attack("direct-to-an-address", 'return socket.create_connection(("1.1.1.1", 443), 5).getpeername()', OWN, NO_WAY),
    Attack("direct-to-metadata", 'return socket.create_connection(("169.254.169.254", 80), 5).getpeername()', OWN, NO_WAY),
    Attack("direct-ipv6", 'return socket.create_connection(("::1", {closed}), 5).getpeername()', OWN, (*NO_WAY, "EADDRNOTAVAIL")),
    Attack("name-service", 'return socket.getaddrinfo("web.test", 80)', 'return socket.getaddrinfo("localhost", 80)[0][4]', ("-2", "-3", "EPERM")),
    Attack("udp-socket", "return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).fileno()", TCP, NO_SOCKET),
    Attack("raw-socket", "return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno()", TCP, NO_SOCKET),
    Attack("packet-socket", "return socket.socket(socket.AF_PACKET, socket.SOCK_RAW).fileno()", TCP, NO_SOCKET),
    Attack("netlink-socket", "return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).fileno()", TCP, NO_SOCKET),
    Attack("vsock-socket", "return socket.socket(40, socket.SOCK_STREAM).fileno()", TCP, NO_SOCKET),
    Attack("sctp-socket", "return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).fileno()", TCP, NO_SOCKET),
    Attack("mptcp-socket", "return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).fileno()", TCP, NO_SOCKET),
    Attack("fast-open", 'return socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", {closed}))', "sock = socket.create_connection(PROXY, 5)\n    return sock.send(b'G')", NO_WAY),
    Attack("own-network-namespace", 'return call("unshare", CLONE["net"])', OWN, ("EPERM",)),
    Attack("own-user-and-network-namespace", 'return call("unshare", CLONE["user"] | CLONE["net"])', OWN, ("EPERM",)),
    Attack("another-network-namespace", 'return call("setns", os.open("/proc/1/ns/net", os.O_RDONLY), CLONE["net"])', OWN, ("EPERM", "EACCES", "ENOENT")),
    Attack("hosts-abstract-socket", r'sock = socket.socket(socket.AF_UNIX); return sock.connect("\0{abstract}")', r'own = socket.socket(socket.AF_UNIX); own.bind("\0mine"); own.listen(); sock = socket.socket(socket.AF_UNIX); return sock.connect("\0mine")', ("ECONNREFUSED", "EPERM", "EACCES")),
    # The proxy's own door.
    Attack("take-the-proxys-port", "sock = socket.socket(); sock.setsockopt(1, 2, 1); sock.bind(PROXY); return sock.listen()", 'sock = socket.socket(); sock.bind(("127.0.0.1", 9999)); return sock.listen()', ("EADDRINUSE",)),
    Attack("share-the-proxys-port", "sock = socket.socket(); sock.setsockopt(1, 15, 1); sock.bind(PROXY); return sock.listen()", 'sock = socket.socket(); sock.setsockopt(1, 15, 1); sock.bind(("127.0.0.1", 9998)); return sock.listen()', ("EADDRINUSE",)),
    Attack("other-own-port", 'own = socket.create_server(("127.0.0.1", 9997)); return socket.create_connection(("127.0.0.1", 9997), 5).getpeername()', 'own = socket.create_server(("127.0.0.1", 9996)); return socket.create_connection(("127.0.0.1", 9996), 5).getpeername()', ("EACCES",)),
)  # fmt: skip
