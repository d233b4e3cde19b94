"""Values that the operator names go, however they are written."""

import base64
import html
import itertools
import json
import random
import re
import time
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.redaction import Literal, RedactionError, Redactor, literals_of, parse_value_lines
from guardhouse.redaction.entries import Match, WrappedLiteral

VALUE = b"tr0ub4dor&3 'horse'/+\xc3\xa9"
REDACTOR = Redactor(literals_of({"PIN": VALUE}, name="test"))


@pytest.mark.parametrize(
    "written",
    [
        VALUE.decode(),
        base64.b64encode(VALUE).decode().rstrip("=")[:-1],
        urllib.parse.quote(VALUE, safe=""),
        urllib.parse.quote(VALUE),
        urllib.parse.quote(VALUE, safe="").lower(),
        urllib.parse.quote_plus(VALUE),
        json.dumps(VALUE.decode()).strip('"'),
        html.escape(VALUE.decode()),
        VALUE.decode().replace("'", "'\\''"),
        VALUE.hex(),
        VALUE.hex().upper(),
    ],
)
def test_written_forms(written: str) -> None:
    """The value leaves in none of the forms in which programs write it."""
    redacted = REDACTOR.redact_text(f"a {written} b")
    assert redacted.startswith("a [redacted: pin]")
    assert redacted.endswith(" b")


@settings(max_examples=60, deadline=None)
@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_base64_of_anything_around_it(before: bytes, after: bytes) -> None:
    """Base64 of a text that holds the value does not decode to it any more, wherever in the text it stands."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert b"[redacted: pin]" in REDACTOR.redact(encode(before + VALUE + after))


def test_wrapped_base64() -> None:
    """base64(1) breaks lines at 76 characters; a long value is found across the break."""
    value = bytes(range(33, 120)) * 2
    redactor = Redactor(literals_of({"LONG": value}, name="test"))
    redacted = redactor.redact(base64.encodebytes(value))
    assert redacted.startswith(b"[redacted: long]")
    assert len(redacted) < 24


def _lines(text: bytes, width: int, end: bytes) -> bytes:
    return end.join(text[at : at + width] for at in range(0, len(text), width)) + end


@pytest.mark.parametrize("width", [16, 60, 64, 76])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_value_inside_a_wrapped_encoding(width: int, end: bytes) -> None:
    """Wherever a value stands in a file that is written as base64 or hexadecimal in lines, it goes."""
    for before in range(0, 80, 3):
        body = b"x" * before + VALUE + b"y" * 40
        for encoded in (base64.b64encode(body), body.hex().encode()):
            written = _lines(encoded, width, end)
            redacted = REDACTOR.redact(written)
            assert b"[redacted: pin]" in redacted
            stream = REDACTOR.stream()
            cut = b"".join(stream.feed(written[at : at + 7]) for at in range(0, len(written), 7)) + stream.flush()
            assert cut == redacted


def test_what_only_begins_like_a_wrapped_value_stays() -> None:
    """Lines that differ from the value in one character, or are shorter than any program writes, leave as they are."""
    encoded = base64.b64encode(VALUE + b"yyy")
    other = encoded[:20] + (b"A" if encoded[20:21] != b"A" else b"B") + encoded[21:]
    for text in (_lines(other, 16, b"\n"), _lines(encoded, 2, b"\n"), encoded[:-8].replace(encoded[8:9], b"\n\n", 1)):
        assert REDACTOR.redact(text) == text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"A": b"abc"}, "too few"),
        ({"A": b"x" * 9000}, "too many"),
        ({"A B": b"abcdefgh"}, "no kind"),
        ({f"K{n}": b"abcdefgh%d" % n for n in range(600)}, "at most"),
    ],
)
def test_refused_values(values: dict[str, bytes], words: str) -> None:
    """A value that cannot be told from ordinary text, or too many of them, is refused, and not shown."""
    with pytest.raises(RedactionError, match=words) as caught:
        literals_of(values, name="secrets.env")
    assert not any(value.decode() in str(caught.value) for value in values.values())


def test_a_value_inside_the_marker_is_refused() -> None:
    """Taking it out would write it again."""
    with pytest.raises(RedactionError, match="marker"):
        Redactor([Literal("pin", b"redacted")])


def test_value_lines() -> None:
    """NAME=VALUE, comments and blank lines; everything behind the first = is the value."""
    assert parse_value_lines("# c\n\nA=b=c \r\nB='x'\n", name="f") == {"A": b"b=c ", "B": b"'x'"}


@pytest.mark.parametrize("text", ["A=1\nhunter2\n", "A=1\nA=hunter2\n", "A=1\n1B=hunter2\n"])
def test_value_lines_refused(text: str) -> None:
    """A line of another form is refused with its place and without its content."""
    with pytest.raises(RedactionError, match=r"^f:2:1: ") as caught:
        parse_value_lines(text, name="f")
    assert "hunter2" not in str(caught.value)


_ABC = st.sampled_from([b"a", b"b", b"\n", b"\r\n", b"\r"])


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(_ABC, max_size=60),
    exact=st.lists(st.lists(_ABC, min_size=5, max_size=12).map(b"".join), max_size=3),
    wrapped=st.lists(st.text("ab", min_size=5, max_size=40).map(str.encode), max_size=3),
    cuts=st.lists(st.integers(0, 160), max_size=4),
)
def test_every_place_of_a_value_is_found(
    pieces: list[bytes], exact: list[bytes], wrapped: list[bytes], cuts: list[int]
) -> None:
    """What looking at every single byte for every single value would find is found, in chunks of any size."""
    entries: list[Literal] = [Literal("exact", value) for value in exact if value[:1] not in (b"\n", b"\r")]
    entries += [WrappedLiteral("wrapped", value) for value in wrapped]
    # Values that begin alike, and one that another begins with, stand in the data too.
    data = b"".join(pieces) + b"".join(entry.value for entry in entries) + b"".join(pieces)
    secret = bytearray(len(data))
    for entry in entries:
        for at in range(len(data)):
            found = entry.look(data, at, is_final=True) if data[at] == entry.value[0] else None
            if isinstance(found, Match):
                secret[found.start : found.end] = b"\1" * (found.end - found.start)
    stream = Redactor(entries).stream()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    redacted = b"".join(stream.feed(data[at:end]) for at, end in itertools.pairwise(bounds)) + stream.flush()
    kept = bytes(byte for byte, gone in zip(data, secret, strict=True) if not gone)
    assert re.sub(rb"\[redacted: (?:exact|wrapped)\]", b"", redacted) == kept


def test_five_hundred_values_cost_little_more_than_ten() -> None:
    """The number of values does not multiply the time: one pass looks for all of them, in their encodings too."""
    rng = random.Random(6)
    values = {f"VALUE_{n}": base64.b64encode(rng.randbytes(24)) for n in range(500)}
    redactor = Redactor(literals_of(values, name="test"))
    text = base64.b64encode(rng.randbytes(300_000))
    redactor.redact(text[:1000])
    began = time.process_time()
    redactor.redact(text)
    assert time.process_time() - began < 1  # it took 3 s when each value had an automaton's states of its own
    assert redactor.redact(text + values["VALUE_499"]).endswith(b"[redacted: value_499]")


@pytest.mark.parametrize("value", [b"", b"\nabcdef", b"\rabcdef"])
def test_a_value_that_begins_with_a_line_end_is_refused(value: bytes) -> None:
    """Values are looked for by their beginning without line ends, which these do not have."""
    with pytest.raises(RedactionError, match="line end"):
        Literal("pin", value)
