"""What the runner's TLS accepts and refuses, by real handshakes in memory: no socket, no clock."""

import ssl

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.certificates import HOST, make_authority, make_server_context

from guardhouse.runner.config import ConfigError
from guardhouse.runner.tls import describe_tls_failure, make_client_context

# Old versions are named here only to see them refused.
pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.*:DeprecationWarning")


def shake_hands(client_context: ssl.SSLContext, server_context: ssl.SSLContext, host: str = HOST) -> ssl.SSLObject:
    """Run both sides of a handshake against each other until both are done or one raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        done = 0
        for side in (client, server):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                if side is client:
                    raise
        if done == 2:
            return client
    raise AssertionError("the handshake did not end")


@pytest.fixture(scope="module")
def authority():
    return make_authority()


def client(tmp_path, authority, **changes) -> ssl.SSLContext:
    settings = {
        "ca_file": authority.write(tmp_path),
        "tls_min_version": "1.3",
        "insecure_skip_tls_verify": False,
        **changes,
    }
    return make_client_context(**settings)


def test_a_good_certificate_is_accepted(tmp_path, authority) -> None:
    """The twin of every refusal below: the same two contexts without the fault shake hands with TLS 1.3."""
    assert shake_hands(client(tmp_path, authority), make_server_context(tmp_path, authority)).version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param({"ends_in_days": -0.5}, "has expired; renew", id="expired"),
        pytest.param({"starts_in_days": 0.5}, "is not valid yet; check this host's clock", id="not yet valid"),
        pytest.param({"hosts": ("other.example",)}, "is for another host; dial", id="wrong host"),
        pytest.param({"self_signed": True}, "is self-signed; give its authority", id="self-signed"),
        pytest.param({"hosts": ()}, "is for another host", id="a common name without subjectAltName"),
        pytest.param({"rsa_bits": 1024}, "has a key that is too weak", id="RSA 1024"),
        pytest.param({"usage": ExtendedKeyUsageOID.CLIENT_AUTH}, "is not meant for servers", id="client certificate"),
        pytest.param({"tls_maximum": ssl.TLSVersion.TLSv1_2}, "TLS 1.3, or accept 1.2 by", id="TLS 1.2 only"),
    ],
)
def test_refused(tmp_path, authority, fault, words) -> None:
    """A hub with one fault is refused, and the words name the fault and the way out."""
    server = make_server_context(tmp_path, authority, **fault)
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(client(tmp_path, authority), server)
    assert words in describe_tls_failure(caught.value, host=HOST)


def test_an_unknown_authority_is_refused(tmp_path, authority) -> None:
    """A certificate of another authority is refused and --ca-file named."""
    server = make_server_context(tmp_path, make_authority("somebody else"))
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(client(tmp_path, authority), server)
    assert "unknown authority; give the authority's PEM file by --ca-file" in describe_tls_failure(
        caught.value, host=HOST
    )


def test_ca_file_replaces_the_systems_authorities(tmp_path, authority) -> None:
    """With --ca-file only its authorities are trusted."""
    context = client(tmp_path, authority)
    assert context.cert_store_stats()["x509_ca"] == 1


def test_tls_1_2_when_asked_for(tmp_path, authority) -> None:
    """--tls-min-version 1.2 accepts a hub that has no 1.3, with forward secrecy and authenticated encryption."""
    server = make_server_context(tmp_path, authority, tls_maximum=ssl.TLSVersion.TLSv1_2)
    connection = shake_hands(client(tmp_path, authority, tls_min_version="1.2"), server)
    assert connection.version() == "TLSv1.2"
    assert connection.cipher()[0].startswith("ECDHE-")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_tls_never(tmp_path, authority, version) -> None:
    """TLS 1.0 and 1.1 are refused whatever was asked for."""
    server = make_server_context(tmp_path, authority, tls_maximum=version)
    with pytest.raises((ssl.SSLError, AssertionError)):
        shake_hands(client(tmp_path, authority, tls_min_version="1.2"), server)


@pytest.mark.parametrize(
    "cipher", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "DES-CBC3-SHA", "RC4-SHA", "NULL-SHA256", "AECDH-NULL-SHA"]
)
def test_weak_ciphers_are_not_offered(tmp_path, authority, cipher) -> None:
    """Nothing without forward secrecy or authenticated encryption is offered."""
    names = {entry["name"] for entry in client(tmp_path, authority, tls_min_version="1.2").get_ciphers()}
    assert cipher not in names
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)


def test_verification_can_be_switched_off_by_name_only(tmp_path, authority) -> None:
    """--insecure-skip-tls-verify accepts a self-signed certificate; nothing else does."""
    server = make_server_context(tmp_path, authority, self_signed=True)
    assert shake_hands(client(tmp_path, authority, insecure_skip_tls_verify=True), server).version() == "TLSv1.3"


@pytest.mark.parametrize(("content", "words"), [(None, "cannot read"), ("no PEM", "holds no certificate")])
def test_bad_ca_file(tmp_path, content, words) -> None:
    """A CA file that is missing or holds none is refused with its name."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf"--ca-file: .*{words}|--ca-file: {words}"):
        make_client_context(ca_file=path, tls_min_version="1.3", insecure_skip_tls_verify=False)
