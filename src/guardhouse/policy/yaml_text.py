"""YAML as plain text with places: the one door between a document's bytes and the loader.

Every scalar stays the text that was written (``no`` is "no", ``1.10`` is "1.10"), since a policy has no use for
YAML's guesses. Refused, with line and column: duplicate keys, anchors, aliases (the "billion laughs"), tags, merge
keys, more than one document, characters that hide what YAML reads, and more nodes or depth than limits.py says. JSON
is accepted as the subset it is.

Knows nothing of policies. Pure.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from guardhouse.limits import POLICY_DOCUMENT_MAX_CHARS, POLICY_DOCUMENT_MAX_DEPTH, POLICY_DOCUMENT_MAX_NODES
from guardhouse.policy.model import PolicyError
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode, TextNode

__all__ = ["LOADER", "parse_yaml_text", "render_text", "without_pairs"]

# The C parser writes "" for a plain scalar's style, the Python one None.
_QUOTED: Final = frozenset({"'", '"', "|", ">"})
# What YAML takes for the end of a line and a reviewer's screen does not (a lone carriage return, NEL, LS, PS), what
# turns the order of the text round it on a screen ("Trojan Source"), and controls: a rule could hide in a comment.
_HIDDEN: Final = re.compile(r"\r(?!\n)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_PAIR: Final = re.compile(r"((?<!\\)(?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    hidden = _HIDDEN.search(text)
    if hidden:
        raise PolicyError(_hidden(hidden[0]), place=_place_at(name, text, hidden.start()))
    reader = _Reader(name)
    try:
        return reader.read_document(iter(yaml.parse(without_pairs(text), Loader=LOADER)))
    except yaml.MarkedYAMLError as error:
        place = _place(name, error.problem_mark) if error.problem_mark else name
        raise PolicyError(f"not YAML: {error.problem}{_likely_cause(text, error)}", place=place) from None
    except yaml.YAMLError as error:
        raise PolicyError(f"not YAML: {str(error).splitlines()[0]}", place=name) from None


def render_text(value: str) -> str:
    r"""Return a text in double quotes that `parse_yaml_text` reads back as it is.

    What a screen may not show is escaped (``\u2028``, beyond the first plane ``\U000e0001``, which YAML has and JSON's
    pairs it has not), everything else stands as it is.
    """
    written = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in written)


def _escape(number: int) -> str:
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _place(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}"


def _place_at(name: str, text: str, position: int) -> str:
    before = text.rfind("\n", 0, position) + 1
    return f"{name}:{text.count(chr(10), 0, position) + 1}:{position - before + 1}"


def _hidden(char: str) -> str:
    if char == "\r":
        return "a carriage return without a line feed, which a screen may not show; end lines with LF or CR LF"
    kind = "a NUL character" if char == "\0" else "a character that a screen may not show as YAML reads it"
    return f'{kind} (U+{ord(char):04X}); in double quotes it can be written "\\u{ord(char):04x}"'


def _likely_cause(text: str, error: yaml.MarkedYAMLError) -> str:
    """What people most often have done where the parser gives up; empty where nothing is likely. Pure."""
    if error.problem_mark is None:
        return ""
    lines = text.split("\n")
    line = lines[error.problem_mark.line] if error.problem_mark.line < len(lines) else ""
    written = line.strip()
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; the line is indented by a tab, YAML wants blanks"
    if re.match(r"(- )*\*", written):
        return '; a pattern that begins with * stands in quotes, as in "*": deny'
    if re.match(r"<{7}|={7}|>{7}", written) or re.match(r"<{7}", lines[max(0, error.problem_mark.line - 1)]):
        return "; this looks like the mark of an unfinished merge"
    if re.match(r"(- )*(\"[^\"]*\"|'[^']*'|[^\"'].*?):( |$)", written) and len(written.partition(": ")[0]) > 1_024:
        return "; a key has at most 1,024 characters"
    if re.match(r"(- )*[%@`&!|>,]", written):
        return "; text that begins with one of % @ ` & ! | > , stands in quotes"
    if written.count(": ") > 1 or re.match(r"(- )*[^\"'{\[]*: [^\"'{\[]*:( |$)", written):
        return "; text that holds a colon and a blank stands in quotes"
    return ""


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
            return TextNode(event.value, self._at(event), is_quoted=event.style in _QUOTED)
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
            raise PolicyError(
                f"a YAML alias (*{event.anchor}); write the text itself, in quotes where it is a pattern",
                place=self._at(event),
            )
        if event.anchor is not None:
            raise PolicyError(f"a YAML anchor (&{event.anchor}) is not accepted", place=self._at(event))
        if event.tag is not None:
            raise PolicyError(
                f"a YAML tag ({event.tag}) is not accepted; text that begins with ! stands in quotes",
                place=self._at(event),
            )
        if depth > POLICY_DOCUMENT_MAX_DEPTH:
            raise PolicyError(f"more than {POLICY_DOCUMENT_MAX_DEPTH} levels deep", place=self._at(event))
        if self._nodes > POLICY_DOCUMENT_MAX_NODES:
            raise PolicyError(f"more than {POLICY_DOCUMENT_MAX_NODES} YAML nodes", place=self._at(event))


def without_pairs(text: str) -> str:
    r"""Write JSON's ``\ud83d\ude00`` as the one character that it means, which YAML has no such pair for.

    Only where the whole text is JSON: in YAML's single quotes a backslash is a backslash.
    """
    if not _PAIR.search(text):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _PAIR.sub(lambda found: found[1] + json.loads(f'"{found[2]}"'), text)
