"""`guardhouse try`: one command text through everything the runner would do with it, here, without a hub.

The same policy, profile, launcher and command service as the runner's. Its standard output, standard error and exit
status are the command's own. Wiring only; what is not needed is not imported, since this is run in loops.
"""

import json
import sys
from pathlib import Path

import click

from guardhouse.cli.exit_codes import ExitCode

__all__ = ["try_"]


@click.command(name="try", context_settings={"ignore_unknown_options": False})
@click.option("--policy", default="read_only", show_default=True, metavar="NAME|FILE", help="Which commands may run.")
@click.option("--profile", default="observe", show_default=True, metavar="NAME|FILE", help="What they may touch.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    default=None,
    help="The directory that the command may write to, and starts in. Default: an empty one, removed afterwards.",
)
@click.option("--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Time limit in seconds.")
@click.option("--run-as", default=None, help="As root: the user to run as. Default: guardhouse, else nobody.")
@click.option(
    "--redact-file",
    "redact_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file of NAME=VALUE lines: values taken out of everything shown, beside the known shapes of secrets.",
)
@click.option("--tag", "tags", multiple=True, help="A tag of this host, for rules with conditions; repeatable.")
@click.option("--requester", default=None, help="Who asks for it, for rules with conditions.")
@click.option(
    "--approve",
    "approves_all",
    is_flag=True,
    help="Say yes wherever a rule says ask. Without it the terminal is asked, and without a terminal it is refused.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the command's output.")
@click.option("--raw", is_flag=True, help="Show a terminal every byte, control sequences too.")
@click.argument("command")
def try_(
    policy: str,
    profile: str,
    workspace: Path | None,
    timeout_s: float,
    run_as: str | None,
    redact_files: tuple[Path, ...],
    tags: tuple[str, ...],
    requester: str | None,
    command: str,
    *,
    approves_all: bool,
    as_json: bool,
    raw: bool,
) -> None:
    """Take COMMAND, one shell text, through gates, wall and limits on this machine, without a hub.

    The exit status is the command's own; 126 with the reason on standard error when it is denied, 124 when it timed
    out, 125 when the wall cannot be put up here. Secrets are taken out of what is shown, as the runner does, and
    on a terminal control sequences other than colours are spelt out. Write `--` before COMMAND.
    """
    from guardhouse.cli.terminal import HarmlessOutput, plain_lines
    from guardhouse.runner.trial import try_command

    output = HarmlessOutput(raw=raw or as_json)
    try:
        trial = try_command(
            command,
            policy=policy,
            profile=profile,
            workspace=workspace,
            timeout_s=timeout_s,
            run_as=run_as,
            pass_through=None if as_json else output.shown,
            redact_files=redact_files,
            tags=frozenset(tags) or None,
            requester=requester,
            approves_all=approves_all,
        )
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    finally:
        output.finish()
    if as_json:
        sys.stdout.write(json.dumps(trial.as_json(), ensure_ascii=True) + "\n")
        sys.stdout.flush()
    if trial.refusal is not None:
        click.echo(f"guardhouse: {plain_lines(trial.refusal_text)}", err=True)
    elif trial.outcome is not None and trial.outcome.timed_out and not as_json:
        click.echo(f"guardhouse: command timed out after {timeout_s:g} s", err=True)
    if not as_json:
        for remark in trial.refused_programs():
            click.echo(f"guardhouse: {plain_lines(remark)}", err=True)
    sys.exit(trial.exit_code)
