"""What a loaded policy is: rules in written order for each operation, and the facts around them.

Values only; loading is document.py, matching is matcher.py, deciding is gate_one.py. Runs in the runner, the hub and
the launcher, so nothing here needs YAML or a shell reader.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from guardhouse.errors import SetupError
from guardhouse.policy.language import Language
from guardhouse.values import Verdict

__all__ = [
    "ACTIONS",
    "DEFAULT_TRUSTED_PATH",
    "OPERATIONS",
    "Children",
    "Condition",
    "Context",
    "Examples",
    "Policy",
    "PolicyError",
    "Rule",
    "Section",
]

# Of a rule's own text, where a sentence names it; an argument rule may name fifty programs.
SHOWN_MAX_CHARS: Final = 120
ACTIONS: Final = {"allow": Verdict.ALLOW, "deny": Verdict.DENY, "ask": Verdict.ASK}

# Where a program may be found by its plain name, unless the document says otherwise: the PATH that the launcher gives
# to commands (Debian's login.defs ENV_SUPATH). None of these may be writable by the command.
DEFAULT_TRUSTED_PATH: Final = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)

# Every section a document may have, and how its patterns are read.
OPERATIONS: Final = {
    "bash": "a command",
    "read": "a path",
    "write": "a path",
    "list": "a path",
    "grep": "a path",
    "webfetch": "a URL",
    "egress": "a URL",
    "mcp": "server/tool",
    "skill": "a skill's name",
    "variable": "NAME=value",
}

GATED: Final = "gated"
INHERIT: Final = "inherit"
Children = str
"""``gated``: what the program starts is judged by the exec gate as well. ``inherit``: it may start its helpers."""


class PolicyError(SetupError):
    """A policy document cannot be taken. ``place`` is ``name:line:column`` (both from 1), or the name alone."""

    def __init__(self, message: str, *, place: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.reason = message


@dataclass(frozen=True, slots=True)
class Condition:
    """When a rule applies; an empty part always holds.

    ``environment`` tags must all be among the context's; ``requester`` is a list of globs of which one must match;
    ``hours`` is (first, last) in minutes after midnight, last excluded, and may run past midnight; ``days`` holds
    ISO numbers, Monday 1. ``arguments`` (of MCP calls only) pairs an argument's dotted name with globs of which one
    must match its value; one that the call does not have matches nothing.
    """

    environment: frozenset[str] = frozenset()
    requester: tuple[str, ...] = ()
    hours: tuple[int, int] | None = None
    days: frozenset[int] = frozenset()
    arguments: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def example_context(self) -> "Context":
        """Return circumstances in which the condition holds; its rule's examples are decided in them."""
        now = None
        if self.hours is not None or self.days:
            # 1 January 2024 was a Monday.
            minute = self.hours[0] if self.hours is not None else 0
            now = datetime(2024, 1, min(self.days, default=1), minute // 60, minute % 60)  # noqa: DTZ001 - local time
        requester = None
        if self.requester:
            requester = _matching(self.requester[0])
        arguments = {name: _matching(patterns[0]) for name, patterns in self.arguments} if self.arguments else None
        return Context(environment=self.environment or None, requester=requester, now=now, arguments=arguments)


def _matching(pattern: str) -> str:
    return pattern.replace("*", "x").replace("?", "x").replace("\\", "")


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a request beside its text. ``None`` means unknown: rules that allow then do not apply.

    ``now`` is the host's local time, handed in by the caller, since a decision reads no clock. ``arguments`` are those
    of an MCP call as `mcp_arguments.flatten_arguments` names and writes them.
    """

    environment: frozenset[str] | None = None
    requester: str | None = None
    now: datetime | None = None
    arguments: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts a rule's author promises: with the whole policy, each must come out as its list says."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.allow or self.deny or self.ask or self.undecided)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy.

    ``match`` is the pattern as written, or the argument rule in one line; ``language`` is what it matches in the
    matching form of its operation; ``programs`` are those it names, none when its first word is open;
    ``source`` is the rule as plain JSON data, canonical, from which an equal rule can be built again.
    """

    operation: str
    match: str
    action: Verdict
    place: str
    language: Language = field(repr=False)
    programs: tuple[str, ...] = ()
    because: str = ""
    children: Children = GATED
    profile: str | None = None
    timeout_s: float | None = None
    when: Condition | None = None
    examples: Examples = Examples()
    is_glob: bool = True
    source: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def says(self) -> str:
        """Return how a person is told of this rule: ``'kubectl get *' (policy.yaml:3:5)``; a long one by its start."""
        shown = self.match if len(self.match) <= SHOWN_MAX_CHARS else f"{self.match[: SHOWN_MAX_CHARS - 1]}…"
        return f"{shown!r} ({self.place})"


@dataclass(frozen=True, slots=True)
class Section:
    """The rules of one operation in written order: the last that matches wins."""

    operation: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, eq=False)
class Policy:
    """A whole policy, checked and ready to decide.

    ``name`` is what places in messages begin with; ``about`` is the document's own description. A section that the
    document does not have is absent from ``sections``: commands are then denied, other operations are left to the
    workspace and the wall (docs/policy_language.md, "Operations").

    ``narrowing`` is a second policy in force next to this one: what is allowed must be allowed by both (a hub's, see
    narrowing.py); it may have one next to it in turn. ``shadow`` is one that is judged and recorded and decides
    nothing (shadow.py). Neither is part of the digest, which names this document.
    """

    name: str
    sections: Mapping[str, Section]
    trusted_path: tuple[str, ...] = DEFAULT_TRUSTED_PATH
    about: str = ""
    narrowing: "Policy | None" = None
    shadow: "Policy | None" = None

    @property
    def layers(self) -> tuple["Policy", ...]:
        """Return every policy that has to allow: this one, the one that narrows it, the one that narrows that one."""
        return (self,) if self.narrowing is None else (self, *self.narrowing.layers)

    def has_section(self, operation: str) -> bool:
        """Tell whether any policy in force has rules for an operation."""
        return any(operation in layer.sections for layer in self.layers)

    def rules(self, operation: str = "bash") -> tuple[Rule, ...]:
        """Return the operation's rules in written order; none where the document has no section for it."""
        section = self.sections.get(operation)
        return section.rules if section else ()

    def canonical(self) -> dict[str, Any]:
        """Return the policy as plain JSON data without places, comments or spacing: what the digest covers."""
        return {
            "path": list(self.trusted_path),
            "permission": {
                operation: [dict(rule.source) for rule in section.rules]
                for operation, section in sorted(self.sections.items())
            },
            "version": 1,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 in lower-case hexadecimal of the canonical form; equal documents have equal digests."""
        encoded = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(encoded.encode("ascii")).hexdigest()
