"""The front matter of a `SKILL.md`: YAML between two lines of three dashes, of known fields and bounded size.

Pure: text in, typed value out. Runs in the files worker.
"""

import re
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
        raise SkillRefused("SKILL.md does not begin with front matter (a line '---', fields, a line '---')")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise SkillRefused(
            f"the front matter of SKILL.md is not closed by '---' within {SKILL_FRONT_MATTER_MAX_BYTES} bytes"
        )
    front = "\n".join(lines[1:end])
    if "\N{REPLACEMENT CHARACTER}" in front:
        raise SkillRefused("the front matter of SKILL.md is not UTF-8")
    fields = _parse_fields(front)
    name = _text(fields, "name", max_chars=_FIELD_MAX_CHARS, required=True)
    check_skill_name(name)
    return Manifest(
        name=name,
        description=_text(fields, "description", max_chars=_DESCRIPTION_MAX_CHARS, required=True),
        version=_text(fields, "version"),
        author=_text(fields, "author"),
        license=_text(fields, "license"),
        tags=_words(fields, "tags", separator=","),
        allowed_tools=_words(fields, "allowed-tools", separator=","),
    )


class _StrictLoader(yaml.SafeLoader):
    """YAML's plain values only: no alias (a few can stand for gigabytes), no key twice, no nesting worth the name."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise SkillRefused("the front matter of SKILL.md has a YAML alias; write the value out")
        self._depth += 1
        if self._depth > 16:
            raise SkillRefused("the front matter of SKILL.md is nested deeper than 16")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - YAML's signature
        keys: set[str] = set()
        for key, _ in node.value:
            if key.value in keys if isinstance(key.value, str) else False:
                raise SkillRefused(f"the front matter of SKILL.md has {key.value[:80]!r} twice")
            if isinstance(key.value, str):
                keys.add(key.value)
        return super().construct_mapping(node, deep)


# A bare `1.10` is a version and no number, `2024-01-01` no date: every plain scalar stays the text that was written.
_StrictLoader.yaml_implicit_resolvers = {}


def _parse_fields(text: str) -> dict[str, Any]:
    try:
        fields = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, made stricter
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        said = " ".join(str(error).split())[:300]
        raise SkillRefused(f"the front matter of SKILL.md is not YAML: {said}") from error
    if not isinstance(fields, dict):
        raise SkillRefused("the front matter of SKILL.md is no mapping of fields")
    return {key: value for key, value in fields.items() if isinstance(key, str)}


def _text(fields: dict[str, Any], key: str, *, max_chars: int = _FIELD_MAX_CHARS, required: bool = False) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise SkillRefused(f"{key!r} in SKILL.md is no text")
    value = value.strip()
    if required and not value:
        raise SkillRefused(f"SKILL.md has no {key!r}")
    if len(value) > max_chars:
        raise SkillRefused(f"{key!r} in SKILL.md has {len(value)} characters, at most {max_chars} are read")
    return value


def _words(fields: dict[str, Any], key: str, *, separator: str) -> tuple[str, ...]:
    value = fields.get(key, ())
    if isinstance(value, str):
        value = [word.strip() for word in value.split(separator) if word.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise SkillRefused(f"{key!r} in SKILL.md is neither a list of words nor one text with commas")
    if len(value) > _LIST_MAX or any(len(word) > _FIELD_MAX_CHARS for word in value):
        raise SkillRefused(
            f"{key!r} in SKILL.md is too long: at most {_LIST_MAX} words of {_FIELD_MAX_CHARS} characters"
        )
    return tuple(word.strip() for word in value)
