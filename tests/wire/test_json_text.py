"""Bytes from outside become plain values or a PeerError, soon and with one meaning."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.errors import PeerError
from guardhouse.wire.json_text import parse_json

# FIGURES "Network and protocol": an error within 100 ms. Five times that in processor time here, which other work on
# the machine hardly moves; most cases take a tenth of the figure.
ERROR_MAX_S = 0.5

MILLION_KEYS = b"{" + b",".join(b'"k%d":1' % n for n in range(10**6)) + b"}"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"[" * 100_000, "malformed", id="depth 100000, open"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "malformed", id="depth 100000, closed"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "malformed", id="depth 100000, objects"),
        pytest.param(b'{"a":' * 5_000_000, "malformed", id="depth 5 million"),
        pytest.param(b"[" * 65 + b"]" * 65, "malformed", id="one level too deep"),
        pytest.param(MILLION_KEYS, "malformed", id="a million keys"),
        pytest.param(b"[" + b"[]," * 10_000_000 + b"1]", "malformed", id="ten million arrays"),
        pytest.param(b"[" + b"1," * 15_000_000 + b"1]", "malformed", id="fifteen million numbers"),
        pytest.param(b'"' * 30_000_000, "malformed", id="thirty million quotes"),
        pytest.param(b"[" + b'"",' * 10_000_000 + b"1]", "malformed", id="ten million empty texts"),
        pytest.param(b'{"a":1,"a":2}', "malformed", id="key twice"),
        pytest.param(b'{"a":1,"\\u0061":2}', "malformed", id="key twice, one of them escaped"),
        pytest.param(b'{"x":{"a":":","a":"\\":"}}', "malformed", id="key twice, colons in texts"),
        pytest.param(b'{"a":NaN}', "malformed", id="NaN"),
        pytest.param(b'{"a":Infinity}', "malformed", id="Infinity"),
        pytest.param(b'{"a":-Infinity}', "malformed", id="-Infinity"),
        pytest.param(b'{"a":1e999}', "malformed", id="a number beyond a double"),
        pytest.param(b'{"a":' + b"1" * 10_000_000 + b"}", "malformed", id="an integer of 10 MB"),
        pytest.param(b'{"a":' + b"1" * 21 + b"}", "malformed", id="an integer beyond 64 bits"),
        pytest.param(b'{"a":-9223372036854775809}', "malformed", id="below the least 64-bit integer"),
        pytest.param(rb'{"a":"\ud800"}', "malformed", id="lone high surrogate"),
        pytest.param(rb'{"a":"\udc00x"}', "malformed", id="lone low surrogate"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', "malformed", id="a surrogate in the bytes"),
        pytest.param(b'{"a":"\xff"}', "malformed", id="invalid UTF-8"),
        pytest.param(b'{"a":"\xc0\xaf"}', "malformed", id="overlong UTF-8"),
        pytest.param('{"a":"\udc80"}', "malformed", id="lone surrogate in a text frame"),
        pytest.param(b"\xef\xbb\xbf{}", "malformed", id="byte-order mark"),
        pytest.param(b'{"a":"\x00"}', "malformed", id="raw control character"),
        pytest.param(b"{} {}", "malformed", id="two values"),
        pytest.param(b"", "malformed", id="nothing"),
        pytest.param(b"{'a':1}", "malformed", id="single quotes"),
        pytest.param(b'{"a":1,}', "malformed", id="trailing comma"),
        pytest.param(b'"' + b"a" * (32 * 1024 * 1024) + b'"', "oversized", id="over 32 MiB"),
        pytest.param("é" * (17 * 1024 * 1024), "oversized", id="over 32 MiB only as bytes"),
        pytest.param(b" " * 33 * 1024 * 1024, "oversized", id="over 32 MiB of blanks"),
    ],
)
def test_refused(data: bytes | str, code: str) -> None:
    """What is no bounded, unambiguous JSON is refused with its code, soon, and without quoting the data."""
    start = time.process_time()
    with pytest.raises(PeerError) as caught:
        parse_json(data)
    assert time.process_time() - start < ERROR_MAX_S
    assert caught.value.code == code
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b"[" * 64 + b"]" * 64, None, id="the deepest allowed"),
        pytest.param(b'{"a":18446744073709551615}', {"a": 2**64 - 1}, id="the largest integer"),
        pytest.param(b'{"a":-9223372036854775808}', {"a": -(2**63)}, id="the least integer"),
        pytest.param(rb'{"a":"\ud83d\ude00"}', {"a": "\U0001f600"}, id="a surrogate pair"),
        pytest.param(rb'{"a":"\u0000"}', {"a": "\0"}, id="an escaped NUL is text; fields refuse it"),
        pytest.param(b'{"a":{"a":1},"b":{"a":1}}', None, id="equal keys in different objects"),
        pytest.param(rb'{"a:b\"":":,{[\\","c\\":"\\\":"}', None, id="structure marks inside texts"),
        pytest.param(b'{"a":"' + b"[{,:" * 100_000 + b'"}', None, id="many structure marks inside one text"),
        pytest.param(b'{"a":"' + b'\\"[' * 100_000 + b'"}', None, id="many escaped quotes"),
        pytest.param(b" \t\r\n{} ", {}, id="blanks around"),
    ],
)
def test_taken(data: bytes, value: object) -> None:
    """The twins: what looks like the refused but is within bounds parses, to what the standard library says."""
    parsed = parse_json(data)
    assert parsed == (json.loads(data) if value is None else value)


def test_too_many_nodes_is_exact() -> None:
    """The bound counts values: as many as allowed pass, one more does not."""
    assert parse_json(b"[1,1,1]", max_nodes=4) == [1, 1, 1]
    with pytest.raises(PeerError, match="more than 4 values"):
        parse_json(b"[1,1,1,1]", max_nodes=4)
    assert parse_json(b'["a,b,c,[d"]', max_nodes=2) == ["a,b,c,[d"]
    assert parse_json(b'{"a":{"b":"c"}}', max_nodes=3) == {"a": {"b": "c"}}


def test_write_of_20_mb_is_fast() -> None:
    """A write of 20 MB in base64 decodes in well under a second."""
    text = '{"content":"' + "QUJD" * (20_000_000 // 3) + '"}'
    start = time.process_time()
    parse_json(text)
    assert time.process_time() - start < 0.5


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@settings(deadline=None, max_examples=60)
@given(JSON, st.booleans())
def test_agrees_with_the_standard_library(value: object, ascii_only: bool) -> None:
    """Every value that json.dumps writes is read back as json.loads reads it."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == json.loads(text)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=4)), max_size=6))
def test_refuses_exactly_repeated_keys(members: list[tuple[str, str]]) -> None:
    """An object is refused if and only if two of its keys are equal after unescaping."""
    text = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members) + "}"
    keys = [key for key, _ in members]
    if len(set(keys)) == len(keys):
        assert parse_json(text) == dict(members)
    else:
        with pytest.raises(PeerError, match="same key twice"):
            parse_json(text)
