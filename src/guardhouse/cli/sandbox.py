"""`guardhouse sandbox`: read, compare, try and compile profiles. Needs no hub, no runner and, but for `try`, no rights.

Wiring only: every answer comes from `guardhouse.sandbox`; `try` starts a launcher of its own and ends with it.
"""

import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.data_files import shipped_directory
from guardhouse.egress.record import refused_lines
from guardhouse.errors import Refusal
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.policy.model import DEFAULT_TRUSTED_PATH
from guardhouse.runner.egress import EgressService, rules_of_bundle
from guardhouse.runner.egress_thread import EgressThread
from guardhouse.runner.identity import Account, become, resolve_account
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compare import compare_profiles
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.compile_process import process_rules
from guardhouse.sandbox.compiled_text import check_compiled, write_compiled
from guardhouse.sandbox.describe import describe_profile, profile_as_data
from guardhouse.sandbox.describe_process import describe_process, process_as_data
from guardhouse.sandbox.explain_denial import End, explain_denials
from guardhouse.sandbox.facts import Surroundings
from guardhouse.sandbox.load import list_processes, list_profiles, load_process, load_profile, read_library
from guardhouse.sandbox.profile import ProcessProfile
from guardhouse.sandbox.rules import ARCHITECTURES, permissible_tables, render_rules, resolve_rules
from guardhouse.sandbox.seccomp_compiler import check_compiler, compile_filter, compile_program

__all__ = ["sandbox"]

# Of the command's standard error, where a program says why it gives up.
_TAIL_BYTES: Final = 16 * 1024
# What a shell answers for a program that is not there.
_NOT_FOUND: Final = 127

_directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=None,
    help="A sandbox directory (profiles/, syscalls/, masks/) instead of the shipped one.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def sandbox() -> None:
    """Show, compare, try and compile sandbox profiles."""


@sandbox.command("list")
@_directory_option
@_json_option
def list_(*, directory: Path | None, as_json: bool) -> None:
    """List the profiles, and our own processes, with their one-line summaries."""
    directory = directory or shipped_directory("sandbox")
    library = read_library(directory)
    profiles = (load_profile(name, directory=directory, library=library) for name in list_profiles(directory))
    summaries = {profile.name: profile.summary for profile in profiles}
    own = {process.name: process.summary for process in library.processes.values()}
    if as_json:
        click.echo(json.dumps({"profiles": summaries, "own_processes": own}))
        return
    for name, summary in summaries.items():
        click.echo(f"{name:14} {summary}")
    click.echo("\nour own processes, which confine themselves:")
    for name, summary in own.items():
        click.echo(f"{name:14} {summary}")


@sandbox.command()
@click.argument("profile")
@click.option("--filter", "arch", type=click.Choice(ARCHITECTURES), help="Print the readable filter only.")
@click.option("--switch", "switches", multiple=True, help="Show it with this switch on; may be repeated.")
@_directory_option
@_json_option
def show(*, profile: str, arch: str | None, switches: tuple[str, ...], directory: Path | None, as_json: bool) -> None:
    """Say in words what PROFILE (a name or a path) permits, with the reason of every entry.

    PROFILE may also be one of our own processes: runner, keeper, launcher, monitor or init.
    """
    directory = directory or shipped_directory("sandbox")
    if profile in list_processes(directory):
        _show_process(load_process(profile, directory=directory), arch=arch, as_json=as_json)
        return
    loaded = load_profile(profile, directory=directory)
    on = frozenset(switches)
    if as_json:
        click.echo(json.dumps(profile_as_data(loaded, switches=on)))
    elif arch is not None:
        click.echo(render_rules(resolve_rules(loaded, architecture=arch, switches=on)), nl=False)
    else:
        click.echo(describe_profile(loaded, switches=on), nl=False)


def _show_process(process: ProcessProfile, *, arch: str | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(process_as_data(process)))
    elif arch is not None:
        click.echo(render_rules(process_rules(process, architecture=arch)), nl=False)
    else:
        click.echo(describe_process(process), nl=False)


@sandbox.command()
@click.argument("first")
@click.argument("second")
@_directory_option
@_json_option
@click.pass_context
def diff(context: click.Context, *, first: str, second: str, directory: Path | None, as_json: bool) -> None:
    """Say what widens and what narrows when SECOND takes the place of FIRST.

    Exit status 1 when anything widens, 0 otherwise.
    """
    directory = directory or shipped_directory("sandbox")
    changes = compare_profiles(load_profile(first, directory=directory), load_profile(second, directory=directory))
    widens = any(change.direction == "widens" for change in changes)
    if as_json:
        listed = [{"direction": c.direction, "subject": c.subject, "text": c.text} for c in changes]
        click.echo(json.dumps({"widens": widens, "changes": listed}))
    else:
        for change in changes:
            click.echo(f"{change.direction:8} {change.subject}: {change.text}")
        if not changes:
            click.echo("no difference in what a command may do")
    context.exit(ExitCode.FAILED if widens else ExitCode.OK)


@sandbox.command("compile")
@click.option("--check", is_flag=True, help="Write nothing; exit status 1 when a committed text is not up to date.")
@_directory_option
@click.pass_context
def compile_(context: click.Context, *, check: bool, directory: Path | None) -> None:
    """Write the readable filters in compiled/ anew, and compile every filter once through libseccomp."""
    directory = directory or shipped_directory("sandbox")
    check_compiler()
    for name in list_profiles(directory):
        loaded = load_profile(name, directory=directory)
        for architecture in ARCHITECTURES:
            rules = resolve_rules(loaded, architecture=architecture)
            for foreign in ((), *((table,) for table in permissible_tables(rules))):
                compile_filter(replace(rules, foreign=foreign))
    for process in read_library(directory).processes.values():
        for architecture in ARCHITECTURES:
            compile_program(process_rules(process, architecture=architecture))
    if not check:
        for name in write_compiled(directory):
            click.echo(f"changed: {name}")
        return
    wrong = check_compiled(directory)
    for line in wrong:
        click.echo(f"{directory / 'compiled'}: {line}", err=True)
    if wrong:
        click.echo("run 'guardhouse sandbox compile' and commit the result", err=True)
    context.exit(ExitCode.FAILED if wrong else ExitCode.OK)


@sandbox.command("try", context_settings={"ignore_unknown_options": True})
@click.argument("profile")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--workspace", type=click.Path(path_type=Path), help="Its directory; a temporary one by default.")
@click.option("--run-as", help="Account for the command when started as root; guardhouse or nobody by default.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 86_400), default=120.0, show_default=True)
@click.option("--switch", "switches", multiple=True, help="Turn this switch of the profile on; may be repeated.")
@_directory_option
@_json_option
def try_(
    *,
    profile: str,
    command: tuple[str, ...],
    workspace: Path | None,
    run_as: str | None,
    timeout_s: float,
    switches: tuple[str, ...],
    directory: Path | None,
    as_json: bool,
) -> NoReturn:
    """Run COMMAND behind the wall of PROFILE on this host: no policy, no exec gate, no hub.

    COMMAND is a program and its arguments; a shell text runs as: bash -c 'TEXT'.

    It keeps the command's output and exit status; what the wall refused stands on stderr. With --json the outcome is
    one object on stderr's place, after the command's own output.
    """
    account = resolve_account(run_as, effective_uid=os.geteuid())
    loaded = load_profile(profile, directory=directory or shipped_directory("sandbox"))
    with tempfile.TemporaryDirectory(prefix="guardhouse-try-") as scratch:
        place = (workspace or Path(scratch)).absolute()
        if workspace is None and os.geteuid() == 0:
            os.chown(scratch, account.uid, account.gid)
        bundle = compile_bundle(
            [loaded],
            identity=Identity(account.uid, account.gid, account.groups, account.name, account.home),
            workspace=str(place.resolve(strict=True)),
            features=probe_host(),
            trusted_path=":".join(DEFAULT_TRUSTED_PATH),
            around=Surroundings(switches=frozenset(switches)),
        )
        request = LaunchRequest(profile=loaded.name, argv=command, timeout_s=timeout_s)
        outcome, said, egress = _run(bundle, request, account)
    end = End(
        exit_code=outcome.exit_code,
        signal_number=outcome.signal,
        oom_killed=outcome.oom_killed,
        denied_syscalls=outcome.denied_syscalls,
        stderr=said.decode("utf-8", "replace"),
    )
    denials = explain_denials(bundle, loaded.name, end)
    if as_json:
        found = _as_data(outcome) | {"denials": [denial.as_json() for denial in denials], "egress": egress}
        click.echo(json.dumps(found), err=True)
    else:
        # What the filter refused stands among the denials, with more words.
        notes = [note for note in outcome.notes if not (denials and note.startswith("seccomp denied"))]
        for note in (*notes, *([outcome.reason] if outcome.reason else [])):
            click.echo(f"guardhouse: {note}", err=True)
        for denial in denials:
            click.echo(f"guardhouse: {denial.text}", err=True)
        for line in refused_lines(egress):
            click.echo(f"guardhouse: {line}", err=True)
        if outcome.exit_code == _NOT_FOUND and len(command) == 1 and " " in command[0]:
            click.echo(f"guardhouse: a shell text runs as: bash -c {shlex.quote(command[0])}", err=True)
    sys.exit(outcome.exit_code)


def _run(
    bundle: Bundle, request: LaunchRequest, account: Account
) -> tuple[CommandOutcome, bytes, dict[str, Any] | None]:
    """Run the command; return how it ended and the end of what it wrote on its standard error, which is passed on.

    In network mode `domains` its proxy is served, by the profile alone, and what came of that is returned too. As root
    this process becomes ``account`` for that, since the command may say anything to it.
    """
    proxy = EgressThread(EgressService(rules_of_bundle(bundle), policy=None, log=None), request.profile)
    with DirectClient(start_launcher(bundle), serve_proxy=proxy.serve) as client, _tee(2) as (stderr_fd, tail):
        if bundle.profiles[request.profile].network == "domains":
            become(account)
        try:
            identifier = client.launch(request, stdin_fd=0, stdout_fd=1, stderr_fd=stderr_fd)
            outcome = _wait(client, identifier)
        except Refusal as error:
            click.echo(f"guardhouse: {error}", err=True)
            sys.exit(ExitCode.DENIED)
    return outcome, bytes(tail), proxy.end()


@contextmanager
def _tee(target_fd: int) -> Iterator[tuple[int, bytearray]]:
    """Give a descriptor whose bytes go on to ``target_fd``, and the last of them, complete when the block is left."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    tail = bytearray()

    def carry() -> None:
        while chunk := os.read(reading, _TAIL_BYTES):
            tail.extend(chunk)
            del tail[:-_TAIL_BYTES]
            with contextlib.suppress(BrokenPipeError):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(target_fd, view) :]

    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        yield writing, tail
    finally:
        os.close(writing)
        carrier.join()
        os.close(reading)


def _wait(client: DirectClient, identifier: int) -> CommandOutcome:
    def interrupt(_number: int, _frame: object) -> None:
        client.stop(identifier)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        return client.wait(identifier)
    finally:
        signal.signal(signal.SIGINT, previous)


def _as_data(outcome: CommandOutcome) -> dict[str, object]:
    return {
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "timed_out": outcome.timed_out,
        "duration_s": round(outcome.duration_s, 6),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "oom_killed": outcome.oom_killed,
        "denied_syscalls": outcome.denied_syscalls,
        "notes": list(outcome.notes),
        "reason": outcome.reason,
    }
