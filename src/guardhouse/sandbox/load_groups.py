"""Read one file of `sandbox/syscalls/` or `sandbox/masks/` into values; refuses what it does not know.

Knows which symbolic names exist, not their numbers. Runs at boot and in the CLI.
"""

import errno
import re
from collections.abc import Mapping
from typing import Final

from guardhouse.sandbox.constants import ARGUMENTS, CONSTANT_SETS, CONSTANTS
from guardhouse.sandbox.documents import ProfileError, Value, read_document
from guardhouse.sandbox.profile import Answer, CallRule, Condition, Mask, Reason, SyscallGroup

__all__ = ["parse_mask_group", "parse_path", "parse_reason", "parse_syscall_group", "parse_word"]

_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
# Long enough to be a reason, short enough to be read.
REASON_MIN_CHARS: Final = 3
REASON_MAX_CHARS: Final = 600


def parse_reason(entry: Value) -> Reason:
    """Return the ``why`` (and ``without``) of an entry whose keys were already checked."""
    fields = entry.entries or {}
    why = fields["why"].as_text().strip()
    if not REASON_MIN_CHARS <= len(why) <= REASON_MAX_CHARS:
        raise ProfileError(
            fields["why"].place,
            f"a reason has {REASON_MIN_CHARS} to {REASON_MAX_CHARS} characters, this has {len(why)}",
        )
    without = fields["without"].as_text().strip() if "without" in fields else ""
    return Reason(why=why, place=entry.place, without=without)


def parse_word(value: Value, what: str) -> str:
    """Return a lower-case name of letters, digits and underscores."""
    text = value.as_text()
    if not _WORD.fullmatch(text):
        raise ProfileError(value.place, f"{text!r} is no {what}: lower-case letters, digits and _ only")
    return text


def parse_path(value: Value) -> str:
    """Return an absolute path in its shortest spelling: no ``..``, no doubled or trailing slash."""
    text = value.as_text()
    parts = text.split("/")
    if not text.startswith("/") or (text != "/" and any(part in {"", ".", ".."} for part in parts[1:])):
        raise ProfileError(value.place, f"{text!r} is not an absolute path in its shortest spelling")
    return text


def parse_syscall_group(text: str, *, name: str) -> SyscallGroup:
    """Parse a file of `sandbox/syscalls/`.

    Raises:
        ProfileError: an unknown key, name or argument, an entry without a reason, or the same thing said twice.
    """
    document = read_document(text, name=name)
    table = document.as_table(required=frozenset({"group", "purpose"}), optional=frozenset({"allow", "answer"}))
    if "allow" not in table and "answer" not in table:
        raise ProfileError(document.place, "a group allows or answers something")
    allow = tuple(rule for entry in _list(table, "allow") for rule in _parse_allow(entry))
    answers = tuple(_parse_answer(entry) for entry in _list(table, "answer"))
    _check_said_once(allow, answers)
    return SyscallGroup(
        name=parse_word(table["group"], "group name"),
        purpose=table["purpose"].as_text(),
        allow=allow,
        answers=answers,
        place=document.place,
    )


def parse_mask_group(text: str, *, name: str) -> tuple[str, tuple[Mask, ...]]:
    """Parse a file of `sandbox/masks/` into its name and its paths.

    Raises:
        ProfileError: as `parse_syscall_group`.
    """
    document = read_document(text, name=name)
    table = document.as_table(required=frozenset({"masks", "purpose", "paths"}), optional=frozenset())
    group = parse_word(table["masks"], "group name")
    table["purpose"].as_text()
    masks: dict[str, Mask] = {}
    for entry in table["paths"].as_list():
        fields = entry.as_table(required=frozenset({"path", "why"}), optional=frozenset())
        path = parse_path(fields["path"])
        if path in masks or path == "/":
            raise ProfileError(fields["path"].place, f"{path} stands twice or is the root")
        masks[path] = Mask(path=path, group=group, reason=parse_reason(entry))
    return group, tuple(masks.values())


def _list(table: Mapping[str, Value], key: str) -> tuple[Value, ...]:
    return table[key].as_list() if key in table else ()


def _parse_allow(entry: Value) -> tuple[CallRule, ...]:
    table = entry.as_table(required=frozenset({"why"}), optional=frozenset({"call", "calls", "when", "without"}))
    if ("call" in table) == ("calls" in table):
        raise ProfileError(entry.place, "an entry has either 'call' or 'calls'")
    reason = parse_reason(entry)
    if "calls" in table:
        if "when" in table:
            raise ProfileError(table["when"].place, "'when' needs a single 'call', whose arguments it names")
        names = [parse_word(item, "system call") for item in table["calls"].as_list()]
        return tuple(CallRule(call=name, conditions=(), reason=reason) for name in names)
    call = parse_word(table["call"], "system call")
    conditions: tuple[Condition, ...] = ()
    if "when" in table:
        conditions = tuple(_parse_condition(call, item) for item in table["when"].as_list())
        if not conditions:
            raise ProfileError(table["when"].place, "'when' without a condition would allow everything")
    return (CallRule(call=call, conditions=conditions, reason=reason),)


def _parse_condition(call: str, item: Value) -> Condition:
    table = item.as_table(required=frozenset({"arg"}), optional=frozenset({"any_of", "none_of", "within", "ignoring"}))
    arg = table["arg"].as_text()
    known = ARGUMENTS.get(call, {})
    if arg not in known:
        names = ", ".join(known) or "none"
        raise ProfileError(
            table["arg"].place,
            f"{call} has no argument {arg!r} that a condition may speak of (known: {names}; see constants.py)",
        )
    if ("any_of" in table) == ("none_of" in table):
        raise ProfileError(item.place, "a condition has either 'any_of' or 'none_of'")
    if "none_of" in table and ("within" in table or "ignoring" in table):
        raise ProfileError(item.place, "'within' and 'ignoring' belong to 'any_of'")
    if "within" in table and "ignoring" in table:
        raise ProfileError(item.place, "a condition has either 'within' or 'ignoring'")
    return Condition(
        arg=arg,
        any_of=_parse_constants(table.get("any_of")),
        none_of=_parse_constants(table.get("none_of")),
        within=_parse_constant(table["within"])[0] if "within" in table else "",
        ignoring=_parse_constants(table.get("ignoring")),
    )


def _parse_constants(value: Value | None) -> tuple[str, ...]:
    if value is None:
        return ()
    names = [name for item in value.as_list() for name in _parse_constant(item)]
    if not names or len(set(names)) != len(names):
        raise ProfileError(value.place, "at least one name, and none twice")
    return tuple(names)


def _parse_constant(value: Value) -> tuple[str, ...]:
    name = value.as_text()
    if name in CONSTANT_SETS:
        return CONSTANT_SETS[name]
    if name not in CONSTANTS:
        hint = "write the constant's name, not its number" if name[:1].isdigit() else "see constants.py"
        raise ProfileError(value.place, f"unknown constant {name!r}; {hint}")
    return (name,)


def _parse_answer(entry: Value) -> Answer:
    table = entry.as_table(required=frozenset({"call", "errno", "why"}), optional=frozenset({"without"}))
    code = table["errno"].as_text()
    if code not in errno.errorcode.values():
        raise ProfileError(table["errno"].place, f"unknown errno {code!r}")
    return Answer(call=parse_word(table["call"], "system call"), errno=code, reason=parse_reason(entry))


def _check_said_once(allow: tuple[CallRule, ...], answers: tuple[Answer, ...]) -> None:
    seen: dict[tuple[str, tuple[Condition, ...]], str] = {}
    for rule in allow:
        key = (rule.call, rule.conditions)
        if key in seen:
            raise ProfileError(rule.reason.place, f"{rule.call} is already allowed at {seen[key]}")
        seen[key] = rule.reason.place
    answered: dict[str, str] = {}
    for answer in answers:
        if answer.call in answered:
            raise ProfileError(answer.reason.place, f"{answer.call} is answered at {answered[answer.call]}")
        answered[answer.call] = answer.reason.place
