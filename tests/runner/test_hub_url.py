"""Which addresses of a hub are accepted, and what they become."""

import pytest

from guardhouse.runner.config import ConfigError, Identity, resolve_config
from guardhouse.runner.hub_url import parse_hub_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("wss://hub.example", "wss://hub.example:443/api/v1/runner/ws", id="our path by default"),
        pytest.param("wss://hub.example/", "wss://hub.example:443/api/v1/runner/ws", id="a lone slash"),
        pytest.param("wss://h:8443/safari/worknode/ws", "wss://h:8443/safari/worknode/ws", id="the seed's path"),
        pytest.param("wss://h/ws?region=eu", "wss://h:443/ws?region=eu", id="a query stays"),
        pytest.param("wss://[2001:db8::1]:9/x", "wss://[2001:db8::1]:9/x", id="IPv6"),
        pytest.param("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/api/v1/runner/ws", id="plain to loopback"),
        pytest.param("ws://[::1]", "ws://[::1]:80/api/v1/runner/ws", id="plain to IPv6 loopback"),
        pytest.param("ws://localhost/x", "ws://localhost:80/x", id="plain to localhost"),
        pytest.param("WSS://HUB.example/x", "wss://hub.example:443/x", id="letters of scheme and host"),
    ],
)
def test_accepted(text, expected) -> None:
    """An address reads back as what will be dialled."""
    assert str(parse_hub_url(text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("ws://hub.example", "plain ws:// to another host", id="plain off loopback"),
        pytest.param("ws://10.0.0.1", "plain ws:// to another host", id="plain to a private address"),
        pytest.param("ws://localhost.evil.example", "plain ws:// to another host", id="looks like localhost"),
        pytest.param("ws://127.0.0.1.evil.example", "plain ws:// to another host", id="looks like loopback"),
        pytest.param("https://hub.example", "scheme 'https'", id="another scheme"),
        pytest.param("hub.example", "scheme ''", id="no scheme"),
        pytest.param("wss://", "names no host", id="no host"),
        pytest.param("wss://u:p@hub.example", "user name", id="credentials"),
        pytest.param("wss://hub.example/x#y", "fragment", id="fragment"),
        pytest.param("wss://hub.example/?token=wnt_a", "holds a token", id="token in the query"),
        pytest.param("wss://hub.example/?a=1&Token=wnt_a", "holds a token", id="token in other letters"),
        pytest.param("wss://hub.example:0", "port 0", id="port 0"),
        pytest.param("wss://hub.example:70000", "ort", id="port out of range"),
        pytest.param("wss://hub.example/a b", "space", id="a space"),
        pytest.param("wss://hub.example/\r\nX: y", "control", id="header injection"),
    ],
)
def test_refused(text, words) -> None:
    """Anything else is refused with the reason and what to write."""
    with pytest.raises(ValueError, match=words):
        parse_hub_url(text)


def test_refusal_does_not_repeat_a_pasted_token() -> None:
    """A token pasted into the address is in no message."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(
            {"url": "wss://h/?token=wnt_secret", "token_file": "/t"},
            {},
            identity=Identity(effective_uid=0, home=None),
        )
    assert "wnt_secret" not in str(caught.value)


def test_token_is_quoted_in_the_plain_resource() -> None:
    """The plain protocol's query parameter survives any printable token."""
    url = parse_hub_url("wss://h/ws?a=1")
    assert url.resource_with_token("a&b=c/d") == "/ws?a=1&token=a%26b%3Dc%2Fd"


@pytest.mark.parametrize(
    ("text", "header"),
    [("wss://h", "h"), ("wss://h:8443", "h:8443"), ("ws://127.0.0.1", "127.0.0.1"), ("wss://[::1]:1", "[::1]:1")],
)
def test_host_header(text, header) -> None:
    """The Host header leaves out the scheme's own port and brackets IPv6."""
    assert parse_hub_url(text).host_header == header
