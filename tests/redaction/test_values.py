"""Values that the operator names go, however they are written."""

import base64
import html
import json
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.redaction import Literal, RedactionError, Redactor, literals_of, parse_value_lines

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
