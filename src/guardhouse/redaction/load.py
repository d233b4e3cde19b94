"""A pattern file (`redaction/patterns.yaml`) to entries, its examples run. Pure.

Whoever calls has read the YAML: plain dicts, lists and texts, duplicates refused, and a function that tells where the
value at a path of keys and positions is written. So this package needs no YAML of its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from guardhouse.redaction.entries import Pattern, Window, latin1_options, marker
from guardhouse.redaction.errors import RedactionError
from guardhouse.redaction.stream import Redactor
from guardhouse.redaction.structured import SecretNames
from guardhouse.redaction.values import check_kind

__all__ = ["Place", "RedactionRules", "load_rules"]

Path = tuple[str | int, ...]
Place = Callable[[Path], str]

_TOP: Final = frozenset({"version", "about", "names", "patterns"})
_NAMES: Final = frozenset({"because", "keys", "options"})
_REQUIRED: Final = frozenset({"kind", "because", "source", "anchors", "regex", "examples"})
_OPTIONAL: Final = frozenset({"ignore_case", "window", "after_word", "rest", "lines", "unless", "unless_before"})
_EXAMPLES: Final = frozenset({"redact", "keep"})
_REPEAT: Final = re.compile(r"\{(.[^{}]{0,63})\*(\d{1,4})\}")
_ANCHOR_MIN_CHARS: Final = 3


@dataclass(frozen=True, slots=True)
class RedactionRules:
    """What a pattern file says: shapes of secrets, and names whose values are secret."""

    patterns: tuple[Pattern, ...]
    names: SecretNames


def load_rules(document: Any, *, place: Place) -> RedactionRules:
    """Check a pattern file and return its rules; every example has been tried against all patterns together.

    Args:
        document: plain data; every scalar is text, as a YAML reader without guesses gives it.
        place: the place of a value, ``file:line:column``; a key's value is asked for by the key.

    Raises:
        RedactionError: an unknown or missing key, a value that means nothing, an example that comes out otherwise.
    """
    top = _mapping(document, (), place, required=_TOP)
    if top["version"] != "1":
        raise RedactionError(f"version {top['version']!r}; this release reads version 1", place=place(("version",)))
    _text(top["about"], ("about",), place)
    patterns = []
    for number, item in enumerate(_list(top["patterns"], ("patterns",), place)):
        patterns.append(_pattern(item, ("patterns", number), place))
    if not patterns:
        raise RedactionError("no patterns", place=place(("patterns",)))
    rules = RedactionRules(tuple(patterns), _names(top["names"], place))
    _run_examples(top["patterns"], rules, place)
    return rules


def _names(item: Any, place: Place) -> SecretNames:
    at: Path = ("names",)
    fields = _mapping(item, at, place, required=_NAMES)
    _text(fields["because"], (*at, "because"), place)
    expressions = [
        _text(one, (*at, "keys", number), place)
        for number, one in enumerate(_list(fields["keys"], (*at, "keys"), place))
    ]
    options = [
        _text(one, (*at, "options", number), place)
        for number, one in enumerate(_list(fields["options"], (*at, "options"), place))
    ]
    try:
        keys = re2.compile(("(?i)" + "|".join(f"(?:{one})" for one in expressions)).encode(), latin1_options())
    except re2.error as error:
        raise RedactionError(f"no expression that RE2 takes: {error}", place=place((*at, "keys"))) from None
    for number, option in enumerate(options):
        if not option.startswith("-") or "=" in option:
            raise RedactionError(f"{option!r} is no option like '--password'", place=place((*at, "options", number)))
    return SecretNames(keys=keys, options=frozenset(options))


def _pattern(item: Any, at: Path, place: Place) -> Pattern:
    fields = _mapping(item, at, place, required=_REQUIRED, optional=_OPTIONAL)
    kind = _text(fields["kind"], (*at, "kind"), place)
    check_kind(kind, place=place((*at, "kind")))
    for key in ("because", "source"):
        _text(fields[key], (*at, key), place)
    anchors = []
    for number, one in enumerate(_list(fields["anchors"], (*at, "anchors"), place)):
        where = (*at, "anchors", number)
        anchor = _text(one, where, place)
        if len(anchor) < _ANCHOR_MIN_CHARS or not anchor.isascii():
            raise RedactionError(f"the anchor {anchor!r} is shorter than 3 or not ASCII", place=place(where))
        anchors.append(anchor.encode("ascii"))
    if not anchors:
        raise RedactionError("no anchors: they tell where to look", place=place((*at, "anchors")))
    unless = [
        _text(one, (*at, "unless", number), place)
        for number, one in enumerate(_list(fields.get("unless", []), (*at, "unless"), place))
    ]
    window = fields.get("window", "word")
    if window not in {one.value for one in Window}:
        raise RedactionError(f"unknown window {window!r}; known: word, line, text", place=place((*at, "window")))
    return Pattern(
        kind=kind,
        anchors=tuple(anchors),
        expression=_text(fields["regex"], (*at, "regex"), place),
        place=place(at),
        ignores_case=_flag(fields, "ignore_case", at, place),
        window=Window(window),
        after_word=_flag(fields, "after_word", at, place),
        rest=None if "rest" not in fields else _text(fields["rest"], (*at, "rest"), place),
        lines=None if "lines" not in fields else _text(fields["lines"], (*at, "lines"), place),
        unless=tuple(unless),
        unless_before=None
        if "unless_before" not in fields
        else _text(fields["unless_before"], (*at, "unless_before"), place),
    )


def _run_examples(items: Sequence[Any], rules: RedactionRules, place: Place) -> None:
    redactor = Redactor(rules.patterns)
    for number, item in enumerate(items):
        at: Path = ("patterns", number, "examples")
        examples = _mapping(item["examples"], at, place, required=_EXAMPLES)
        redact = _list(examples["redact"], (*at, "redact"), place)
        keep = _list(examples["keep"], (*at, "keep"), place)
        if not redact or not keep:
            raise RedactionError("a pattern needs examples of both kinds: redact and keep", place=place(at))
        for index, one in enumerate(redact):
            where = (*at, "redact", index)
            before, separator, after = _text(one, where, place).partition(" => ")
            if not separator:
                raise RedactionError(
                    "an example is 'text => what it becomes', with [] for the marker", place=place(where)
                )
            before, after = _expand(before), after.replace("[]", marker(item["kind"]).decode())
            _check_example(redactor, before, _expand(after), place(where))
        for index, one in enumerate(keep):
            where = (*at, "keep", index)
            text = _expand(_text(one, where, place))
            _check_example(redactor, text, text, place(where))


def _expand(text: str) -> str:
    r"""Write out ``{A7*10}`` as ten times A7, and ``\n``: so that no file of ours holds what looks like a secret."""
    return _REPEAT.sub(lambda found: found[1] * int(found[2]), text).replace("\\n", "\n")


def _check_example(redactor: Redactor, text: str, expected: str, place: str) -> None:
    actual = redactor.redact_text(text)
    if actual != expected:
        raise RedactionError(f"the example becomes {actual!r}, not {expected!r}", place=place)


def _mapping(
    value: Any, at: Path, place: Place, *, required: frozenset[str], optional: frozenset[str] = frozenset()
) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RedactionError("keys and values are expected here", place=place(at))
    for key in value:
        if key not in required and key not in optional:
            known = ", ".join(sorted(required | optional))
            raise RedactionError(f"unknown key {key!r}; known: {known}", place=place((*at, key)))
    missing = sorted(required - value.keys())
    if missing:
        raise RedactionError(f"the key {missing[0]!r} is missing", place=place(at))
    return value


def _list(value: Any, at: Path, place: Place) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RedactionError("a list is expected here", place=place(at))
    return value


def _text(value: Any, at: Path, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RedactionError("a text is expected here", place=place(at))
    return value


def _flag(fields: Mapping[str, Any], key: str, at: Path, place: Place) -> bool:
    value = fields.get(key, "false")
    if value not in ("true", "false"):
        raise RedactionError(f"{value!r} is neither true nor false", place=place((*at, key)))
    return bool(value == "true")
