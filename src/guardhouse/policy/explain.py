"""A decision as a person reads it: the command with each part marked, the rule behind it, and the verdict.

Knows how a decision looks, not how it was reached. Pure.
"""

from guardhouse.policy.decision import CommandDecision, Concern, Decision
from guardhouse.values import Verdict

__all__ = ["explain_decision"]

_NEXT_STEP = {
    Verdict.ALLOW: "it may run, inside the wall",
    Verdict.DENY: "it will not run",
    Verdict.ASK: "it runs when a person says yes",
    Verdict.UNDECIDED: "the exec gate judges what really starts; without an exec gate it will not run",
}


def explain_decision(decision: Decision) -> str:
    """Return the annotated command: each part under its line of the text, and the verdict last."""
    lines: list[str] = []
    parts = sorted(decision.parts, key=lambda part: (part.span[0], -part.span[1]))
    start = 0
    for number, line in enumerate(decision.command.split("\n")):
        end = start + len(line)
        lines.append(f"{_visible(line)}")
        for part in parts:
            if start <= part.span[0] <= end and (part.span[0] < end or number == 0 or part.span[0] == start):
                lines += _annotate(part, line, start)
        start = end + 1
    lines.append("")
    lines.append(f"{decision.verdict.value}: {decision.because}")
    lines.append(f"  {_NEXT_STEP[decision.verdict]}")
    lines.append(f"  policy {decision.policy_name} (sha256 {decision.policy_digest[:16]}…)")
    return "\n".join(lines)


def _annotate(part: CommandDecision | Concern, line: str, line_start: int) -> list[str]:
    first = part.span[0] - line_start
    length = max(1, min(part.span[1] - part.span[0], len(line) - first))
    margin = " " * (len(_visible(line[:first])))
    marks = "^" * max(1, len(_visible(line[first : first + length])))
    shown = [f"{margin}{marks} {part.verdict.value}"]
    if isinstance(part, CommandDecision):
        if part.via:
            shown.append(f"{margin}  reached by {', '.join(part.via)}: {_visible(part.text)}")
        shown.append(f"{margin}  {part.because}")
        others = [rule for rule in part.tried if rule is not part.rule]
        shown += [f"{margin}  also matches {rule.says()}: {rule.action.value}" for rule in others]
    else:
        shown.append(f"{margin}  {part.kind}: {part.because}")
    return shown


def _visible(text: str) -> str:
    """Show control characters as escapes: a terminal must not act on what it is shown."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
