"""`guardhouse policy`: check, explain, test, format, compare, sign and learn policies. Arguments to one function each.

Exit statuses: 0 the question was answered with yes (the document is good, the command is allowed, nothing widens);
1 it was answered with no; 126 `explain` found the command denied; 125 a document or key cannot be taken; 2 usage.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.errors import SetupError
from guardhouse.limits import COMMAND_TEXT_MAX_BYTES, POLICY_DOCUMENT_MAX_CHARS
from guardhouse.policy import Decision, Policy, PolicyError, decide, load_policy, policy_from_pairs
from guardhouse.policy.cases import CaseResult, parse_cases, render_junit, run_cases, run_examples
from guardhouse.policy.explain import explain_decision
from guardhouse.runner.rules import locate_policy
from guardhouse.values import Verdict

__all__ = ["policy"]

_DEFAULT_POLICY: Final = "read_only"
_BATCH_LINE_MAX_CHARS: Final = 4 * COMMAND_TEXT_MAX_BYTES + POLICY_DOCUMENT_MAX_CHARS

_STATUS: Final = {Verdict.ALLOW: ExitCode.OK, Verdict.DENY: ExitCode.DENIED}


@click.group()
def policy() -> None:
    """Check, explain, test, format, compare, sign and learn policies."""


def read_policy(name_or_path: str, *, with_examples: bool = True) -> Policy:
    """Load a policy by shipped name or path; what it includes is read beside it.

    Raises:
        PolicyError: the document is wrong; with file, line and column.
        SetupError: a file cannot be read.
    """
    path = locate_policy(name_or_path)
    return load_policy(
        read_text(path),
        name=name_or_path if "/" not in name_or_path else str(path),
        includes=lambda wanted: read_text(path.parent / wanted),
        with_examples=with_examples,
    )


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        SetupError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; check the path and who may read it") from None
    except UnicodeDecodeError as error:
        raise SetupError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def print_json(value: Any) -> None:
    """Print one JSON document, readable."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@policy.command()
@click.option("--policy", "policy_name", default=_DEFAULT_POLICY, show_default=True, metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@click.option("--batch", is_flag=True, help="Read JSON lines {id, policy?, command} from stdin, answer each with one.")
@click.argument("text", nargs=-1)
def explain(policy_name: str, text: tuple[str, ...], *, as_json: bool, batch: bool) -> None:
    """Show how a command TEXT is decided, rule by rule: 0 allowed, 126 denied, 1 asked or undecided.

    TEXT is one shell text; put it behind `--` and in quotes. Nothing is run.
    """
    if batch:
        if text:
            raise click.UsageError("--batch reads commands from standard input; give no TEXT")
        sys.exit(_explain_batch(policy_name))
    if len(text) != 1:
        raise click.UsageError("give the command as one TEXT in quotes: guardhouse policy explain -- 'ls -l | wc -l'")
    decision = decide(read_policy(policy_name), text[0])
    if as_json:
        print_json(decision.as_json())
    else:
        click.echo(explain_decision(decision))
    sys.exit(_STATUS.get(decision.verdict, ExitCode.FAILED))


def _explain_batch(policy_name: str) -> ExitCode:
    """Answer each line; a line that cannot be answered gets ``error`` in place of a verdict, and the status is 1."""
    loaded: dict[str, Policy] = {}
    status = ExitCode.OK
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        answer: dict[str, Any] = {"id": None}
        try:
            data = _parse_batch_line(line)
            answer["id"] = data.get("id")
            answer |= _decide_batch_line(data, policy_name, loaded).as_json()
        except (SetupError, ValueError) as error:
            answer["error"] = f"line {number}: {error}"
            status = ExitCode.FAILED
        click.echo(json.dumps(answer, ensure_ascii=True))
    return status


def _parse_batch_line(line: str) -> dict[str, Any]:
    if len(line) > _BATCH_LINE_MAX_CHARS:
        raise ValueError(f"longer than {_BATCH_LINE_MAX_CHARS} characters")
    try:
        data = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(data, dict) or not isinstance(data.get("command"), str):
        raise ValueError(  # noqa: TRY004 - what a line holds, not how we call
            'not a line of the form {"id": …, "policy": …, "command": "…"}'
        )
    return data


def _decide_batch_line(data: dict[str, Any], policy_name: str, loaded: dict[str, Policy]) -> Decision:
    wanted = data.get("policy")
    key = json.dumps(wanted)
    if key not in loaded:
        if wanted is None:
            loaded[key] = read_policy(policy_name)
        elif isinstance(wanted, list) and all(isinstance(item, list) for item in wanted):
            loaded[key] = policy_from_pairs(wanted)
        elif isinstance(wanted, str):
            loaded[key] = load_policy(wanted, name="policy")
        else:
            loaded[key] = load_policy(json.dumps(wanted), name="policy")
    return decide(loaded[key], data["command"])


@policy.command()
@click.argument("name_or_path", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(name_or_path: str, *, as_json: bool) -> None:
    """Load a policy, its includes and its examples: 0 it can be used, 125 it cannot, with file, line and column."""
    try:
        found = read_policy(name_or_path)
    except PolicyError as error:
        if not as_json:
            raise
        print_json({"ok": False, "place": error.place, "error": error.reason})
        sys.exit(ExitCode.SETUP)
    counts = {operation: len(section.rules) for operation, section in found.sections.items()}
    if as_json:
        print_json({"ok": True, "name": found.name, "digest": found.digest, "rules": counts})
        return
    shown = ", ".join(f"{count} {operation}" for operation, count in counts.items()) or "none"
    click.echo(f"{found.name}: good; rules: {shown}; sha256 {found.digest}")


@policy.command()
@click.argument("name_or_path", metavar="NAME|FILE")
@click.argument("case_files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also write the results as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def test(name_or_path: str, case_files: tuple[Path, ...], junit: Path | None, *, as_json: bool) -> None:
    """Decide a policy's examples and the cases of CASE_FILES: 0 all as written, 1 some are not."""
    subject = read_policy(name_or_path, with_examples=False)
    results = list(run_examples(subject))
    for path in case_files:
        results += run_cases(subject, parse_cases(read_text(path), name=str(path)))
    if junit is not None:
        junit.write_text(render_junit(subject.name, results), encoding="utf-8")
    failed = [result for result in results if not result.passed]
    if as_json:
        print_json(
            {"run": len(results), "failed": len(failed), "results": [_result_json(result) for result in results]}
        )
    else:
        for result in failed:
            click.echo(f"{result.case.place}: {result.failure()}")
        click.echo(f"{subject.name}: {len(results)} cases, {len(failed)} failed")
    sys.exit(ExitCode.FAILED if failed else ExitCode.OK)


def _result_json(result: CaseResult) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "place": result.case.place,
        "operation": result.case.operation,
        "subject": result.case.subject,
        "must": result.case.must,
        "verdict": result.verdict.value,
        "passed": result.passed,
        "because": result.because,
    }
