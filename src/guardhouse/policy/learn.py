"""Rules proposed from what was asked: for a person to read and accept, never taken by themselves.

From texts that were refused, the simple commands that no rule allowed are gathered, and the smallest rules that would
have allowed them are proposed: each command word for word, or, where one program was asked with the same first word
and many different rests, that beginning with the words seen. Programs that run anything they are given are listed
as not proposed, with the reason. Pure.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from guardhouse.policy.gate_one import decide
from guardhouse.policy.knowledge import why_starts_others
from guardhouse.policy.model import Policy, PolicyError
from guardhouse.policy.yaml_text import render_text
from guardhouse.values import Verdict

__all__ = ["Proposal", "parse_asked", "propose_rules", "render_proposals"]

# From this many different commands with one beginning on, the beginning is proposed.
_GROUP_FROM: Final = 3
_SUBCOMMAND: Final = re.compile(r"[a-z][a-z0-9-]*")
_GLOB_CHARS: Final = re.compile(r"([*?\\\s])")


@dataclass(frozen=True, slots=True)
class Proposal:
    """One rule to consider: ``pattern`` to allow, or, with ``refused_because``, what is not proposed and why."""

    pattern: str
    seen: int
    examples: tuple[str, ...]
    refused_because: str | None = None


def parse_asked(text: str, *, name: str) -> tuple[str, ...]:
    """Read JSON lines with ``command`` (audit records, or a batch's answers): the texts that were not allowed.

    Raises:
        PolicyError: a line is no JSON object.
    """
    asked = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"not JSON: {error}", place=f"{name}:{number}") from None
        if not isinstance(data, dict):
            raise PolicyError("not a JSON object", place=f"{name}:{number}")
        command = _command_of(data)
        if command is not None:
            asked.append(command)
    return tuple(asked)


def _command_of(data: dict[str, Any]) -> str | None:
    for holder in (data, data.get("decision"), data.get("args"), data.get("data")):
        command = holder.get("command") if isinstance(holder, dict) else None
        if isinstance(command, str):
            return command
    return None


def propose_rules(policy: Policy, asked: Iterable[str]) -> tuple[Proposal, ...]:
    """Return proposals for every command in ``asked`` that the policy denies, the most often seen first."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in asked:
        for command in decide(policy, text).commands:
            if command.verdict is Verdict.DENY and command.argv is not None:
                counts[command.argv] += 1
    proposals: list[Proposal] = []
    for argvs in _group(counts).values():
        proposals += _propose(argvs, counts)
    return tuple(sorted(proposals, key=lambda proposal: (proposal.refused_because is not None, -proposal.seen)))


def _group(counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for argv in counts:
        has_subcommand = len(argv) > 1 and _SUBCOMMAND.fullmatch(argv[1]) is not None
        groups.setdefault(argv[:2] if has_subcommand else argv[:1], []).append(argv)
    return groups


def _propose(argvs: list[tuple[str, ...]], counts: Counter[tuple[str, ...]]) -> Iterable[Proposal]:
    for argv in argvs:
        reason = why_starts_others(argv[0].rpartition("/")[2], argv[1:])
        if reason or "/" in argv[0]:
            because = reason or f"{argv[0]} is a path: whoever can write there chooses what runs"
            yield Proposal(_pattern(argv), counts[argv], (_shown(argv),), because)
    fit = [argv for argv in argvs if "/" not in argv[0] and not why_starts_others(argv[0], argv[1:])]
    beginning = fit[0][:2] if fit and len(fit[0]) > 1 and _SUBCOMMAND.fullmatch(fit[0][1]) else ()
    if len(fit) >= _GROUP_FROM and beginning:
        examples = tuple(_shown(argv) for argv in sorted(fit)[:_GROUP_FROM])
        yield Proposal(_pattern(beginning) + " *", sum(counts[argv] for argv in fit), examples)
        return
    for argv in fit:
        yield Proposal(_pattern(argv), counts[argv], (_shown(argv),))


def _pattern(argv: tuple[str, ...]) -> str:
    return " ".join(_GLOB_CHARS.sub(r"\\\1", word) for word in argv)


def _shown(argv: tuple[str, ...]) -> str:
    return shlex.join(argv)


def render_proposals(proposals: Iterable[Proposal]) -> str:
    """Return the proposals as a piece of a policy document, refused ones as comments."""
    lines = ["permission:", "  bash:"]
    for proposal in proposals:
        if proposal.refused_because is not None:
            lines.append(f"    # not proposed: {render_text(proposal.pattern)}: {proposal.refused_because}")
            continue
        times = "once" if proposal.seen == 1 else f"{proposal.seen} times"
        lines += [
            f"    - match: {render_text(proposal.pattern)}",
            "      then: allow",
            f"      because: asked for {times}; say here why it may run",
            f"      examples: {{allow: [{', '.join(render_text(example) for example in proposal.examples)}]}}",
        ]
    return "\n".join(lines) + "\n"
