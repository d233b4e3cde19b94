"""Addresses of hubs: which are taken, and that a mistyped one is said in words."""

import pytest

from guardhouse.cli.client import ClientError, check_url
from guardhouse.cli.exit_codes import ExitCode


@pytest.mark.parametrize("url", ["https://hub.example.com:8443", "http://127.0.0.1:8443", "http://[::1]:1/hub"])
def test_addresses_of_hubs(url: str) -> None:
    """TLS anywhere, plain HTTP on loopback."""
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "hub.example.com",
        "ftp://hub.example.com",
        "http://hub.example.com",
        "https://me@hub.example.com",
        "https://hub.example.com?token=x",
        'http://127.0.0.1:8443",',
        "https://hub.example.com:99999",
        "https://[::1",
        "https://hub.example.com\n",
    ],
)
def test_what_is_no_address_is_said(url: str) -> None:
    """A typing mistake ends in words and status 2, not in a traceback, and no token is sent anywhere."""
    with pytest.raises(ClientError) as caught:
        check_url(url)
    assert caught.value.exit_code == ExitCode.USAGE
