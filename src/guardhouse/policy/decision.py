"""What gate one answers: the verdict, every command with the rule that decided it, and why.

Values and their JSON; knows neither how they are reached nor how they are shown. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guardhouse.errors import Refusal
from guardhouse.policy.in_force import PolicyId, policies_as_json
from guardhouse.policy.model import Rule
from guardhouse.values import Verdict

__all__ = ["CommandDecision", "CommandDenied", "Concern", "Decision", "strictest"]

Span = tuple[int, int]

_ORDER = (Verdict.ALLOW, Verdict.UNDECIDED, Verdict.ASK, Verdict.DENY)


def strictest(*verdicts: Verdict) -> Verdict:
    """Deny before ask before undecided before allow; `ALLOW` of none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.ALLOW)


class CommandDenied(Refusal):
    """The policy denies a command. ``decision`` carries everything that the message says."""

    def __init__(self, message: str, decision: "Decision") -> None:
        super().__init__(message)
        self.decision = decision


@dataclass(frozen=True, slots=True)
class CommandDecision:
    """The answer for one simple command.

    Attributes:
        text: the command as written; ``span`` is where, in characters of the whole text, end excluded.
        argv: its words, or None when one of them is not known from the text.
        rule: the last rule that matches, or None: nothing matches, or several may.
        tried: every rule that matches, in written order; the last is the winner.
        undecided_because: why text alone cannot tell what the command does; None where it can, or where the rules
            allow it all the same.
        because: one sentence for people: what led to the verdict.
        via: how the command is reached (``("wrapper xargs",)``); empty at top level.
    """

    text: str
    argv: tuple[str, ...] | None
    verdict: Verdict
    rule: Rule | None
    span: Span
    because: str
    undecided_because: str | None = None
    tried: tuple[Rule, ...] = ()
    via: tuple[str, ...] = ()

    @property
    def place(self) -> str | None:
        """Where the rule stands: ``file:line:column``."""
        return self.rule.place if self.rule else None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; docs/policy_language.md, "JSON", names every key."""
        return {
            "text": self.text,
            "argv": None if self.argv is None else list(self.argv),
            "verdict": self.verdict.value,
            "rule": self.rule.match if self.rule else None,
            "place": self.place,
            "span": list(self.span),
            "undecided_because": self.undecided_because,
            "because": self.because,
            "rule_because": self.rule.because if self.rule else "",
            "tried": [{"rule": rule.match, "then": rule.action.value, "place": rule.place} for rule in self.tried],
            "via": list(self.via),
        }


@dataclass(frozen=True, slots=True)
class Concern:
    """Something else in the text that was judged: a redirection, an assignment, a part that cannot be read."""

    kind: str
    text: str
    verdict: Verdict
    span: Span
    because: str
    rule: Rule | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; docs/policy_language.md, "JSON", names every key."""
        return {
            "kind": self.kind,
            "text": self.text,
            "verdict": self.verdict.value,
            "span": list(self.span),
            "because": self.because,
            "rule": self.rule.match if self.rule else None,
            "place": self.rule.place if self.rule else None,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for a whole text.

    ``because`` says in one sentence what decided. ``concerns`` are the redirections, assignments and unreadable
    parts that were judged beside the commands. ``profile`` is the wall that the winning rules ask for (None: the
    runner's default) and ``timeout_s`` the shortest time limit among them.

    ``narrowing`` has name and digest of each policy in force next to this one, ``shadow`` what one that decides
    nothing would have said (shadow.py), None where there is none.

    `UNDECIDED` must go to gate two; where there is none it counts as `DENY`. `ASK` may hold undecided parts too:
    ``needs_gate_two`` tells, and a person's yes does not replace the exec gate.
    """

    command: str
    verdict: Verdict
    commands: tuple[CommandDecision, ...]
    because: str
    policy_name: str
    policy_digest: str
    concerns: tuple[Concern, ...] = ()
    profile: str | None = None
    timeout_s: float | None = None
    narrowing: tuple[PolicyId, ...] = ()
    shadow: Mapping[str, Any] | None = None

    @property
    def parts(self) -> tuple[CommandDecision | Concern, ...]:
        """Everything that was judged: commands first, then what stands beside them."""
        return (*self.commands, *self.concerns)

    @property
    def needs_gate_two(self) -> bool:
        """Whether some part is left to the exec gate, whatever the verdict of the whole."""
        verdicts = {part.verdict for part in self.parts}
        return self.verdict is Verdict.UNDECIDED or Verdict.UNDECIDED in verdicts

    @property
    def rule(self) -> Rule | None:
        """The rule behind the verdict, where one rule is."""
        for part in self.parts:
            if part.verdict is self.verdict and part.rule is not None:
                return part.rule
        return None

    def refusal(self) -> CommandDenied:
        """Return the error for a command that will not run: what, which rule and where, and the next step."""
        return CommandDenied(
            f"command denied: {self.because}; 'guardhouse policy explain -- COMMAND' shows every rule tried", self
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; docs/policy_language.md, "JSON", names every key."""
        return {
            "verdict": self.verdict.value,
            "command": self.command,
            "because": self.because,
            "commands": [command.as_json() for command in self.commands],
            "concerns": [concern.as_json() for concern in self.concerns],
            **policies_as_json((self.policy_name, self.policy_digest), self.narrowing),
            "profile": self.profile,
            "timeout_s": self.timeout_s,
            **({} if self.shadow is None else {"shadow": dict(self.shadow)}),
        }
