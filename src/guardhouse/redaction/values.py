"""Values that the operator names as secret, and the other ways in which programs write the same value. Pure."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

from guardhouse.limits import REDACTION_VALUE_MAX_BYTES, REDACTION_VALUE_MIN_BYTES, REDACTION_VALUES_MAX
from guardhouse.redaction.entries import Literal, WrappedLiteral
from guardhouse.redaction.errors import RedactionError

__all__ = ["check_kind", "literals_of", "parse_value_lines"]

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# A shorter stretch of base64 would stand in ordinary data by chance: 8 characters are 48 bits.
_ENCODED_MIN_BYTES: Final = 8


def check_kind(kind: str, *, place: str) -> None:
    """Raise RedactionError unless ``kind`` is a word for a marker: a-z, 0-9 and _, at most 64."""
    if not _KIND.fullmatch(kind):
        raise RedactionError(f"{kind!r} is no kind; write a-z, 0-9 and _, at most 64 characters", place=place)


def parse_value_lines(text: str, *, name: str) -> dict[str, bytes]:
    """Read ``NAME=VALUE`` lines; blank lines and those that begin with ``#`` are left out, values taken as written.

    Raises:
        RedactionError: a line of another form or a name twice; the text never holds a value.
    """
    values: dict[str, bytes] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{name}:{number}:1"
        line = line.removesuffix("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator or not _NAME.fullmatch(key):
            raise RedactionError("a line that is not NAME=VALUE (its content is not shown)", place=place)
        if key in values:
            raise RedactionError(f"{key} stands here a second time", place=place)
        values[key] = value.encode("utf-8", "surrogateescape")
    return values


def literals_of(values: Mapping[str, bytes], *, name: str) -> tuple[Literal, ...]:
    """Return what to look for: each value as it is, and encoded.

    Args:
        values: by name; the name in lower case is the kind that the marker says.
        name: of the file or source, for messages.

    Raises:
        RedactionError: a value too short to be told from ordinary text or too long; or too many values.
    """
    if len(values) > REDACTION_VALUES_MAX:
        raise RedactionError(f"{len(values)} values; at most {REDACTION_VALUES_MAX} are taken", place=name)
    found: dict[bytes, Literal] = {}
    for key, given in values.items():
        place = f"{name}: {key}"
        check_kind(key.lower(), place=place)
        value = given.strip(b"\r\n")
        if not REDACTION_VALUE_MIN_BYTES <= len(value) <= REDACTION_VALUE_MAX_BYTES:
            raise RedactionError(
                f"a value of {'too few' if len(value) < REDACTION_VALUE_MIN_BYTES else 'too many'} bytes;"
                f" from {REDACTION_VALUE_MIN_BYTES} to {REDACTION_VALUE_MAX_BYTES} are taken",
                place=place,
            )
        for form in _forms(value):
            found.setdefault(form, Literal(key.lower(), form))
        for form in _encoded(value):
            if len(form) >= _ENCODED_MIN_BYTES:
                found.setdefault(form, WrappedLiteral(key.lower(), form))
    return tuple(found.values())


def _forms(value: bytes) -> Iterable[bytes]:
    yield value
    text = value.decode("utf-8", "surrogateescape")
    quoted = quote(value, safe="")
    yield from {
        form.encode("utf-8", "surrogateescape")
        for form in (
            quoted,
            re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted),
            quote(value, safe="/"),
            quote_plus(value),
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            html.escape(text),
            html.escape(text, quote=False),
            text.replace("'", "'\\''"),
        )
    } - {value}


def _encoded(value: bytes) -> Iterable[bytes]:
    if len(value) * 2 <= REDACTION_VALUE_MAX_BYTES:
        yield value.hex().encode()
        yield value.hex().upper().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # Where the value stands in what was encoded decides which bits share a character with its neighbours.
        for before in range(3):
            whole = encode(bytes(before) + value)
            yield whole[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]
