"""A document as nodes with places: what YAML text and plain JSON data have in common.

Knows neither YAML nor policies, so a process without YAML (the launcher) can restore a policy from JSON. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MappingNode", "Node", "SequenceNode", "TextNode", "node_of"]


@dataclass(frozen=True, slots=True)
class TextNode:
    """A scalar. ``is_quoted`` tells ``""`` from a key with nothing behind it."""

    value: str
    place: str
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    items: "tuple[Node, ...]"
    place: str


@dataclass(frozen=True, slots=True)
class MappingNode:
    """Keys in written order, each once."""

    items: "tuple[tuple[TextNode, Node], ...]"
    place: str

    def get(self, key: str) -> "Node | None":
        """Return what stands behind a key, or None."""
        return next((node for name, node in self.items if name.value == key), None)


Node = TextNode | SequenceNode | MappingNode


def node_of(data: Any, *, place: str) -> Node:
    """Return plain JSON data as nodes, all at one place.

    Raises:
        TypeError: it holds something that JSON has not.
    """
    if isinstance(data, str):
        return TextNode(data, place, is_quoted=True)
    if isinstance(data, bool) or data is None:
        raise TypeError(f"no text: {data!r}")
    if isinstance(data, int | float):
        return TextNode(f"{data:g}" if isinstance(data, float) else str(data), place, is_quoted=False)
    if isinstance(data, Mapping):
        items = tuple(
            (TextNode(str(key), place, is_quoted=True), node_of(value, place=place)) for key, value in data.items()
        )
        return MappingNode(items, place)
    if isinstance(data, Sequence):
        return SequenceNode(tuple(node_of(item, place=place) for item in data), place)
    raise TypeError(f"no JSON data: {type(data).__name__}")
