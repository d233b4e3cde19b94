"""One command without a hub: the runner's own policy, wall and command service, once, for `guardhouse try`.

Runs in a process of its own that holds no token. As root it becomes the commands' account as soon as the launcher
stands.
"""

import base64
import functools
import importlib
import os
import select
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio

from guardhouse.egress.record import refused_lines
from guardhouse.errors import InvariantError, Refusal, SetupError
from guardhouse.launcher.client import LauncherClient
from guardhouse.launcher.messages import CommandOutcome, LaunchError
from guardhouse.limits import BASH_TIMEOUT_MAX_S, CAPTURE_LIMIT_BYTES
from guardhouse.policy import Policy
from guardhouse.policy.decision import Decision
from guardhouse.redaction import Literal
from guardhouse.runner.bash_result import refused_remarks
from guardhouse.runner.capture import Capture
from guardhouse.runner.command_parts import EgressServer, OutputClosedError, OutputSink, StopSignal
from guardhouse.runner.command_run import CommandRequest
from guardhouse.runner.commands import CommandService
from guardhouse.runner.event_loop import run_in_trio
from guardhouse.runner.identity import Account, become, resolve_account
from guardhouse.runner.redaction import RedactedOutput, Redaction, make_redaction, read_literals, read_patterns
from guardhouse.runner.rules import load_rules, make_judge
from guardhouse.runner.terminal_approver import find_approver
from guardhouse.runner.wall import Wall, put_up_wall
from guardhouse.runner.workspace_root import prepare_workspace
from guardhouse.sandbox.explain_denial import Denial
from guardhouse.values import Stream
from guardhouse.worker.parser_client import ParserClient

__all__ = ["Trial", "try_command"]

_EGRESS_MODULE: Final = "guardhouse.runner.egress"

# As env(1) and timeout(1) have it; docs/cli.md.
_SETUP_EXIT_CODE: Final = 125
_DENIED_EXIT_CODE: Final = 126
_DESCRIPTORS: Final = {Stream.STDOUT: 1, Stream.STDERR: 2}


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one command text.

    Attributes:
        decision: gate one's.
        refusal: why nothing was started, else None.
        outcome: how the command ended, else None.
        egress: what its egress proxy let through and refused, where it had one.
        denials: what the wall refused it.
    """

    decision: Decision
    refusal: Refusal | None
    outcome: CommandOutcome | None
    stdout: Capture
    stderr: Capture
    redaction: Redaction
    egress: dict[str, Any] | None = None
    denials: tuple[Denial, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the object that `guardhouse try --json` prints, redacted; docs/runner.md names every key."""
        found: dict[str, Any] = self.redaction.data(self._as_data())
        for name, capture in (("stdout", self.stdout), ("stderr", self.stderr)):
            # Redacted as it streamed: base64 of what is text would only hide it from whoever looks for a secret.
            if not _is_utf8(capture.content):
                found[f"{name}_b64"] = base64.b64encode(capture.content).decode("ascii")
        return found

    def _as_data(self) -> dict[str, Any]:
        outcome = self.outcome
        found: dict[str, Any] = {
            "verdict": self.decision.verdict.value,
            "ran": outcome is not None,
            "denied_by": self._denied_by(),
            "exit_code": self.exit_code,
            "stdout": self.stdout.content.decode("utf-8", "replace"),
            "stderr": self.stderr.content.decode("utf-8", "replace"),
            "timed_out": outcome is not None and outcome.timed_out,
            "reason": str(self.refusal) if self.refusal is not None else (outcome.reason if outcome else None),
            "decision": self.decision.as_json(),
        }
        for name, capture in (("stdout", self.stdout), ("stderr", self.stderr)):
            if capture.dropped_bytes:
                found[f"{name}_dropped_bytes"] = capture.dropped_bytes
        if outcome is not None:
            found |= {
                "signal": outcome.signal,
                "duration_s": outcome.duration_s,
                "cpu_user_s": outcome.cpu_user_s,
                "cpu_system_s": outcome.cpu_system_s,
                "peak_memory_bytes": outcome.peak_memory_bytes,
                "oom_killed": outcome.oom_killed,
                "denied_syscalls": outcome.denied_syscalls,
                "killed_descendants": outcome.killed_descendants,
                "notes": list(outcome.notes),
                "tree": outcome.execs,
                "egress": self.egress,
                "denials": [denial.as_json() for denial in self.denials],
            }
        return found

    @property
    def exit_code(self) -> int:
        """The command's own exit status; 126 when it was denied, 125 when a layer could not be put up."""
        if self.outcome is not None:
            return self.outcome.exit_code
        return _SETUP_EXIT_CODE if isinstance(self.refusal, LaunchError) else _DENIED_EXIT_CODE

    def _denied_by(self) -> dict[str, Any] | None:
        if self.refusal is None:
            return self._refused_exec()
        if isinstance(self.refusal, LaunchError):
            return {"gate": "wall", "layer": self.refusal.layer, "rule": None, "place": None}
        rule = self.decision.rule
        return {
            "gate": "policy",
            "layer": "gate one",
            "rule": rule.match if rule is not None else None,
            "place": rule.place if rule is not None else None,
        }

    def refused_programs(self) -> list[str]:
        """Return a line for each program, target and access that exec gate, egress proxy and wall did not let be."""
        lines = [] if self.outcome is None else [*refused_remarks(self.outcome), *refused_lines(self.egress)]
        lines += [denial.text for denial in self.denials]
        return [self.redaction.text(line) for line in lines]

    @property
    def refusal_text(self) -> str:
        """Why nothing was started, as it may be shown: it quotes the command."""
        return self.redaction.text(str(self.refusal))

    def _refused_exec(self) -> dict[str, Any] | None:
        """Return the first program that the exec gate did not let run, if any."""
        if self.outcome is None or self.outcome.execs is None or not self.outcome.execs["refused"]:
            return None
        first = self.outcome.execs["refused"][0]
        return {
            "gate": "exec gate",
            "layer": "gate two",
            "rule": first["rule"] or None,
            "place": first["place"] or None,
            "path": first["path"],
            "argv": first["argv"],
        }


def try_command(
    command: str,
    *,
    policy: str,
    profile: str,
    workspace: Path | None,
    timeout_s: float,
    run_as: str | None,
    pass_through: Callable[[str, bytes], bytes] | None,
    redact_files: Sequence[Path] = (),
    tags: frozenset[str] | None = None,
    requester: str | None = None,
    approves_all: bool = False,
) -> Trial:
    """Take ``command`` through gates, wall and limits.

    Args:
        workspace: None makes an empty one for the account and removes it afterwards.
        pass_through: write the command's output to our own descriptors as it comes, whole and keeping nothing, each
            piece as this returns it for a stream's name and bytes; None: keep up to 10 MiB of each stream. Either way
            secrets are taken out first, as the runner does.
        redact_files: the operator's named values.
        tags: the host's, and requester: who asks, for rules with conditions; None: not known.
        approves_all: answer yes wherever a rule says ask; otherwise the terminal is asked where there is one.

    Raises:
        SetupError: policy, profile, workspace or account cannot be used, or this host lacks a layer.
    """
    if not 0 < timeout_s <= BASH_TIMEOUT_MAX_S:
        raise SetupError(f"--timeout: {timeout_s:g} is out of range; write more than 0 and at most 86400 seconds")
    rules = load_rules(policy)
    # Read by who we are now; the commands' account may not be able to.
    patterns = _Patterns(read_literals(redact_files), read_patterns())
    account = resolve_account(run_as, effective_uid=os.geteuid())
    with _workspace(workspace, account) as root:
        wall = put_up_wall(
            profile=profile,
            policy=rules,
            account=account,
            workspace=root,
            protected_paths=(),
            with_workers=False,
            tags=tags,
        )
        try:
            if any(plan.network == "domains" for plan in wall.bundle.profiles.values()):
                # `try` is run in loops, and most profiles have no proxy: its code is not loaded for them.
                importlib.import_module(_EGRESS_MODULE)
            become(account)
            request = CommandRequest(text=command, timeout_s=timeout_s, requester=requester)
            return run_in_trio(_run, wall, rules, request, pass_through, patterns, approves_all)
        finally:
            wall.launcher.close()


async def _run(
    wall: Wall,
    rules: Policy,
    request: CommandRequest,
    pass_through: Callable[[str, bytes], bytes] | None,
    patterns: "_Patterns",
    approves_all: bool,  # noqa: FBT001 - as above
) -> Trial:
    async with LauncherClient(wall.launcher) as launcher, trio.open_nursery() as nursery:
        # Beside the command: its programs take their time, too.
        nursery.start_soon(patterns.load)
        output = _LateOutput(
            patterns,
            _keep if pass_through is None else functools.partial(_write_through, pass_through),
            is_kept=pass_through is None,
        )
        parser = ParserClient(lambda: trio.from_thread.run(launcher.start_worker, "parser"))
        judge = make_judge(rules, reader=parser.read, environment=wall.tags)
        commands = CommandService(
            judge=judge,
            launcher=launcher,
            profile=wall.profile,
            profiles=wall.profiles,
            has_gate=wall.has_gate,
            narrowed=wall.narrowed,
            egress=_make_egress(wall, rules),
            bundle=wall.bundle,
        )
        decision = await commands.judge(request.text, request.requester)
        try:
            approver = None
            if approves_all or os.isatty(0):
                approver = find_approver(approves_all=approves_all, shown=(await patterns.ready()).text)
            admitted = await commands.admit_decided(request, decision, approver)
            run = await commands.run(admitted, output.take, stop=StopSignal(), capture_limit_bytes=None)
        except Refusal as refusal:
            return Trial(decision, refusal, None, Capture(), Capture(), await patterns.ready())
        captures = await output.finish()
        outcome = replace(run.outcome, notes=(*run.notes, *run.outcome.notes))
        return Trial(
            decision,
            None,
            outcome,
            captures[Stream.STDOUT],
            captures[Stream.STDERR],
            await patterns.ready(),
            run.egress,
            run.denials,
        )


def _make_egress(wall: Wall, rules: Policy) -> EgressServer | None:
    if not any(plan.network == "domains" for plan in wall.bundle.profiles.values()):
        return None
    from guardhouse.runner.egress import EgressService, rules_of_bundle

    return EgressService(rules_of_bundle(wall.bundle), policy=rules, environment=wall.tags, log=None)


class _Patterns:
    """The redaction, which takes a quarter of a second to compile: waited for by whoever needs it first.

    Its text is read at once, by who we are then; the event must be made inside the event loop.
    """

    def __init__(self, literals: Sequence[Literal], patterns: tuple[str, str]) -> None:
        self._literals = literals
        self._patterns = patterns
        self._is_loaded = trio.Event()
        self._redaction: Redaction | None = None

    async def load(self) -> None:
        self._redaction = await trio.to_thread.run_sync(make_redaction, self._literals, self._patterns)
        self._is_loaded.set()

    async def ready(self) -> Redaction:
        await self._is_loaded.wait()
        if self._redaction is None:
            raise InvariantError("the redaction is loaded and not there")
        return self._redaction


class _LateOutput:
    """A `RedactedOutput` that is made when the first output comes."""

    def __init__(self, patterns: _Patterns, sink: OutputSink, *, is_kept: bool) -> None:
        self._patterns = patterns
        self._sink = sink
        self._limit_bytes = CAPTURE_LIMIT_BYTES if is_kept else None
        self._output: RedactedOutput | None = None

    async def take(self, stream: Stream, data: bytes) -> None:
        """Take the next bytes of one stream."""
        output = self._output or self._made(await self._patterns.ready())
        await output.take(stream, data)

    def _made(self, redaction: Redaction) -> RedactedOutput:
        """Return the one output: both streams may have waited for ``redaction``."""
        if self._output is None:
            self._output = RedactedOutput(redaction, self._sink, limit_bytes=self._limit_bytes)
        return self._output

    async def finish(self) -> dict[Stream, Capture]:
        """Pass on what was held back and return what was kept."""
        if self._output is None:
            return {stream: Capture() for stream in Stream}
        await self._output.finish()
        return self._output.captures


async def _keep(stream: Stream, data: bytes) -> None:
    """The capture has it already."""
    del stream, data
    await trio.lowlevel.checkpoint()


async def _write_through(shown: Callable[[str, bytes], bytes], stream: Stream, data: bytes) -> None:
    """Write to our own descriptor, in a thread: a reader that is slow with one stream must not hold the other."""
    await trio.to_thread.run_sync(_write_all, _DESCRIPTORS[stream], shown(stream.value, data), abandon_on_cancel=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BrokenPipeError:
            raise OutputClosedError from None
        except BlockingIOError:
            # Somebody made the terminal or pipe that we were given non-blocking.
            select.select((), (descriptor,), ())


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _workspace(named: Path | None, account: Account) -> Iterator[Path]:
    if named is not None:
        root = named.absolute()
        prepare_workspace(root, account, is_default=False)
        yield root
        return
    root = Path(tempfile.mkdtemp(prefix="guardhouse-try-"))
    try:
        if os.geteuid() == 0:
            os.chown(root, account.uid, account.gid)
        yield root
    finally:
        # By now this process is the commands' account: what they left cannot make root remove anything.
        shutil.rmtree(root, ignore_errors=True)
