"""Strict YAML: text to values that know their file, line and column, and nothing implicit.

No anchors, aliases, tags, merge keys, second documents or doubled keys; a scalar is text until somebody asks for a
number, so ``no`` and ``0777`` mean what they say. Knows nothing of profiles. Runs at boot and in the CLI.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import yaml

from guardhouse.errors import SetupError

__all__ = ["ProfileError", "Value", "read_document"]

# The longest shipped file has 15 KiB; a profile of a megabyte is a mistake or an attack on the parser.
DOCUMENT_MAX_CHARS: Final = 1_000_000
DOCUMENT_MAX_DEPTH: Final = 12

# libyaml's parser where PyYAML was built with it: ten times as fast, the same events and nodes.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_SIZE: Final = re.compile(r"(0|[1-9][0-9]{0,12}) ?(B|KiB|MiB|GiB)", re.ASCII)
_SIZE_UNIT_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class ProfileError(SetupError):
    """A profile or group file says something that cannot be honoured. ``place`` is ``file:line:column``."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place


@dataclass(frozen=True, slots=True)
class Value:
    """One node: exactly one of ``text``, ``items`` and ``entries`` is set. Every ``as_*`` raises ProfileError."""

    place: str
    text: str | None = None
    plain: bool = False
    items: "tuple[Value, ...] | None" = None
    entries: "Mapping[str, Value] | None" = None

    def as_text(self) -> str:
        """Return the scalar's text, never empty."""
        if self.text is None:
            raise ProfileError(self.place, f"text is wanted here, not {self._kind()}")
        if not self.text.strip():
            raise ProfileError(self.place, "this must not be empty")
        if "\0" in self.text:
            raise ProfileError(self.place, "a NUL character has no place here")
        return self.text

    def as_integer(self, *, minimum: int, maximum: int) -> int:
        """Return a decimal integer in [minimum, maximum]."""
        text = self.as_text()
        if not self.plain or not _INTEGER.fullmatch(text):
            raise ProfileError(self.place, f"a decimal integer is wanted here, not {text!r}")
        return self._bounded(int(text), minimum, maximum)

    def as_size_bytes(self, *, minimum: int, maximum: int) -> int:
        """Return bytes from a number with its unit (``512 MiB``)."""
        match = _SIZE.fullmatch(self.as_text())
        if match is None:
            raise ProfileError(self.place, f"a size such as '512 MiB' is wanted here, not {self.text!r}")
        return self._bounded(int(match[1]) * _SIZE_UNIT_BYTES[match[2]], minimum, maximum)

    def as_flag(self) -> bool:
        """Return True for ``true`` and False for ``false``; nothing else is a flag."""
        text = self.as_text()
        if not self.plain or text not in {"true", "false"}:
            raise ProfileError(self.place, f"true or false is wanted here, not {text!r}")
        return text == "true"

    def as_list(self) -> "tuple[Value, ...]":
        """Return the items of a list."""
        if self.items is None:
            raise ProfileError(self.place, f"a list is wanted here, not {self._kind()}")
        return self.items

    def as_table(self, *, required: frozenset[str], optional: frozenset[str]) -> "Mapping[str, Value]":
        """Return the entries of a mapping after checking that its keys are known and complete."""
        if self.entries is None:
            raise ProfileError(self.place, f"a mapping is wanted here, not {self._kind()}")
        for key, value in self.entries.items():
            if key not in required and key not in optional:
                known = ", ".join(sorted(required | optional))
                raise ProfileError(value.place, f"unknown key {key!r}; known here: {known}")
        if missing := required - self.entries.keys():
            hint = "; say why, for the auditor" if "why" in missing else ""
            raise ProfileError(self.place, f"missing {', '.join(sorted(missing))}{hint}")
        return self.entries

    def _bounded(self, number: int, minimum: int, maximum: int) -> int:
        if not minimum <= number <= maximum:
            raise ProfileError(self.place, f"{number} is not between {minimum} and {maximum}")
        return number

    def _kind(self) -> str:
        return "a mapping" if self.entries is not None else "a list" if self.items is not None else "text"


def read_document(text: str, *, name: str) -> Value:
    """Parse one YAML document strictly.

    Args:
        text: the whole file.
        name: what messages call it, usually its path.

    Raises:
        ProfileError: any deviation, with its place.
    """
    if len(text) > DOCUMENT_MAX_CHARS:
        raise ProfileError(f"{name}:1:1", f"{len(text)} characters are more than {DOCUMENT_MAX_CHARS}")
    try:
        _check_events(text, name)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}:1:1"
        raise ProfileError(where, f"not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ProfileError(f"{name}:1:1", f"not YAML: {error}") from error
    if node is None:
        raise ProfileError(f"{name}:1:1", "the file is empty")
    return _convert(node, name)


def _check_events(text: str, name: str) -> None:
    """Refuse by the event stream what composing would already have acted on: aliases, tags, depth."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        mark = event.start_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}:1:1"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ProfileError(where, "anchors and aliases are not allowed; write it out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ProfileError(where, f"tag {tag} is not allowed")
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DOCUMENT_MAX_DEPTH:
            raise ProfileError(where, f"nested more than {DOCUMENT_MAX_DEPTH} deep")
        if documents > 1:
            raise ProfileError(where, "a second document is not allowed")


def _convert(node: yaml.Node, name: str) -> Value:
    place = f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if isinstance(node, yaml.ScalarNode):
        return Value(place, text=node.value, plain=not node.style)
    if isinstance(node, yaml.SequenceNode):
        return Value(place, items=tuple(_convert(item, name) for item in node.value))
    if not isinstance(node, yaml.MappingNode):
        raise ProfileError(place, "this kind of YAML is not allowed")
    entries: dict[str, Value] = {}
    for key_node, value_node in node.value:
        key_place = f"{name}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ProfileError(key_place, "a key must be text")
        if key_node.value in entries:
            raise ProfileError(key_place, f"key {key_node.value!r} stands twice")
        entries[key_node.value] = _convert(value_node, name)
    return Value(place, entries=entries)
