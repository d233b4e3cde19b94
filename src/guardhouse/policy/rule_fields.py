"""One rule of a document: its fields to a `Rule`, each checked, each error with its place.

Knows nothing of the document around the rule. Pure.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from guardhouse.policy.arguments import ArgumentRule, Values, compile_argument_rule
from guardhouse.policy.language import Language
from guardhouse.policy.model import ACTIONS, GATED, INHERIT, Condition, Examples, PolicyError, Rule
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode, TextNode, node_of
from guardhouse.policy.patterns import PatternError, parse_glob
from guardhouse.policy.subjects import parse_subject_pattern
from guardhouse.values import Verdict

__all__ = ["build_glob_rule", "expanded_language", "read_rule"]

_RULE_KEYS: Final = ("match", "argv", "then", "because", "examples", "children", "profile", "timeout", "when")
_BASH_ONLY: Final = ("argv", "children", "profile", "timeout")
_ARGV_KEYS: Final = ("program", "words", "flags", "options", "any_options", "operands", "at_most")
_WHEN_KEYS: Final = ("environment", "requester", "hours", "days", "arguments")
_DAYS: Final = {name: number for number, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 1)}
# [0-9], not \d: the digits of other scripts look like something else to a reviewer.
_DURATION: Final = re.compile(r"([0-9]{1,6})(ms|s|m|h)?")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_HOURS: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
# More than any argument vector of a kernel holds (execve(2), MAX_ARG_STRINGS is 2**31 - 1).
_COUNT: Final = re.compile(r"[0-9]{1,9}")
_PROFILE: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def build_glob_rule(
    operation: str, pattern: str, action: Verdict, *, place: str, trusted_path: tuple[str, ...], **fields: Any
) -> Rule:
    """Build a rule whose pattern is a glob (``bash``) or a subject pattern (every other operation).

    Raises:
        PolicyError: the pattern cannot be taken.
    """
    programs: tuple[str, ...] = ()
    try:
        if operation == "bash":
            glob = parse_glob(pattern, trusted_path=trusted_path)
            language = glob.language
            programs = (glob.program,) if glob.program else ()
        else:
            language = parse_subject_pattern(operation, pattern)
    except PatternError as error:
        raise PolicyError(f"pattern {pattern!r}: {error}", place=place) from None
    source = {"match": pattern, "then": action.value, **fields.pop("source", {})}
    return Rule(
        operation=operation,
        match=pattern,
        action=action,
        place=place,
        language=language,
        programs=programs,
        source=source,
        **fields,
    )


def read_rule(operation: str, node: MappingNode, *, trusted_path: tuple[str, ...]) -> Rule:
    """Read a rule in the full form.

    Raises:
        PolicyError: a key is unknown, missing or holds something it cannot.
    """
    _check_keys(node, _RULE_KEYS, "a rule")
    for key, _ in node.items:
        if operation != "bash" and key.value in _BASH_ONLY:
            raise PolicyError(f"{key.value!r} belongs to rules of 'bash', not of {operation!r}", place=key.place)
    fields: dict[str, Any] = {}
    source: dict[str, Any] = {}
    action_node = node.get("then")
    if action_node is None:
        raise PolicyError("the rule has no 'then'; write 'then: allow', deny or ask", place=node.place)
    action = _text(action_node, "then")
    if action not in ACTIONS:
        raise PolicyError(f"{action!r} is no action; write allow, deny or ask", place=action_node.place)
    for field_name, read in _READERS.items():
        value = node.get(field_name)
        if value is not None:
            read(value, fields, source)
    condition = fields.get("when")
    if operation != "mcp" and condition is not None and condition.arguments:
        raise PolicyError(f"'when: arguments' belongs to rules of 'mcp', not of {operation!r}", place=node.place)
    match_node, argv_node = node.get("match"), node.get("argv")
    if (match_node is None) is (argv_node is None):
        raise PolicyError("a rule has either 'match' or 'argv'", place=node.place)
    if match_node is not None:
        return build_glob_rule(
            operation,
            _text(match_node, "match"),
            ACTIONS[action],
            place=node.place,
            trusted_path=trusted_path,
            source=source,
            **fields,
        )
    assert argv_node is not None  # noqa: S101 - the line above proved it, mypy cannot see it
    rule, argv_source = _read_argv(argv_node)
    try:
        language = compile_argument_rule(rule, trusted_path=trusted_path)
    except PatternError as error:
        raise PolicyError(str(error), place=argv_node.place) from None
    return Rule(
        operation=operation,
        match=rule.summary(),
        action=ACTIONS[action],
        place=node.place,
        language=language,
        programs=rule.programs,
        is_glob=False,
        source={"argv": argv_source, "then": action, **source},
        **fields,
    )


def expanded_language(rule: Rule, trusted_path: tuple[str, ...]) -> Language:
    """Return everything that a rule matches, a program's trusted paths included: what a comparison needs.

    A matcher asks about a command under each of its names instead and is given the smaller ``rule.language``.
    """
    if rule.operation != "bash":
        return rule.language
    if rule.is_glob:
        return parse_glob(rule.match, trusted_path=trusted_path, with_paths=True).language
    argument_rule, _ = _read_argv(node_of(rule.source["argv"], place=rule.place))
    return compile_argument_rule(argument_rule, trusted_path=trusted_path, with_paths=True)


def _text(node: Node, what: str) -> str:
    if not isinstance(node, TextNode):
        raise PolicyError(f"{what!r} must be text", place=node.place)
    return node.value


def _texts(node: Node, what: str) -> tuple[str, ...]:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    return tuple(_text(item, what) for item in items)


def _check_keys(node: MappingNode, known: tuple[str, ...], what: str) -> None:
    for key, _ in node.items:
        if key.value not in known:
            raise PolicyError(f"unknown key {key.value!r}; {what} has {', '.join(known)}", place=key.place)


def _mapping(node: Node, what: str) -> MappingNode:
    if not isinstance(node, MappingNode):
        raise PolicyError(f"{what!r} must be a mapping", place=node.place)
    return node


def _read_because(node: Node, fields: dict[str, Any], source: dict[str, Any]) -> None:
    fields["because"] = source["because"] = " ".join(_text(node, "because").split())


def _read_examples(node: Node, fields: dict[str, Any], source: dict[str, Any]) -> None:
    mapping = _mapping(node, "examples")
    _check_keys(mapping, ("allow", "deny", "ask", "undecided"), "'examples'")
    lists = {key.value: _texts(value, f"examples: {key.value}") for key, value in mapping.items}
    fields["examples"] = Examples(**lists)
    source["examples"] = {key: list(value) for key, value in sorted(lists.items())}


def _read_children(node: Node, fields: dict[str, Any], source: dict[str, Any]) -> None:
    value = _text(node, "children")
    if value not in (GATED, INHERIT):
        raise PolicyError(f"'children' is gated or inherit, not {value!r}", place=node.place)
    fields["children"] = source["children"] = value


def _read_profile(node: Node, fields: dict[str, Any], source: dict[str, Any]) -> None:
    value = _text(node, "profile")
    if not _PROFILE.fullmatch(value):
        raise PolicyError(f"{value!r} is no profile's name", place=node.place)
    fields["profile"] = source["profile"] = value


def _read_timeout(node: Node, fields: dict[str, Any], source: dict[str, Any]) -> None:
    value = _text(node, "timeout")
    found = _DURATION.fullmatch(value)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if seconds <= 0:
        raise PolicyError(f"{value!r} is no time; write for example 30s, 5m or 1h", place=node.place)
    fields["timeout_s"] = seconds
    source["timeout"] = f"{seconds:g}s"


def _read_when(node: Node, fields: dict[str, Any], source: dict[str, Any]) -> None:
    mapping = _mapping(node, "when")
    _check_keys(mapping, _WHEN_KEYS, "'when'")
    if not mapping.items:
        raise PolicyError("'when' is empty; leave it out", place=node.place)
    parts: dict[str, Any] = {}
    written: dict[str, Any] = {}
    for key, value in mapping.items:
        if key.value == "arguments":
            parts["arguments"] = _read_arguments(value)
            written["arguments"] = {name: list(patterns) for name, patterns in parts["arguments"]}
            continue
        texts = _texts(value, f"when: {key.value}")
        if not texts or not all(texts):
            raise PolicyError(f"'when: {key.value}' is empty", place=value.place)
        written[key.value] = sorted(texts)
        if key.value == "environment":
            parts["environment"] = frozenset(texts)
        elif key.value == "requester":
            _check_globs("requester", texts, value.place)
            parts["requester"] = texts
        elif key.value == "hours":
            parts["hours"] = _read_hours(texts, value.place)
        else:
            parts["days"] = _read_days(texts, value.place)
    fields["when"] = Condition(**parts)
    source["when"] = written


def _read_arguments(node: Node) -> tuple[tuple[str, tuple[str, ...]], ...]:
    mapping = _mapping(node, "arguments")
    if not mapping.items:
        raise PolicyError("'when: arguments' is empty; leave it out", place=node.place)
    wanted: dict[str, tuple[str, ...]] = {}
    for key, value in mapping.items:
        patterns = _texts(value, f"argument {key.value}")
        if not key.value or not patterns or not all(patterns):
            raise PolicyError(f"argument {key.value!r} has no name, or no value that it must match", place=key.place)
        _check_globs(f"argument {key.value}", patterns, value.place)
        wanted[key.value] = patterns
    return tuple(sorted(wanted.items()))


def _check_globs(what: str, patterns: tuple[str, ...], place: str) -> None:
    for pattern in patterns:
        try:
            parse_subject_pattern("skill", pattern)
        except PatternError as error:
            raise PolicyError(f"{what} {pattern!r}: {error}", place=place) from None


def _read_hours(texts: tuple[str, ...], place: str) -> tuple[int, int]:
    found = _HOURS.fullmatch(texts[0]) if len(texts) == 1 else None
    if not found:
        raise PolicyError(f"{' '.join(texts)!r} are no hours; write for example '08:00-18:00'", place=place)
    first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if first >= 1440 or last > 1440 or first == last:
        raise PolicyError(f"{texts[0]!r}: the hours must differ and lie between 00:00 and 24:00", place=place)
    return first, last


def _read_days(texts: tuple[str, ...], place: str) -> frozenset[int]:
    unknown = [text for text in texts if text not in _DAYS]
    if unknown:
        raise PolicyError(f"{unknown[0]!r} is no day; write {', '.join(_DAYS)}", place=place)
    return frozenset(_DAYS[text] for text in texts)


_READERS: Final[Mapping[str, Callable[[Node, dict[str, Any], dict[str, Any]], None]]] = {
    "because": _read_because,
    "examples": _read_examples,
    "children": _read_children,
    "profile": _read_profile,
    "timeout": _read_timeout,
    "when": _read_when,
}


def _read_argv(node: Node) -> tuple[ArgumentRule, dict[str, Any]]:
    mapping = _mapping(node, "argv")
    _check_keys(mapping, _ARGV_KEYS, "'argv'")
    program = mapping.get("program")
    if program is None:
        raise PolicyError("'argv' has no 'program'", place=node.place)
    programs = _texts(program, "program")
    if not programs:
        raise PolicyError("'program' names none", place=program.place)
    fields: dict[str, Any] = {"programs": programs}
    source: dict[str, Any] = {"program": list(programs)}
    for key in ("words", "flags"):
        value = mapping.get(key)
        if value is not None:
            fields[key] = _texts(value, key)
            source[key] = list(fields[key])
    options = mapping.get("options")
    if options is not None:
        fields["options"] = _read_options(options)
        source["options"] = {option: _values_source(values) for option, values in fields["options"].items()}
    any_options = mapping.get("any_options")
    if any_options is not None:
        if _text(any_options, "any_options") not in ("true", "false"):
            raise PolicyError("'any_options' is true or false", place=any_options.place)
        if _text(any_options, "any_options") == "true":
            fields["any_options"] = True
            source["any_options"] = "true"
    operands = mapping.get("operands")
    if operands is not None:
        fields["operands"] = _read_values(operands, "operands")
        source["operands"] = _values_source(fields["operands"])
    at_most = mapping.get("at_most")
    if at_most is not None:
        value_text = _text(at_most, "at_most")
        if not _COUNT.fullmatch(value_text) or fields.get("operands", Values("none")).kind == "none":
            raise PolicyError(
                f"'at_most' is a number of operands of at most nine digits, beside 'operands', not {value_text[:20]!r}",
                place=at_most.place,
            )
        fields["at_most"] = source["at_most"] = int(value_text)
    return ArgumentRule(**fields), source


def _read_options(node: Node) -> dict[str, Values]:
    if isinstance(node, MappingNode):
        return {key.value: _read_values(value, "options") for key, value in node.items}
    return {option: Values("any") for option in _texts(node, "options")}


def _read_values(node: Node, what: str) -> Values:
    if isinstance(node, TextNode) and node.value in ("any", "none") and (node.value == "any" or what == "operands"):
        return Values(node.value)
    if isinstance(node, MappingNode) and len(node.items) == 1 and node.items[0][0].value in ("below", "match"):
        kind, value = node.items[0]
        items = _texts(value, f"{what}: {kind.value}")
        if items and all(items):
            return Values(kind.value, items)
    words = "any, none, " if what == "operands" else "any, "
    raise PolicyError(f"{what!r} is {words}{{below: [directories]}} or {{match: [patterns]}}", place=node.place)


def _values_source(values: Values) -> Any:
    return {values.kind: list(values.items)} if values.items else values.kind
