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
from guardhouse.cli.policy_batch import explain_batch
from guardhouse.cli.policy_files import read_policy, read_text
from guardhouse.errors import SetupError
from guardhouse.policy import PolicyError, decide
from guardhouse.policy.cases import CaseResult, parse_cases, render_junit, run_cases, run_examples
from guardhouse.policy.explain import explain_decision
from guardhouse.runner.rules import locate_policy
from guardhouse.values import Verdict

__all__ = ["policy"]

_DEFAULT_POLICY: Final = "read_only"

_STATUS: Final = {Verdict.ALLOW: ExitCode.OK, Verdict.DENY: ExitCode.DENIED}


class _WithHub(click.Group):
    """The group with `hub`, whose module needs an HTTP client that the other commands do not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in alphabetical order."""
        return sorted((*super().list_commands(ctx), "hub"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `hub` when it is asked for."""
        if cmd_name == "hub":
            from guardhouse.cli.policy_hub import hub

            return hub
        return super().get_command(ctx, cmd_name)


@click.group(cls=_WithHub)
def policy() -> None:
    """Check, explain, test, format, compare, sign and learn policies; narrow those of runners."""


def print_json(value: Any) -> None:
    """Print one JSON document, readable."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@policy.command()
@click.option("--policy", "policy_name", default=_DEFAULT_POLICY, show_default=True, metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@click.option(
    "--batch",
    is_flag=True,
    help="Read JSON lines {id, policy?, command} from stdin, answer each with one. A line's policy is a document (JSON"
    " or text), a list of [pattern, action] pairs, a shipped name or a path.",
)
@click.argument("text", nargs=-1)
def explain(policy_name: str, text: tuple[str, ...], *, as_json: bool, batch: bool) -> None:
    """Show how a command TEXT is decided, rule by rule: 0 allowed, 126 denied, 1 asked or undecided.

    TEXT is one shell text; put it behind `--` and in quotes. Nothing is run.
    """
    if batch:
        if text:
            raise click.UsageError("--batch reads commands from standard input; give no TEXT")
        sys.exit(explain_batch(policy_name))
    if len(text) != 1:
        raise click.UsageError("give the command as one TEXT in quotes: guardhouse policy explain -- 'ls -l | wc -l'")
    decision = decide(read_policy(policy_name), text[0])
    if as_json:
        print_json(decision.as_json())
    else:
        click.echo(explain_decision(decision))
    sys.exit(_STATUS.get(decision.verdict, ExitCode.FAILED))


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


@policy.command()
@click.argument("name_or_path", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--strict", is_flag=True, help="Notes count as well.")
def lint(name_or_path: str, *, as_json: bool, strict: bool) -> None:
    """Find rules that never decide, and rules that let more through than they say: 0 clean, 1 findings."""
    from guardhouse.policy.lint import lint_policy

    findings = lint_policy(read_policy(name_or_path, with_examples=False))
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            source = f" [{finding.source}]" if finding.source else ""
            click.echo(f"{finding.place}: {finding.level}: {finding.message} ({finding.code}){source}")
    counted = [finding for finding in findings if strict or finding.level != "note"]
    sys.exit(ExitCode.FAILED if counted else ExitCode.OK)


@policy.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Show what changes from policy A to B, each with a shortest witness: 0 B permits nothing more, 1 it does."""
    from guardhouse.policy.compare import compare_policies

    differences = compare_policies(read_policy(before, with_examples=False), read_policy(after, with_examples=False))
    widens = any(difference.widens for difference in differences)
    if as_json:
        print_json({"widens": widens, "differences": [difference.as_json() for difference in differences]})
    else:
        for difference in differences:
            mark = "WIDENS " if difference.widens else "narrows"
            when = f" when {'; '.join(difference.conditions)}" if difference.conditions else ""
            click.echo(
                f"{mark} {difference.operation}: {difference.before.shown()} -> {difference.after.shown()}{when},"
                f" for example: {difference.witness}"
            )
            for label, rule in (("before", difference.before_rule), ("after", difference.after_rule)):
                click.echo(f"          {label}: {rule.says() if rule else 'no rule'}")
        verdict = "permits something that A does not" if widens else "permits nothing that A does not"
        click.echo(f"B {verdict}" if differences else "A and B say the same")
    sys.exit(ExitCode.FAILED if widens else ExitCode.OK)


@policy.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--check", "only_check", is_flag=True, help="Change nothing; 1 when a file is not in the fixed form.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print instead of changing the files.")
def fmt(files: tuple[Path, ...], *, only_check: bool, to_stdout: bool) -> None:
    """Write policy FILES in one fixed form; what they say does not change, and comments stay."""
    from guardhouse.policy.form import format_policy

    changed = False
    for path in files:
        text = read_text(path)
        formatted = format_policy(text, name=str(path))
        if to_stdout:
            click.echo(formatted, nl=False)
        elif formatted != text:
            changed = True
            if only_check:
                click.echo(f"{path}: not in the fixed form; run 'guardhouse policy fmt {path}'")
            else:
                _write_whole(path, formatted)
    sys.exit(ExitCode.FAILED if changed and only_check else ExitCode.OK)


def _write_whole(path: Path, text: str) -> None:
    """Replace a file by a whole new one, or leave it as it was; of a link, the file that it leads to."""
    path = path.resolve()
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(path.stat().st_mode & 0o7777)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise SetupError(f"cannot write {path}: {error.strerror}") from None


@policy.command()
@click.argument("records", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--policy", "policy_name", default=_DEFAULT_POLICY, show_default=True, metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the proposals as JSON.")
def learn(records: Path, policy_name: str, *, as_json: bool) -> None:
    """Propose the smallest rules that would have allowed the commands in RECORDS (JSON lines); changes nothing."""
    from guardhouse.policy.learn import parse_asked, propose_rules, render_proposals

    proposals = propose_rules(read_policy(policy_name), parse_asked(read_text(records), name=str(records)))
    if as_json:
        print_json(
            [
                {
                    "pattern": proposal.pattern,
                    "seen": proposal.seen,
                    "examples": list(proposal.examples),
                    "refused_because": proposal.refused_because,
                }
                for proposal in proposals
            ]
        )
    else:
        click.echo(render_proposals(proposals), nl=False)


@policy.command()
@click.argument("private_key", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the key's id as JSON.")
def keygen(private_key: Path, *, as_json: bool) -> None:
    """Make a key pair for signing policies: PRIVATE_KEY (mode 0600) and PRIVATE_KEY.pub. Replaces nothing."""
    from guardhouse.policy.signing import generate_keys, key_id, parse_public_key

    private, public = generate_keys()
    public_path = private_key.with_name(private_key.name + ".pub")
    _create(private_key, private, mode=0o600)
    _create(public_path, public, mode=0o644)
    name = key_id(parse_public_key(public, name=str(public_path)))
    if as_json:
        print_json({"key_id": name, "private_key": str(private_key), "public_key": str(public_path)})
    else:
        click.echo(f"key {name}: {private_key} (keep it off the runners), {public_path}")


def _create(path: Path, text: str, *, mode: int) -> None:
    try:
        path.touch(mode=mode, exist_ok=False)
        path.write_text(text, encoding="ascii")
    except OSError as error:
        raise SetupError(f"cannot create {path}: {error.strerror}") from None


@policy.command()
@click.argument("name_or_path", metavar="NAME|FILE")
@click.option("--key", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: FILE.sig beside the policy.")
@click.option("--json", "as_json", is_flag=True, help="Print the signature as JSON.")
def sign(name_or_path: str, key: Path, out: Path | None, *, as_json: bool) -> None:
    """Sign what a policy says, includes and all, with an Ed25519 private KEY."""
    from guardhouse.policy.signing import sign_policy

    signature = sign_policy(read_policy(name_or_path), read_text(key), name=str(key))
    path = out or _signature_path(name_or_path)
    try:
        path.write_text(signature, encoding="ascii")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from None
    click.echo(signature if as_json else f"signed: {path}", nl=not as_json)


@policy.command()
@click.argument("name_or_path", metavar="NAME|FILE")
@click.option(
    "--key", "keys", required=True, multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--signature", type=click.Path(path_type=Path, dir_okay=False), help="Default: FILE.sig beside the policy."
)
@click.option("--json", "as_json", is_flag=True, help="Print who signed as JSON.")
def verify(name_or_path: str, keys: tuple[Path, ...], signature: Path | None, *, as_json: bool) -> None:
    """Check a policy's signature against public KEYs: 0 signed by one of them, 125 not."""
    from guardhouse.policy.signing import parse_public_key, verify_policy

    found = read_policy(name_or_path)
    path = signature or _signature_path(name_or_path)
    trusted = [parse_public_key(read_text(key), name=str(key)) for key in keys]
    signer = verify_policy(found, read_text(path), trusted, name=str(path))
    if as_json:
        print_json({"ok": True, "key_id": signer, "digest": found.digest})
    else:
        click.echo(f"{found.name}: signed by {signer}; sha256 {found.digest}")


def _signature_path(name_or_path: str) -> Path:
    path = locate_policy(name_or_path)
    return path.with_name(path.name + ".sig")
