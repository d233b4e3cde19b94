"""Redaction of any bytes: the same however they are cut, nothing but secrets changed, and done again nothing new."""

import itertools
from pathlib import Path
from typing import Any

from driver import main
from guardhouse.data_files import shipped_directory
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode
from guardhouse.policy.yaml_text import parse_yaml_text
from guardhouse.redaction import Redactor, literals_of, load_rules

__all__ = ["TARGET", "fuzz_one"]


def _plain(node: Node) -> Any:
    if isinstance(node, MappingNode):
        return {key.value: _plain(value) for key, value in node.items}
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.items]
    return node.value


def _redactor() -> Redactor:
    path = Path(shipped_directory("redaction") / "patterns.yaml")
    node = parse_yaml_text(path.read_text(encoding="utf-8"), name=path.name)
    assert node is not None
    rules = load_rules(_plain(node), place=lambda at: f"{path.name}: {at}")
    return Redactor((*rules.patterns, *literals_of({"PIN": b"tr0ub4dor&3"}, name="fuzz")))


_REDACTOR = _redactor()


def fuzz_one(data: bytes) -> None:
    """The first two bytes say how to cut the rest."""
    step, phase = (data[0] % 61 + 1, data[1] % 61) if len(data) > 1 else (1, 0)
    text = data[2:]
    whole, counts = _REDACTOR.redact_counted(text)
    stream = _REDACTOR.stream()
    cuts = [0, *range(phase, len(text), step), len(text)]
    pieces = [stream.feed(text[start:end]) for start, end in itertools.pairwise(cuts)]
    assert b"".join(pieces) + stream.flush() == whole
    assert stream.counts == counts
    assert (whole == text) == (not counts)
    assert _REDACTOR.redact(whole) == whole


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
