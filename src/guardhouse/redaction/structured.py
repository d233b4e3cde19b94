"""Secrets out of argument vectors and plain JSON data, where a name tells that its value is one. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from guardhouse.redaction.entries import marker
from guardhouse.redaction.stream import Redactor

__all__ = ["SecretNames", "redact_argv", "redact_data"]

_NAMED: Final = marker("named_secret").decode()
_DEPTH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class SecretNames:
    """Names whose values are secret.

    Attributes:
        keys: RE2 over bytes, to match a whole key of JSON data.
        options: command-line options whose next word is a secret.
    """

    keys: re2._Regexp
    options: frozenset[str]

    def is_secret_key(self, key: str) -> bool:
        """Tell whether the value under ``key`` is a secret by its name. A question; it guards nothing."""
        return self.keys.fullmatch(key.encode("utf-8", "surrogatepass")) is not None


def redact_argv(redactor: Redactor, names: SecretNames, argv: Sequence[str]) -> tuple[str, ...]:
    """Return ``argv`` for a record: each word redacted, and the word after an option like ``--password`` gone."""
    words = []
    is_value = False
    for word in argv:
        words.append(_NAMED if is_value and word else redactor.redact_text(word))
        is_value = word in names.options
    return tuple(words)


def redact_data(redactor: Redactor, names: SecretNames, data: Any, *, depth: int = 0) -> Any:
    """Return plain JSON data with every text redacted, and every text under a secret's name gone.

    Keys are redacted too. Deeper than 100 levels nothing is looked at: the value becomes a marker.
    """
    if isinstance(data, str):
        return redactor.redact_text(data)
    if isinstance(data, bytes):
        return redactor.redact(data)
    if depth >= _DEPTH_MAX and isinstance(data, Mapping | Sequence):
        return marker("too_deep").decode()
    if isinstance(data, Mapping):
        return {
            redactor.redact_text(key) if isinstance(key, str) else key: _NAMED
            if isinstance(value, str) and value and isinstance(key, str) and names.is_secret_key(key)
            else redact_data(redactor, names, value, depth=depth + 1)
            for key, value in data.items()
        }
    if isinstance(data, Sequence):
        return [redact_data(redactor, names, value, depth=depth + 1) for value in data]
    return data
