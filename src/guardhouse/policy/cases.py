"""A policy's own tests: the examples beside its rules, and case files; with their results as JUnit.

A case file is JSON lines (``{"command": …, "must": "allow"|"deny"|"ask"|"undecided"}``; ``not_allow`` and
``not_deny`` leave room for the exec gate). Knows nothing of files: texts in, results out. Pure.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from guardhouse.policy.gate_one import decide
from guardhouse.policy.model import Context, Policy, PolicyError
from guardhouse.policy.operation import decide_operation
from guardhouse.values import Verdict

__all__ = ["Case", "CaseResult", "check_examples", "parse_cases", "render_junit", "run_cases", "run_examples"]

_EXPECTATIONS: Final = {
    "allow": frozenset({Verdict.ALLOW}),
    "deny": frozenset({Verdict.DENY}),
    "ask": frozenset({Verdict.ASK}),
    "undecided": frozenset({Verdict.UNDECIDED}),
    "not_allow": frozenset({Verdict.DENY, Verdict.ASK, Verdict.UNDECIDED}),
    "not_deny": frozenset({Verdict.ALLOW, Verdict.ASK, Verdict.UNDECIDED}),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One promise: ``subject`` under ``operation`` must come out as ``must`` says."""

    name: str
    operation: str
    subject: str
    must: str
    place: str
    context: Context = field(default_factory=Context)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a case came out as. ``because`` is the decision's own sentence."""

    case: Case
    verdict: Verdict
    because: str

    @property
    def passed(self) -> bool:
        """Whether the promise holds."""
        return self.verdict in _EXPECTATIONS[self.case.must]

    def failure(self) -> str:
        """Say what was promised and what came."""
        return f"{self.case.subject!r} must be {self.case.must}, is {self.verdict.value}: {self.because}"


def parse_cases(text: str, *, name: str) -> tuple[Case, ...]:
    """Read a case file.

    Raises:
        PolicyError: a line is no case; the place is ``name:line``.
    """
    cases = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{name}:{number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"not JSON: {error}", place=place) from None
        subject = data.get("command", data.get("subject")) if isinstance(data, dict) else None
        if not isinstance(subject, str):
            raise PolicyError("a case has 'command' (or 'operation' and 'subject') and 'must'", place=place)
        if data.get("must") not in _EXPECTATIONS:
            raise PolicyError(f"'must' is one of {', '.join(_EXPECTATIONS)}, not {data.get('must')!r}", place=place)
        cases.append(
            Case(
                name=str(data.get("id", place)),
                operation=str(data.get("operation", "bash")),
                subject=subject,
                must=data["must"],
                place=place,
            )
        )
    return tuple(cases)


def run_cases(policy: Policy, cases: Sequence[Case]) -> Iterator[CaseResult]:
    """Decide each case, in order."""
    for case in cases:
        if case.operation == "bash":
            decision = decide(policy, case.subject, context=case.context)
            yield CaseResult(case, decision.verdict, decision.because)
        else:
            answer = decide_operation(policy, case.operation, case.subject, context=case.context)
            yield CaseResult(case, answer.verdict, answer.because)


def run_examples(policy: Policy) -> Iterator[CaseResult]:
    """Decide every example of every rule, in the circumstances in which its rule applies."""
    for section in policy.sections.values():
        for rule in section.rules:
            context = Context() if rule.when is None else rule.when.example_context()
            cases = [
                Case(f"{rule.place} {must}: {text}", section.operation, text, must, rule.place, context)
                for must, texts in (
                    ("allow", rule.examples.allow),
                    ("deny", rule.examples.deny),
                    ("ask", rule.examples.ask),
                    ("undecided", rule.examples.undecided),
                )
                for text in texts
            ]
            yield from run_cases(policy, cases)


def check_examples(policy: Policy) -> None:
    """Refuse a policy whose own examples do not come out as written.

    Raises:
        PolicyError: the first example that fails, with the place of its rule.
    """
    for result in run_examples(policy):
        if not result.passed:
            raise PolicyError(f"example: {result.failure()}", place=result.case.place)


def render_junit(suite: str, results: Sequence[CaseResult]) -> str:
    """Return the results as one JUnit XML document."""
    failures = sum(not result.passed for result in results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name={_attribute(suite)} tests="{len(results)}" failures="{failures}" errors="0" skipped="0">',
    ]
    for result in results:
        head = f"  <testcase classname={_attribute(suite)} name={_attribute(result.case.name)}"
        if result.passed:
            lines.append(head + "/>")
        else:
            lines.append(head + f"><failure message={_attribute(result.failure())}>")
            lines.append(escape(_xml_text(f"{result.case.place}: {result.failure()}")) + "</failure></testcase>")
    lines.append("</testsuite>")
    return "\n".join(lines) + "\n"


def _attribute(value: str) -> str:
    return quoteattr(_xml_text(value))


def _xml_text(value: str) -> str:
    """XML 1.0 cannot hold most control characters, not even escaped."""
    return "".join(char if char in "\t\n" or char.isprintable() else repr(char)[1:-1] for char in value)
