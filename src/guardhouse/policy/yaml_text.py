"""YAML as plain text with places: the one door between a document's bytes and the loader.

Every scalar stays the text that was written (``no`` is "no", ``1.10`` is "1.10"), since a policy has no use for
YAML's guesses. Refused, with line and column: duplicate keys, anchors, aliases (the "billion laughs"), tags, merge
keys, more than one document, and more nodes or depth than limits.py says. JSON is accepted as the subset it is.

Knows nothing of policies. Pure.
"""

from collections.abc import Iterator
from typing import Any, Final

import yaml

from guardhouse.limits import POLICY_DOCUMENT_MAX_CHARS, POLICY_DOCUMENT_MAX_DEPTH, POLICY_DOCUMENT_MAX_NODES
from guardhouse.policy.model import PolicyError
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode, TextNode

__all__ = ["parse_yaml_text"]

# The C parser writes "" for a plain scalar's style, the Python one None.
_QUOTED: Final = frozenset({"'", '"', "|", ">"})
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml_text(text: str, *, name: str) -> Node | None:
    """Read one document; None when it holds nothing (blank, or only comments).

    Raises:
        PolicyError: it is not YAML, or holds something that this loader refuses; with file, line and column.
    """
    if len(text) > POLICY_DOCUMENT_MAX_CHARS:
        raise PolicyError(
            f"the document has {len(text)} characters; at most {POLICY_DOCUMENT_MAX_CHARS} are read", place=name
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PolicyError(f"not valid Unicode at character {error.start}", place=name) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise PolicyError("a NUL character", place=f"{name}:{line}:1")
    reader = _Reader(name)
    try:
        return reader.read_document(iter(yaml.parse(text, Loader=_LOADER)))
    except yaml.MarkedYAMLError as error:
        place = _place(name, error.problem_mark) if error.problem_mark else name
        raise PolicyError(f"not YAML: {error.problem}", place=place) from None
    except yaml.YAMLError as error:
        raise PolicyError(f"not YAML: {str(error).splitlines()[0]}", place=name) from None


def _place(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}"


class _Reader:
    """Builds nodes from parser events, counting what it holds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0

    def read_document(self, events: Iterator[Any]) -> Node | None:
        found: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise PolicyError("a second YAML document; write one policy a file", place=self._at(event))
            elif isinstance(event, yaml.NodeEvent):
                found = self._read_node(event, events, depth=1)
        if isinstance(found, TextNode) and not found.value and not found.is_quoted:
            return None
        return found

    def _at(self, event: Any) -> str:
        return _place(self._name, event.start_mark)

    def _read_node(self, event: Any, events: Iterator[Any], *, depth: int) -> Node:
        self._refuse_extras(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            return TextNode(_join_surrogates(event.value), self._at(event), is_quoted=event.style in _QUOTED)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                items.append(self._read_node(inner, events, depth=depth + 1))
            return SequenceNode(tuple(items), self._at(event))
        return self._read_mapping(event, events, depth)

    def _read_mapping(self, event: Any, events: Iterator[Any], depth: int) -> MappingNode:
        items: dict[str, tuple[TextNode, Node]] = {}
        while not isinstance(inner := next(events), yaml.MappingEndEvent):
            key = self._read_node(inner, events, depth=depth + 1)
            if not isinstance(key, TextNode):
                raise PolicyError("a key that is no plain text", place=key.place)
            if key.value in items:
                raise PolicyError(
                    f"the key {key.value!r} stands here a second time (first at {items[key.value][0].place})",
                    place=key.place,
                )
            if key.value == "<<" and not key.is_quoted:
                raise PolicyError("a YAML merge key ('<<') is not accepted", place=key.place)
            items[key.value] = (key, self._read_node(next(events), events, depth=depth + 1))
        return MappingNode(tuple(items.values()), self._at(event))

    def _refuse_extras(self, event: Any, depth: int) -> None:
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            raise PolicyError(f"a YAML alias (*{event.anchor}); write the text itself", place=self._at(event))
        if event.anchor is not None:
            raise PolicyError(f"a YAML anchor (&{event.anchor}) is not accepted", place=self._at(event))
        if event.tag is not None:
            raise PolicyError(f"a YAML tag ({event.tag}) is not accepted", place=self._at(event))
        if depth > POLICY_DOCUMENT_MAX_DEPTH:
            raise PolicyError(f"more than {POLICY_DOCUMENT_MAX_DEPTH} levels deep", place=self._at(event))
        if self._nodes > POLICY_DOCUMENT_MAX_NODES:
            raise PolicyError(f"more than {POLICY_DOCUMENT_MAX_NODES} YAML nodes", place=self._at(event))


def _join_surrogates(value: str) -> str:
    r"""Turn JSON's ``\\ud83d\\ude00`` into the one character that it writes."""
    if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
