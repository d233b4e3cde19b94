"""The front matter of a `SKILL.md`: YAML between two lines of three dashes, of known fields and bounded size.

Every refusal names the line of `SKILL.md` that it is about. Pure: text in, typed value out. Runs in the files worker
and in the hub.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import yaml

from guardhouse.limits import SKILL_FRONT_MATTER_MAX_BYTES
from guardhouse.skills.errors import SkillRefused

__all__ = ["Manifest", "check_skill_name", "parse_manifest"]

_NAME: Final = re.compile(r"\A[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_NAME_MAX_CHARS: Final = 64
_DESCRIPTION_MAX_CHARS: Final = 4_096
_FIELD_MAX_CHARS: Final = 1_024
_LIST_MAX: Final = 256
_DEPTH_MAX: Final = 16
# The line of SKILL.md on which the front matter's own text begins; the one before holds the three dashes.
_FIRST_LINE: Final = 2


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a skill says of itself.

    Attributes:
        name: kebab case, 1 to 64 characters.
        description: what it is for, in words; never empty.
        version: as written; "" when there is none.
        author: as written; "" when there is none.
        license: as written; "" when there is none.
        tags: words to find it by.
        allowed_tools: built-in tools, or `mcp:server/tool`.
    """

    name: str
    description: str
    version: str = ""
    author: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] = ()


def check_skill_name(name: str) -> None:
    """Raise unless ``name`` is kebab case (small letters, digits, single hyphens between) of 1 to 64 characters.

    Raises:
        SkillRefused: it is not.
    """
    if len(name) > _NAME_MAX_CHARS or not _NAME.match(name):
        raise SkillRefused(
            f"name {name[:80]!r} is not kebab case of 1 to {_NAME_MAX_CHARS} characters, such as 'read-logs'"
        )


def parse_manifest(content: bytes) -> Manifest:
    """Return the manifest at the start of a `SKILL.md`.

    Args:
        content: the file, UTF-8; a byte order mark and CR LF are accepted.

    Raises:
        SkillRefused: no front matter, not YAML, an alias or a doubled key in it, a field missing or of another shape.
    """
    # Only the front matter must be UTF-8: the cut may fall into a character of the text behind it.
    text = content[:SKILL_FRONT_MATTER_MAX_BYTES].decode("utf-8-sig", "replace").replace("\r\n", "\n")
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise _refused("does not begin with front matter (a line '---', fields, a line '---')", line=1)
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise _refused(
            f"has front matter that is not closed by '---' within {SKILL_FRONT_MATTER_MAX_BYTES} bytes", line=1
        )
    for number, line in enumerate(lines[1:end], _FIRST_LINE):
        if "\N{REPLACEMENT CHARACTER}" in line:
            raise _refused("has front matter that is not UTF-8", line=number)
    fields = _parse_fields("\n".join(lines[1:end]))
    name = fields.text("name", required=True)
    try:
        check_skill_name(name)
    except SkillRefused as refusal:
        raise _refused(f"has a {refusal.why}", line=fields.line("name")) from refusal
    return Manifest(
        name=name,
        description=fields.text("description", max_chars=_DESCRIPTION_MAX_CHARS, required=True),
        version=fields.text("version"),
        author=fields.text("author"),
        license=fields.text("license"),
        tags=fields.words("tags"),
        allowed_tools=fields.words("allowed-tools"),
    )


def _refused(what: str, *, line: int) -> SkillRefused:
    return SkillRefused(f"SKILL.md line {line} {what}", line=line)


class _StrictLoader(yaml.SafeLoader):
    """YAML's plain values only: no alias (a few can stand for gigabytes), no key twice, no nesting worth the name."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
            raise _refused("has a YAML alias; write the value out", line=_line_of(event.start_mark))
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
            raise _refused(f"is nested deeper than {_DEPTH_MAX}", line=_line_of(event.start_mark))
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - YAML's signature
        _check_keys(node.value)
        return super().construct_mapping(node, deep)


# A bare `1.10` is a version and no number, `2024-01-01` no date: every plain scalar stays the text that was written.
_StrictLoader.yaml_implicit_resolvers = {}


def _line_of(mark: Any) -> int:
    return int(mark.line) + _FIRST_LINE if mark is not None else _FIRST_LINE


def _check_keys(pairs: Iterable[tuple[yaml.Node, yaml.Node]]) -> None:
    """Refuse a key that is there twice: readers differ in which of the two counts."""
    keys: set[str] = set()
    for key, _ in pairs:
        if not isinstance(key.value, str):
            continue
        if key.value in keys:
            raise _refused(f"has {key.value[:80]!r} twice", line=_line_of(key.start_mark))
        keys.add(key.value)


@dataclass(frozen=True, slots=True)
class _Fields:
    """The front matter's fields by name, and the line on which each begins."""

    values: dict[str, Any]
    lines: dict[str, int]

    def line(self, key: str) -> int:
        return self.lines.get(key, _FIRST_LINE - 1)

    def text(self, key: str, *, max_chars: int = _FIELD_MAX_CHARS, required: bool = False) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise _refused(f"has {key!r}, which is no text", line=self.line(key))
        value = value.strip()
        if required and not value:
            where = "begins front matter that has" if key not in self.values else "is empty: it has"
            raise _refused(f"{where} no {key!r}", line=self.line(key))
        if len(value) > max_chars:
            raise _refused(f"has {key!r} of {len(value)} characters, at most {max_chars} are read", line=self.line(key))
        return value

    def words(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key, ())
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",") if word.strip()]
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            raise _refused(
                f"has {key!r}, which is neither a list of words nor one text with commas", line=self.line(key)
            )
        if len(value) > _LIST_MAX or any(len(word) > _FIELD_MAX_CHARS for word in value):
            raise _refused(
                f"has {key!r} too long: at most {_LIST_MAX} words of {_FIELD_MAX_CHARS} characters",
                line=self.line(key),
            )
        return tuple(word.strip() for word in value)


def _parse_fields(text: str) -> _Fields:
    try:
        loader = _StrictLoader(text)
    except yaml.reader.ReaderError as error:
        line = _FIRST_LINE + text[: error.position].count("\n")
        raise _refused("has a control character, which YAML does not take", line=line) from error
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise _refused("begins front matter that is no mapping of fields", line=_FIRST_LINE)
        fields = loader.construct_document(node)
        lines = {key.value: _line_of(key.start_mark) for key, _ in node.value if isinstance(key.value, str)}
    except yaml.MarkedYAMLError as error:
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())[:300]
        raise _refused(f"is not YAML: {said}", line=_line_of(error.problem_mark)) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        said = " ".join(str(error).split())[:300]
        raise _refused(f"begins front matter that is not YAML: {said}", line=_FIRST_LINE) from error
    finally:
        loader.dispose()
    return _Fields({key: value for key, value in fields.items() if isinstance(key, str)}, lines)
