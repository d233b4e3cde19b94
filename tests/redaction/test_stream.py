"""What comes out depends on what went in and never on how it was cut; nothing but secrets changes."""

import base64
import hashlib
import random
import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.limits import REDACTION_WINDOW_BYTES
from guardhouse.redaction import Redactor
from guardhouse.redaction.entries import Pattern

AWS = b"AKIAIOSFODNN7EXAMPLE"
GITHUB = b"ghp_" + b"aB3" * 12
PEM = (
    b"-----BEGIN RSA PRIVATE KEY-----\n"
    + (b"MIIEowIBAAKCAQEA" * 4 + b"\n") * 20
    + b"abcd==\n-----END RSA PRIVATE KEY-----\n"
)
PIECES = [
    AWS, GITHUB, PEM, PEM[:300], b"-----BEGIN RSA PRIVATE KEY-----", b"password=hunter2", b'"password": "hunter2",\n',
    b"password: hunter2\n", b"token", b"secret_key = ", b"://u:p@h/", b"://u:", b"@",
    b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.",
    b"Authorization: Bearer ", b"Bearer ", b"tr0ub4dor&3 horse", b"tr0ub4dor&3 ",
    base64.b64encode(b"x tr0ub4dor&3 horse"),
    b"curl -u a:b h\n", b"sk-ant-", b"sk-", b"AKIA", b"ghp_", b" ", b"\n", b"\r\n", b"=", b'"', b"'", b"(", b"[",
    b"a", b"Z9",
    b"plain words ", b"\\n", b"\\", b"\xff\x00", b"k" + bytes(range(48, 90)) * 3, b"aB3" * 400, b"[redacted: password]",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=14).map(b"".join)


def in_chunks(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    stream = redactor.stream()
    out = []
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        out.append(stream.feed(data[at:cut]))
        at = max(at, cut)
    return b"".join(out) + stream.flush()


@settings(max_examples=150, deadline=None)
@given(data=TEXTS, cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_any_split_gives_the_same(redactor: Redactor, data: bytes, cuts: list[int]) -> None:
    """However a stream is cut, what leaves is what leaves of the whole."""
    assert in_chunks(redactor, data, [cut for cut in cuts if cut <= len(data)]) == redactor.redact(data)


@settings(max_examples=25, deadline=None)
@given(data=TEXTS)
def test_bytewise_gives_the_same(redactor: Redactor, data: bytes) -> None:
    """One byte at a time is such a cut."""
    assert in_chunks(redactor, data, list(range(len(data)))) == redactor.redact(data)


@settings(max_examples=100, deadline=None)
@given(data=TEXTS)
def test_redacting_twice_changes_nothing(redactor: Redactor, data: bytes) -> None:
    """What has been redacted is left alone: no marker is a secret, and none makes one of its neighbours."""
    once = redactor.redact(data)
    assert redactor.redact(once) == once


@settings(max_examples=100, deadline=None)
@given(data=TEXTS)
def test_nothing_is_added_or_moved(redactor: Redactor, data: bytes) -> None:
    """Between the markers stand pieces of the input, in order, with something taken out at each marker."""
    redacted, counts = redactor.redact_counted(data)
    kinds = [entry.kind.encode() for entry in redactor._index.entries]
    at = 0
    pieces = [redacted]
    for kind in set(kinds):
        pieces = [part for piece in pieces for part in piece.split(b"[redacted: " + kind + b"]")]
    for piece in pieces:
        found = data.find(piece, at)
        assert found >= 0
        at = found + len(piece)
    assert (redacted == data) == (not counts)


@pytest.mark.parametrize(
    "data",
    [
        hashlib.sha1(b"x").hexdigest().encode(),
        hashlib.sha256(b"x").hexdigest().encode() + b"  file.tar.gz\n",
        hashlib.sha512(b"x").hexdigest().encode(),
        str(uuid.UUID(int=0x12345678123456781234567812345678)).encode(),
        base64.b64encode(random.Random(1).randbytes(60_000)),
        base64.urlsafe_b64encode(random.Random(2).randbytes(60_000)),
        random.Random(3).randbytes(60_000),
        b"commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b\nAuthor: A <a@example.com>\n",
        b"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        b"https://example.com:8443/a/b?x=1#y user@example.com git@github.com:o/r.git",
        b"PWD=/home/me\nSECRET_NAME=db\ntokens: 5\nmax_tokens=4096\nkey: value\n",
        b"MAC 00:1b:44:11:3a:b7 and fe80::21b:44ff:fe11:3ab7",
        b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % base64.encodebytes(b"\x30\x82x" * 300),
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Zk9 me@host\n",
        b"def login(user, password):\n    return check(user, password=password)\n",
        b"error: token expired; the secret was rotated, password must not be empty\n",
    ],
    ids=lambda data: data[:20].decode("latin-1"),
)  # fmt: skip
def test_ordinary_data_stays(redactor: Redactor, data: bytes) -> None:
    """Digests, identifiers, certificates, code and prose come through unchanged."""
    assert redactor.redact(data) == data


def test_a_long_secret_across_many_chunks(redactor: Redactor) -> None:
    """A private key that comes in pieces of 7 bytes leaves as one marker."""
    data = b"before\n" + PEM + b"after\n"
    cuts = list(range(0, len(data), 7))
    assert in_chunks(redactor, data, cuts) == b"before\n[redacted: private_key]\nafter\n"


def test_an_endless_token_is_swallowed_not_held(redactor: Redactor) -> None:
    """A secret of any length takes no memory: what is held back stays bounded."""
    stream = redactor.stream()
    stream.feed(b"password=x")
    for _ in range(1000):
        assert len(stream.feed(b"aB3" * 1000)) < 100
        assert len(stream._data) <= redactor.hold_back_bytes + 1
    assert stream.flush() == b""


def test_hold_back_is_bounded(redactor: Redactor) -> None:
    """Whatever stands in front of it, ordinary text leaves once it is further from an anchor than the window."""
    stream = redactor.stream()
    out = stream.feed(b"Authorization: and then a very long line " + b"x" * (3 * REDACTION_WINDOW_BYTES))
    assert len(out) >= REDACTION_WINDOW_BYTES


def test_a_line_without_secrets_leaves_at_once(redactor: Redactor) -> None:
    """Nothing is held back behind a finished line, so that output is seen as it is written."""
    stream = redactor.stream()
    assert stream.feed(b"the password is not here: https://example.com/\n").endswith(b"\n")


def test_counts_name_the_kinds(redactor: Redactor) -> None:
    """What was taken out is counted by kind."""
    redacted, counts = redactor.redact_counted(b"x %s y %s z" % (AWS, GITHUB))
    assert redacted == b"x [redacted: aws_access_key] y [redacted: github_token] z"
    assert counts == {"aws_access_key": 1, "github_token": 1}


def test_neither_value_nor_length_shows(redactor: Redactor) -> None:
    """Two secrets of one kind and different lengths leave the same text."""
    assert redactor.redact(b"password=hunter2 x") == redactor.redact(b"password=" + b"hunter2" * 300 + b" x")


def test_text_with_lone_surrogates(redactor: Redactor) -> None:
    """Undecodable bytes in text come through as they are, and do not hide a secret."""
    assert redactor.redact_text("\udcff password=hunter2 \udcfe") == "\udcff password=[redacted: password] \udcfe"


def test_pem_inside_json(redactor: Redactor) -> None:
    """A key whose newlines are written as backslash and n is one secret."""
    text = '{"k": "-----BEGIN PRIVATE KEY-----\\n' + "MIIEvQ" * 10 + '\\nab==\\n-----END PRIVATE KEY-----\\n", "x": 1}'
    assert redactor.redact_text(text) == '{"k": "[redacted: private_key]\\n", "x": 1}'


@pytest.mark.parametrize(
    "unit", [b"password=", b"token: ", b"eyJaaaaaaaa.", b"://:", b"-----BEGIN ", b"AKIA", b"k", b'"auth": "']
)
def test_hostile_repetition_is_linear(redactor: Redactor, unit: bytes) -> None:
    """Output made of anchors costs time in proportion to its length."""

    def cost(size: int) -> float:
        data = (unit * size)[:size]
        start = time.process_time()
        redactor.redact(data)
        return time.process_time() - start

    small, large = (min(cost(size) for _ in range(2)) for size in (50_000, 400_000))
    assert large < 8 * 4 * max(small, 0.002)


def test_a_writer_of_single_bytes_is_put_aside(redactor: Redactor) -> None:
    """Waiting behind an anchor, single bytes are gathered and not searched again and again."""
    stream = redactor.stream()
    stream.feed(b"Authorization: ")
    start = time.process_time()
    for _ in range(REDACTION_WINDOW_BYTES - 100):
        stream.feed(b"y")
    assert time.process_time() - start < 0.5


def test_windows_of_patterns_are_the_documented_ones(redactor: Redactor) -> None:
    """Only private keys look over lines, so everything else is decided by the end of its line."""
    over = {
        entry.kind for entry in redactor._index.entries if isinstance(entry, Pattern) and entry.window.value == "text"
    }
    assert over == {"private_key"}
