"""`guardhouse exec`: one command in one environment, as if it ran here. Wiring only."""

import base64
import os
import shlex
import sys
import uuid
from collections.abc import Callable
from typing import Any

import click

from guardhouse.cli.client import ClientError, HubClient, HubUnreachable, hub_options, print_json
from guardhouse.cli.exec_tree import refusal_lines
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.follow import close_quietly, exit_status, follow_output
from guardhouse.cli.schedule import SCHEDULES_PATH, parse_at
from guardhouse.cli.task import task_path, wait_for
from guardhouse.cli.terminal import HarmlessOutput, plain_lines
from guardhouse.egress.record import refused_lines

__all__ = ["command_options", "exec_", "run_command"]

# 128 + SIGPIPE: what a shell reports of a program whose reader went away.
BROKEN_PIPE = 141


def command_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `run_command` takes."""
    for option in (
        click.option("--raw", is_flag=True, help="Show a terminal every byte, control sequences too."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of streaming."),
        click.option("--detach", is_flag=True, help="Print the task's id and do not wait."),
        click.option(
            "--queue",
            "queue_s",
            type=click.FloatRange(0, 86_400),
            default=0.0,
            metavar="SECONDS",
            help="Let it wait so long for a runner that is not connected.",
        ),
        click.option(
            "--stdin", "with_stdin", is_flag=True, help="Send our standard input (at most 16 MiB) to the command."
        ),
        click.option("--profile", metavar="NAME", help="Sandbox profile, if the runner allows the choice."),
        click.option("--workdir", metavar="DIR", help="Directory inside the workspace."),
        click.option(
            "--timeout", type=click.FloatRange(0, 86_400, min_open=True), metavar="SECONDS", help="120 without."
        ),
    ):
        command = option(command)
    return command


@click.command("exec")
@click.option("--at", metavar="TIME", help="Start it then, or +90s, +10m, +2h, +1d from now; prints the schedule's id.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(1, 86_400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="With --at: how late it may start when the environment is away at its time.",
)
@click.option("--session", metavar="ID", help="Run in this session's environment; leave ENVIRONMENT out then.")
@command_options
@hub_options
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="ENVIRONMENT COMMAND...")
def exec_(client: HubClient, *, session: str | None, words: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND in ENVIRONMENT, stream its output, and return its exit status.

    One word is a command text for bash: exec web-1 -- 'ps aux | head'. Several words are quoted and joined, so that
    they arrive as they are: exec web-1 -- ls -l 'my file'. Ctrl-C cancels the command. With --session the words are
    the command: exec --session ID -- uptime. On a terminal, control sequences other than colours are spelt out.
    """
    if session is not None:
        if options["at"] is not None:
            raise click.UsageError("--at goes with ENVIRONMENT, not with --session")
        run_command(client, {"session_id": session}, words, **options)
    else:
        run_command(client, {"environment_id": words[0]}, words[1:], **options)


def run_command(
    client: HubClient,
    target: dict[str, str],
    command: tuple[str, ...],
    *,
    timeout: float | None,
    workdir: str | None,
    profile: str | None,
    with_stdin: bool,
    queue_s: float,
    detach: bool,
    as_json: bool,
    raw: bool,
    at: str | None = None,
    grace_s: float = 0.0,
) -> None:
    """Run a command and exit with its status; ``target`` names an environment or a session as the API does."""
    if command and command[0] == "--":
        # Options end at the first word already, so click hands the customary mark on as a word.
        command = command[1:]
    if not command:
        raise click.UsageError("no command: write it after ENVIRONMENT --")
    args: dict[str, Any] = {"command": command[0] if len(command) == 1 else shlex.join(command)}
    if timeout is not None:
        args["timeout"] = timeout
    if workdir is not None:
        args["workdir"] = workdir
    if with_stdin:
        args["stdin"] = _read_stdin()
    if at is not None:
        _schedule(client, target["environment_id"], args, profile=profile, at=at, grace_s=grace_s, as_json=as_json)
        return
    body = {
        **target,
        "operation": "bash",
        "args": args,
        "queue_s": queue_s,
        "profile": profile,
        # A request whose answer was lost is asked again under the same key: it starts one task.
        "idempotency_key": f"exec-{uuid.uuid4()}",
    }
    created = _create(client, body)
    if created.get("session_notice"):
        click.echo(f"guardhouse: {created['session_notice']}", err=True)
    if detach:
        if as_json:
            print_json(created)
        else:
            click.echo(created["id"])
        return
    sys.exit(_attend(client, created["id"], as_json=as_json, output=HarmlessOutput(raw=raw)))


def _schedule(
    client: HubClient,
    environment: str,
    args: dict[str, Any],
    *,
    profile: str | None,
    at: str,
    grace_s: float,
    as_json: bool,
) -> None:
    body = {
        "environment_id": environment,
        "operation": "bash",
        "args": args,
        "run_at": parse_at(at),
        "grace_s": grace_s,
        "profile": profile,
        "idempotency_key": f"exec-{uuid.uuid4()}",
    }
    made = client.request("POST", SCHEDULES_PATH, body=body)
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])
        click.echo(f"guardhouse: starts at {made['run_at']} in {made['environment_name']}", err=True)


STDIN_MAX_BYTES = 16 * 1024 * 1024


def _read_stdin() -> str:
    data = sys.stdin.buffer.read(STDIN_MAX_BYTES + 1)
    if len(data) > STDIN_MAX_BYTES:
        raise ClientError(
            f"standard input is over {STDIN_MAX_BYTES} bytes; write it to a file in the workspace first",
            exit_code=ExitCode.USAGE,
        )
    return base64.b64encode(data).decode("ascii")


def _create(client: HubClient, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return client.request("POST", "/api/v1/tasks", body=body)
    except HubUnreachable:
        return client.request("POST", "/api/v1/tasks", body=body)


def _attend(client: HubClient, task_id: str, *, as_json: bool, output: HarmlessOutput) -> int:
    """Stream a task to its end and return the exit status."""
    streamed = {"stdout": bytearray(), "stderr": bytearray()}
    counts = {"stdout": 0, "stderr": 0}
    try:
        for stream, data in follow_output(client, task_id):
            counts[stream] += len(data)
            if as_json:
                streamed[stream] += data
            else:
                output.write(stream, data)
        found = wait_for(client, task_id)
    except KeyboardInterrupt:
        output.finish()
        return _interrupted(client, task_id)
    except BrokenPipeError:
        close_quietly()
        _cancel(client, task_id, "the reader of its output went away")
        return BROKEN_PIPE
    result = found["result"] if isinstance(found["result"], dict) else {}
    for stream, count in counts.items():
        # A plain runner of the seed streams nothing: its output is in the result.
        text = result.get(stream) if found["protocol"] != "guardhouse.v1" else None
        if count == 0 and isinstance(text, str) and text:
            if as_json:
                streamed[stream] += text.encode()
            else:
                output.write(stream, text.encode())
    output.finish()
    if as_json:
        print_json({**found, **{name: bytes(data).decode("utf-8", "replace") for name, data in streamed.items()}})
    else:
        _explain(found, result)
    return exit_status(found)


def _explain(found: dict[str, Any], result: dict[str, Any]) -> None:
    """Say on stderr what the command's own output does not: refusals, limits, what was left out."""
    if found["error"]:
        click.echo(f"guardhouse: {plain_lines(found['error'])}", err=True)
    elif found["state"] in {"timed_out", "cancelled", "lost"}:
        why = found["state_reason"] or found["cancel_reason"] or f"its limit was {found['timeout_s']:g} s"
        click.echo(f"guardhouse: {found['state'].replace('_', ' ')}: {plain_lines(why)}", err=True)
    if found["output_note"]:
        click.echo(f"guardhouse: {plain_lines(found['output_note'])}", err=True)
    for line in (*refusal_lines(result.get("execs")), *refused_lines(result.get("egress"))):
        click.echo(f"guardhouse: {plain_lines(line)}", err=True)
    for denial in result.get("denials") or ():
        click.echo(f"guardhouse: {plain_lines(denial['text'])}", err=True)
    for stream in ("stdout", "stderr"):
        dropped = result.get(f"{stream}_dropped")
        if dropped:
            click.echo(f"guardhouse: {dropped} bytes of {stream} beyond the limit were dropped", err=True)


def _cancel(client: HubClient, task_id: str, reason: str) -> None:
    try:
        client.request("POST", task_path(task_id, "/cancel"), body={"reason": reason})
    except ClientError as error:
        click.echo(f"guardhouse: cannot cancel {task_id}: {error}", err=True)


def _interrupted(client: HubClient, task_id: str) -> int:
    """Cancel, show what still comes, and return 130; a second Ctrl-C leaves at once."""
    click.echo(f"guardhouse: cancelling {task_id}", err=True)
    try:
        _cancel(client, task_id, "interrupted by Ctrl-C")
        wait_for(client, task_id, timeout_s=15)
    except KeyboardInterrupt:
        click.echo(f"guardhouse: left; 'guardhouse task show {task_id}' says how it ended", err=True)
        os._exit(ExitCode.INTERRUPTED)
    return ExitCode.INTERRUPTED
