"""What a server's answer is: its type, its compression, its character set; bytes to text within bounds. Pure.

Hostile content costs at most the bounds of limits.py. Runs in the fetch worker.
"""

import codecs
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guardhouse.limits import FETCH_BODY_MAX_BYTES, FETCH_RATIO_FREE_BYTES, FETCH_RATIO_MAX
from guardhouse.worker.fetch_protocol import FetchRefused, too_large

__all__ = ["Decoded", "MediaType", "check_is_text", "decode_text", "expand_body", "parse_media_type"]

_TEXT_TYPES: Final = frozenset(
    "application/" + name
    for name in (
        "json", "xml", "xhtml+xml", "javascript", "ecmascript", "x-javascript", "yaml", "x-yaml", "toml", "sql",
        "graphql", "x-ndjson", "jsonl", "ld+json", "problem+json", "x-sh", "x-www-form-urlencoded", "rtf", "x-tex",
        "x-python", "csv",
    )
)  # fmt: skip
_HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHARSET: Final = re.compile(r"""charset\s{0,8}=\s{0,8}["']?([^\s"';]{1,40})""", re.IGNORECASE)
_META: Final = re.compile(rb"<meta\b[^>]{0,400}?charset\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_XML_DECLARATION: Final = re.compile(
    rb"^\s{0,16}<\?xml\b[^>]{0,200}?encoding\s{0,8}=\s{0,8}[\"']([A-Za-z0-9_.:-]{1,40})"
)
_LOOKS_LIKE_HTML: Final = re.compile(
    rb"^\s{0,512}(?:<!--.{0,512}?-->\s{0,64})?<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_META_WITHIN_BYTES: Final = 4_096
_SNIFFED_BYTES: Final = 1_024
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Labels that browsers read as another, larger set (WHATWG Encoding).
_WIDER: Final = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030",
    "tis-620": "cp874", "shift_jis": "cp932", "euc_kr": "cp949", "utf-16": "utf-16-le",
}  # fmt: skip
# Python codecs that are no character sets of pages: they carry text inside text, or depend on this host.
_NO_CHARSETS: Final = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf_7", "undefined", "mbcs", "oem", "palmos"}
)


@dataclass(frozen=True, slots=True)
class MediaType:
    """A Content-Type: ``type/subtype`` in lower case ("" where none was said) and the charset it names."""

    name: str
    charset: str | None = None

    @property
    def is_html(self) -> bool:
        """Whether it is HTML or XHTML."""
        return self.name in _HTML_TYPES


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and what its reader should know."""

    text: str
    notes: tuple[str, ...] = ()


def parse_media_type(header: str | None) -> MediaType:
    """Return what a Content-Type header says; a malformed one says nothing."""
    name, _, parameters = (header or "").partition(";")
    name = name.strip().lower()
    charset = _CHARSET.search(parameters)
    return MediaType(name if _TOKEN.fullmatch(name) else "", None if charset is None else charset[1])


def check_is_text(media: MediaType, body: bytes, *, url: str) -> MediaType:
    """Let text pass; where the server names no type, say by its start whether it is HTML.

    Raises:
        FetchRefused: ``binary``, with type and size.
    """
    name = media.name
    if name.startswith("text/") or name in _TEXT_TYPES or name.endswith(("+json", "+xml", "+yaml", "+text")):
        return media
    start = body[:_SNIFFED_BYTES]
    if not name and not _is_binary(start):
        return MediaType("text/html" if _LOOKS_LIKE_HTML.match(start) else "text/plain", media.charset)
    raise FetchRefused(
        f"binary content is not fetched: {url[:200]!r} is {name or 'of no named type'}, {len(body)} bytes;"
        " download it with a command if one is allowed",
        code="binary",
    )


def _is_binary(start: bytes) -> bool:
    if any(start.startswith(bom) for bom, _ in _BOMS):
        return False
    return any(byte < 0x20 and byte not in b"\t\n\v\f\r\x1b" for byte in start)


def expand_body(
    chunks: Iterable[bytes], *, encoding: str | None, url: str, max_bytes: int = FETCH_BODY_MAX_BYTES
) -> bytes:
    """Return a body of at most ``max_bytes``, as it was before its Content-Encoding; stops reading beyond a bound.

    Raises:
        FetchRefused: ``too_large``, ``bomb``, or ``bad_answer`` for a damaged or unknown encoding.
    """
    name = (encoding or "identity").strip().lower()
    expand = _Expansion(url, name, max_bytes)
    for chunk in chunks:
        expand.take(chunk)
    return expand.finish()


class _Expansion:
    """One body, its bounds kept at each step: nothing is expanded further than one byte beyond a bound."""

    def __init__(self, url: str, name: str, max_bytes: int) -> None:
        self._url = url[:200]
        self._max_bytes = max_bytes
        self._name = name
        self._received = 0
        self._out = bytearray()
        self._first = b""
        self._inflate: zlib._Decompress | None = None
        if name in ("gzip", "x-gzip"):
            self._inflate = zlib.decompressobj(wbits=31)
        elif name == "deflate":
            self._inflate = zlib.decompressobj()
        elif name not in ("identity", ""):
            raise FetchRefused(f"{self._url!r} is encoded as {name[:40]!r}, which was not asked for", code="bad_answer")

    def take(self, chunk: bytes) -> None:
        """Add the next bytes as they were sent."""
        self._received += len(chunk)
        if self._inflate is None:
            self._out += chunk
            self._check()
            return
        if self._name == "deflate" and self._received == len(chunk) and chunk and chunk[0] & 0x0F != 8:
            # RFC 9110 means zlib; some servers send the bare stream.
            self._inflate = zlib.decompressobj(wbits=-15)
        data = chunk
        try:
            while data and not self._inflate.eof:
                room = self._max_bytes + 1 - len(self._out)
                self._out += self._inflate.decompress(data, room)
                data = self._inflate.unconsumed_tail
                self._check(waiting=len(data))
        except zlib.error as error:
            raise FetchRefused(f"{self._url!r} sends damaged {self._name} data: {error}", code="bad_answer") from None

    def finish(self) -> bytes:
        """Return the whole."""
        if self._inflate is not None and self._received and not self._inflate.eof:
            raise FetchRefused(f"{self._url!r} sends {self._name} data that ends too early", code="bad_answer")
        return bytes(self._out)

    def _check(self, *, waiting: int = 0) -> None:
        size = len(self._out)
        if size > FETCH_RATIO_FREE_BYTES and size > FETCH_RATIO_MAX * (self._received - waiting):
            raise FetchRefused(
                f"{self._url!r} expands more than {FETCH_RATIO_MAX} times; it is refused as a compression bomb",
                code="bomb",
            )
        if size > self._max_bytes:
            raise too_large(repr(self._url), max_bytes=self._max_bytes)


def decode_text(body: bytes, media: MediaType) -> Decoded:
    """Return the body as text: by its byte order mark, else the header, else what HTML or XML say, else UTF-8.

    Raises:
        FetchRefused: ``charset``: one is named that is unknown.
    """
    for bom, name in _BOMS:
        if body.startswith(bom):
            return _decode(body[len(bom) :], name)
    label = media.charset
    if label is None and (media.is_html or media.name.endswith("xml")):
        found = _XML_DECLARATION.match(body[:_META_WITHIN_BYTES]) or _META.search(body[:_META_WITHIN_BYTES])
        label = None if found is None else found[1].decode("ascii")
        if label is not None and label.lower().startswith(("utf-16", "utf-32")):
            # It could not have been read otherwise (WHATWG HTML, "prescan").
            label = "utf-8"
    return _decode(body, _codec(label or "utf-8"))


def _codec(label: str) -> str:
    try:
        found = codecs.lookup(label.strip())
    except (LookupError, ValueError):
        raise _unknown(label) from None
    name = found.name
    if name.replace("-", "_") in _NO_CHARSETS or not getattr(found, "_is_text_encoding", True):
        raise _unknown(label)
    return _WIDER.get(name, name)


def _unknown(label: str) -> FetchRefused:
    return FetchRefused(f"unknown character set {label[:40]!r}: the page cannot be read as text", code="charset")


def _decode(body: bytes, codec: str) -> Decoded:
    text = body.decode(codec, "replace")
    replaced = text.count("\ufffd")
    notes = (f"{replaced} characters were not valid {codec} and read \ufffd",) if replaced else ()
    return Decoded(text, notes)
