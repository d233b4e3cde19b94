"""Content: what is text, in which character set, and how far it may expand; HTML to Markdown and text."""

import gzip
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.limits import FETCH_BODY_MAX_BYTES
from guardhouse.worker.fetch_content import MediaType, check_is_text, decode_text, expand_body, parse_media_type
from guardhouse.worker.fetch_protocol import FetchRefused
from guardhouse.worker.fetch_text import html_to_markdown, html_to_text

URL = "http://a/"


@pytest.mark.parametrize(
    ("header", "name", "charset"),
    [
        ("text/html; charset=UTF-8", "text/html", "UTF-8"),
        ('Text/HTML;x=1; Charset = "latin1"', "text/html", "latin1"),
        ("application/json", "application/json", None),
        (None, "", None),
        ("nonsense", "", None),
        ("; charset=x", "", "x"),
    ],
)
def test_media_types(header, name, charset) -> None:
    """Type and charset are read as servers write them; nonsense says nothing."""
    assert parse_media_type(header) == MediaType(name, charset)


@pytest.mark.parametrize(
    "name", ["text/plain", "text/x-c", "application/json", "application/atom+xml", "image/svg+xml"]
)
def test_text_types_pass(name: str) -> None:
    """Text by its type passes."""
    assert check_is_text(MediaType(name), b"\x00", url=URL).name == name


@pytest.mark.parametrize(
    "name", ["image/png", "application/pdf", "application/zip", "application/octet-stream", "video/mp4"]
)
def test_binary_is_refused(name: str) -> None:
    """Anything else is refused with type and size."""
    with pytest.raises(FetchRefused, match=f"{name}, 3 bytes") as caught:
        check_is_text(MediaType(name), b"abc", url=URL)
    assert caught.value.code == "binary"


@pytest.mark.parametrize(
    ("body", "name"),
    [(b"hello", "text/plain"), (b"\n <!DOCTYPE html><p>", "text/html"), (b"<html>", "text/html"), (b"", "text/plain")],
)
def test_no_type_is_looked_at(body: bytes, name: str) -> None:
    """Without a type the start of the body tells; NUL bytes mean binary."""
    assert check_is_text(MediaType(""), body, url=URL).name == name
    with pytest.raises(FetchRefused, match="of no named type"):
        check_is_text(MediaType(""), body + b"\x00", url=URL)


@pytest.mark.parametrize(
    ("body", "media", "text"),
    [
        ("\u00e9".encode(), MediaType("text/plain"), "\u00e9"),
        (b"\xe9\x80", MediaType("text/plain", "iso-8859-1"), "\u00e9\u20ac"),
        (b"\xef\xbb\xbfx", MediaType("text/plain", "latin1"), "x"),
        (b"\xff\xfex\x00", MediaType("text/plain"), "x"),
        (b"\xfe\xff\x00x", MediaType("text/html", "utf-8"), "x"),
        (b'<meta charset="windows-1251">\xe9', MediaType("text/html"), '<meta charset="windows-1251">\u0439'),
        (b"<meta http-equiv=x content='text/html; charset=gbk'>\xc4\xe3", MediaType("text/html"), "\u4f60"),
        (b"<?xml version='1.0' encoding='iso-8859-2'?>\xb1", MediaType("application/xml"), "\u0105"),
        (b"<meta charset=utf-16>x", MediaType("text/html"), "<meta charset=utf-16>x"),
        (b"\x82\xa0", MediaType("text/plain", "Shift_JIS"), "\u3042"),
    ],
)
def test_character_sets(body: bytes, media: MediaType, text: str) -> None:
    """Byte order mark, header, meta or XML declaration, UTF-8: in this order."""
    assert decode_text(body, media).text.endswith(text)


@pytest.mark.parametrize(
    "label", ["nonsense", "zip", "base64", "rot13", "hex", "idna", "unicode_escape", "utf-7", "undefined", "\x00"]
)
def test_unknown_character_sets(label: str) -> None:
    """A set that is none, or that carries text inside text, is an error and no guess."""
    with pytest.raises(FetchRefused, match="unknown character set") as caught:
        decode_text(b"x", MediaType("text/plain", label))
    assert caught.value.code == "charset"


def test_bad_bytes_are_said() -> None:
    """What is not valid is replaced and counted in a note."""
    decoded = decode_text(b"a\xff\xfeb\xff", MediaType("text/plain"))
    assert decoded.text == "a\ufffd\ufffdb\ufffd"
    assert decoded.notes[0].startswith("3 characters")


@given(st.binary(max_size=3000), st.integers(1, 400))
def test_encodings_round_trip(data: bytes, size: int) -> None:
    """Whatever was packed comes out, however it was cut."""
    bare = zlib.compressobj(wbits=-15)
    packed = {"gzip": gzip.compress(data), "deflate": zlib.compress(data), "identity": data}
    for name, body in packed.items():
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert expand_body(chunks, encoding=name, url=URL) == data
    body = bare.compress(data) + bare.flush()
    assert expand_body([body], encoding="deflate", url=URL) == data


@pytest.mark.parametrize(
    ("make_body", "encoding", "code"),
    [
        (lambda: b"x" * (FETCH_BODY_MAX_BYTES + 1), None, "too_large"),
        # Made by who runs the test alone: each takes a second.
        (lambda: gzip.compress(bytes(300_000_000)), "gzip", "bomb"),
        (lambda: zlib.compress(bytes(300_000_000)), "deflate", "bomb"),
        (lambda: gzip.compress(b"x")[:-4], "gzip", "bad_answer"),
        (lambda: b"no gzip", "gzip", "bad_answer"),
        (lambda: b"x", "br", "bad_answer"),
        (lambda: b"x", "gzip, gzip", "bad_answer"),
    ],
    ids=["large", "gzip bomb", "deflate bomb", "cut", "damaged", "unasked", "twice"],
)
def test_bounds_of_bodies(make_body: Callable[[], bytes], encoding, code: str) -> None:
    """Large, bombs, damaged and unasked encodings end early, each with its code."""
    body = make_body()
    start = time.process_time()
    with pytest.raises(FetchRefused) as caught:
        expand_body([body[at : at + 65_536] for at in range(0, len(body), 65_536)], encoding=encoding, url=URL)
    assert caught.value.code == code
    assert time.process_time() - start < 1


def test_exactly_the_bound_passes() -> None:
    """The twin of too large."""
    assert len(expand_body([b"x" * FETCH_BODY_MAX_BYTES], encoding=None, url=URL)) == FETCH_BODY_MAX_BYTES


PAGE = """<!doctype html><html><head><title>The title</title><style>x{}</style></head><body>
<h2>Head</h2><p>One <b>bold</b> &amp; <a href="/l">link</a><script>evil()</script></p><ul><li>a</li><li>b</li></ul>
<pre>  code
    more</pre><a href="javascript:x()">js</a><table><tr><th>h</th></tr><tr><td>1</td></tr></table>
<br><br><br><br><br>end</body>"""


def test_markdown() -> None:
    """Title, headings, absolute links, lists and code; no scripts, no styles, no more than one blank line in a row."""
    text = html_to_markdown(PAGE, base_url="https://h/x/y").text
    for piece in ("# The title\n", "## Head\n", "**bold** &", "[link](https://h/l)", "- a\n- b\n", "    more", "end\n"):
        assert piece in text
    assert "evil" not in text
    assert "javascript:" not in text
    assert "\n\n\n" not in text


def test_text() -> None:
    """Text alone, a line for each block, code with its blanks."""
    text = html_to_text(PAGE).text
    assert "The title\n" in text
    assert "One bold & link\n" in text
    assert "    more" in text
    assert "evil" not in text
    assert "x{}" not in text


def test_deep_pages_are_stripped() -> None:
    """Nesting that would exhaust the converter costs its form and not its text."""
    rendered = html_to_markdown("<div>" * 20_000 + "deep" + "</div>" * 20_000, base_url=URL)
    assert rendered.text == "deep\n"
    assert "nested too deeply" in rendered.notes[0]


def test_pages_of_nothing_but_tags_are_stripped() -> None:
    """A tree that would not fit the worker's memory is not built."""
    rendered = html_to_markdown("<i>x" * 160_000, base_url=URL)
    assert "too many tags" in rendered.notes[0]
    assert rendered.text == "x" * 160_000 + "\n"


@given(st.text(alphabet='<>/="! -abpdivscrt&#;\n', max_size=400))
def test_any_text_is_a_page(html: str) -> None:
    """No page is an error."""
    html_to_markdown(html, base_url=URL)
    html_to_text(html)
