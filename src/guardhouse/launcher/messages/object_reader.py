"""One JSON object of a message, taken apart key by key with every type and bound checked. Standard library only."""

import re
from typing import Any

from guardhouse.errors import PeerError

__all__ = ["ObjectReader"]


class ObjectReader:
    """Takes typed values out of one JSON object; `finish` refuses what is left over.

    Every method raises PeerError, which names the place of the object and the key, where its value is another.
    """

    def __init__(self, raw: dict[str, Any], place: str) -> None:
        self._raw = raw
        self._place = place

    def _take(self, key: str) -> Any:
        if key not in self._raw:
            raise PeerError(f"{self._place} lacks {key!r}")
        return self._raw.pop(key)

    def _wrong(self, key: str, expected: str, value: Any) -> PeerError:
        return PeerError(f"{self._place}.{key} must be {expected}, got {type(value).__name__}")

    def finish(self) -> None:
        """Refuse what nobody has taken."""
        if self._raw:
            raise PeerError(f"{self._place} has unknown keys: {', '.join(sorted(self._raw))}")

    def take_int(self, key: str, least: int, most: int) -> int:
        """Take a whole number from ``least`` to ``most``; true and false are none."""
        value = self._take(key)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(key, f"a whole number from {least} to {most}", value)
        return value

    def take_optional_int(self, key: str) -> int | None:
        """Take a whole number from 0, or None where it is ``null``."""
        if self._raw.get(key, 0) is None:
            del self._raw[key]
            return None
        return self.take_int(key, 0, 2**63)

    def take_number(self, key: str) -> float:
        """Take a finite number of either kind."""
        value = self._take(key)
        if type(value) not in (int, float) or not abs(value) < 2**53:
            raise self._wrong(key, "a finite number", value)
        return float(value)

    def take_bool(self, key: str) -> bool:
        """Take true or false."""
        value = self._take(key)
        if type(value) is not bool:
            raise self._wrong(key, "true or false", value)
        return value

    def take_text(self, key: str, most_chars: int) -> str:
        """Take a text of at most ``most_chars`` characters."""
        value = self._take(key)
        if type(value) is not str or len(value) > most_chars:
            raise self._wrong(key, f"text of at most {most_chars} characters", value)
        return value

    def take_optional_text(self, key: str) -> str | None:
        """Take a text, or None where it is ``null``."""
        if self._raw.get(key, "") is None:
            del self._raw[key]
            return None
        return self.take_text(key, 16_384)

    def take_optional_object(self, key: str) -> dict[str, Any] | None:
        """Take an object, or None where it is ``null``."""
        if self._raw.get(key, 0) is None:
            del self._raw[key]
            return None
        return self.take_object(key)

    def take_matching(self, key: str, pattern: re.Pattern[str]) -> str:
        """Take a text that ``pattern`` matches."""
        value = self.take_text(key, 256)
        if not pattern.match(value):
            raise PeerError(f"{self._place}.{key} {value!r} is not a name")
        return value

    def take_texts(self, key: str) -> tuple[str, ...]:
        """Take a list of texts."""
        value = self._take(key)
        if not isinstance(value, list) or not all(type(item) is str for item in value):
            raise self._wrong(key, "a list of texts", value)
        return tuple(value)

    def take_text_lists(self, key: str) -> tuple[tuple[str, ...], ...]:
        """Take a list of lists of texts."""
        value = self._take(key)
        if not isinstance(value, list) or not all(
            isinstance(words, list) and all(type(word) is str for word in words) for words in value
        ):
            raise self._wrong(key, "a list of lists of texts", value)
        return tuple(tuple(words) for words in value)

    def take_object(self, key: str) -> dict[str, Any]:
        """Take an object."""
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def take_table(self, key: str, kind: type) -> dict[str, Any]:
        """Take an object whose values are all exactly of ``kind``."""
        value = self.take_object(key)
        if not all(type(item) is kind for item in value.values()):
            raise self._wrong(key, f"an object of {kind.__name__}", value)
        return value
