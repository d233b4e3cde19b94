"""The shipped pattern file, read once as the runner reads it."""

from pathlib import Path
from typing import Any

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode
from guardhouse.policy.yaml_text import parse_yaml_text
from guardhouse.redaction import RedactionRules, Redactor, literals_of, load_rules


def plain(node: Node, at: tuple[str | int, ...], places: dict[tuple[str | int, ...], str]) -> Any:
    """Return a document's nodes as plain data, noting in ``places`` where each value, or its key, is written."""
    places[at] = node.place
    if isinstance(node, MappingNode):
        data = {}
        for key, value in node.items:
            data[key.value] = plain(value, (*at, key.value), places)
            places[*at, key.value] = key.place
        return data
    if isinstance(node, SequenceNode):
        return [plain(item, (*at, number), places) for number, item in enumerate(node.items)]
    return node.value


def load_text(text: str, name: str = "redaction.yaml") -> RedactionRules:
    """Load a pattern file from its text."""
    places: dict[tuple[str | int, ...], str] = {}
    node = parse_yaml_text(text, name=name)
    assert node is not None
    return load_rules(plain(node, (), places), place=lambda at: places.get(at, name))


@pytest.fixture(scope="session")
def shipped_text() -> str:
    """The shipped pattern file."""
    return Path(shipped_directory("redaction") / "patterns.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def rules(shipped_text: str) -> RedactionRules:
    """The shipped patterns; loading them runs every example in the file."""
    return load_text(shipped_text, "redaction/patterns.yaml")


@pytest.fixture(scope="session")
def redactor(rules: RedactionRules) -> Redactor:
    """The shipped patterns, and two values that an operator named."""
    values = {"VAULT_PIN": b"tr0ub4dor&3 horse", "LONG_KEY": b"k" + bytes(range(48, 90)) * 3}
    return Redactor((*rules.patterns, *literals_of(values, name="test")))
