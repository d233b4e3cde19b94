"""One command text through both halves of the runner: gate one says whether, the launcher runs it, output flows.

Used by the task dispatcher and by `guardhouse try`, so that what is tried is what would happen. Knows no platform
and no message: output goes to a sink that may make it wait. Runs in the runner.
"""

import os
import shlex
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import trio

from guardhouse.errors import InvariantError, PeerError, Refusal
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest, Question, check_launch_request
from guardhouse.limits import CAPTURE_LIMIT_BYTES, COMMAND_TEXT_MAX_BYTES, OUTPUT_CHUNK_MAX_BYTES, STOP_GRACE_S
from guardhouse.policy.decision import Decision
from guardhouse.runner.admission import check_admitted, check_decidable
from guardhouse.runner.approvals import (
    ApprovalAnswer,
    Approver,
    approved_words,
    question_about_program,
    question_about_text,
    serve_questions,
)
from guardhouse.runner.capture import Capture
from guardhouse.runner.command_parts import (
    CommandLauncher,
    EgressServer,
    NoEgress,
    OutputClosedError,
    OutputSink,
    Running,
    StopSignal,
)
from guardhouse.runner.command_run import AdmittedCommand, CommandRequest, CommandRun, RunTimes
from guardhouse.runner.rules import Judge
from guardhouse.sandbox.bundle import Bundle
from guardhouse.sandbox.explain_denial import Denial, End, explain_denials
from guardhouse.sandbox.narrow_execute import NARROWED
from guardhouse.values import Stream, Verdict

__all__ = ["CommandService"]

# bash is found in the profile's trusted path; the policy has judged the text as bash reads it.
_SHELL: Final = "bash"
_NARROWED_NOTE: Final = (
    "this host cannot follow what a command starts, and the text leaves open what that is: only programs that the"
    " policy allows with any arguments could be executed"
)
_JUDGED_NOTE: Final = (
    "this host cannot follow what a command starts, and the text leaves open what that is: only programs that the"
    " policy allows with some arguments could be executed, and these were judged as their callers showed them"
)
# Reading a text takes well under a millisecond; a text that takes this long was made to.
JUDGE_TIMEOUT_S: Final = 10.0


class CommandService:
    """Judges and runs commands under one policy and one launcher."""

    def __init__(
        self,
        *,
        judge: Judge,
        launcher: CommandLauncher,
        profile: str,
        profiles: frozenset[str],
        has_gate: bool,
        narrowed: frozenset[str] = frozenset(),
        egress: EgressServer | None = None,
        bundle: Bundle | None = None,
    ) -> None:
        """``profiles`` are those that the launcher's bundle holds; ``profile`` is the default among them.

        ``narrowed``: those of the profiles that also stand in the bundle with listed programs only, for texts that
        leave something open where there is no gate.
        ``has_gate``: the launcher was given this same policy and judges every exec by it. ``egress`` is needed where
        a profile is in network mode `domains`. ``bundle`` is the launcher's: with it a denial is explained.
        """
        self._judge = judge
        self._launcher = launcher
        self._profile = profile
        self._profiles = profiles
        self._has_gate = has_gate
        self._narrowed = narrowed
        self._egress = egress or NoEgress()
        self._bundle = bundle
        # One judgement at a time, off the event loop: a text that is slow to read must not stop the heartbeat.
        self._judge_limiter = trio.CapacityLimiter(1)
        self._slowest_start_s = 0.0

    def take_start_delay_ms(self) -> int:
        """Return how long the slowest start of a command took since this was asked last; 0 where none was started."""
        slowest_s, self._slowest_start_s = self._slowest_start_s, 0.0
        return int(slowest_s * 1000)

    def _judge_checked(self, text: str, requester: str | None) -> Decision:
        size_bytes = len(text.encode("utf-8", "surrogateescape"))
        if size_bytes > COMMAND_TEXT_MAX_BYTES:
            raise PeerError(
                f"invalid bash args: a command of {size_bytes} bytes, at most {COMMAND_TEXT_MAX_BYTES} fit one"
                " argument (execve(2)); write it to a file in the workspace and run that",
                code="invalid_args",
            )
        if "\0" in text:
            raise PeerError("invalid bash args: the command holds a NUL byte; leave it out", code="invalid_args")
        return self._judge(text, requester)

    async def admit(self, request: CommandRequest, approver: Approver | None = None) -> AdmittedCommand:
        """Take ``request`` through gate one and return what may be started.

        Args:
            approver: who is asked where a rule says so, now and while the command runs; None: nobody can be.

        Raises:
            Refusal: the policy says no, a person says no or nothing in time, or the policy names a profile that this
                runner does not have.
            PeerError: the request cannot be a command.
        """
        return await self.admit_decided(request, await self.judge(request.text, request.requester), approver)

    async def admit_decided(
        self, request: CommandRequest, decision: Decision, approver: Approver | None = None
    ) -> AdmittedCommand:
        """As `admit`, with the decision that `judge` gave for this very text."""
        if decision.command != request.text:
            raise InvariantError("a decision was used for another text than the one it judged")
        answer = await self._ask_about_text(request, decision, approver)
        profile = self._known_profile(decision.profile or self._profile)
        is_narrowed = not self._has_gate and decision.needs_gate_two and profile in self._narrowed
        check_admitted(decision, has_gate=self._has_gate or is_narrowed, answer=answer)
        can_ask = approver is not None and approver.can_ask
        launch = LaunchRequest(
            profile=profile + NARROWED if is_narrowed else profile,
            argv=(_SHELL, "-c", request.text),
            workdir=request.workdir,
            timeout_s=min(request.timeout_s, decision.timeout_s or request.timeout_s),
            grace_s=STOP_GRACE_S,
            requester=request.requester,
            ask_timeout_s=approver.timeout_s if approver is not None and can_ask else 0.0,
            approved=approved_words(decision) if answer is not None else (),
        )
        notes = () if answer is None else (f"{decision.because}: {answer.why}",)
        if is_narrowed:
            notes = (*notes, self._narrowed_note(launch.profile))
        return AdmittedCommand(decision, launch, notes, approver if can_ask else None)

    def _narrowed_note(self, profile: str) -> str:
        plan = None if self._bundle is None else self._bundle.profiles.get(profile)
        return _JUDGED_NOTE if plan is not None and plan.exec_notice == "judged_arguments" else _NARROWED_NOTE

    async def _ask_about_text(
        self, request: CommandRequest, decision: Decision, approver: Approver | None
    ) -> ApprovalAnswer | None:
        """Return what a person says to a decision that asks; None where it does not ask or nobody can be asked."""
        if decision.verdict is not Verdict.ASK or approver is None or not approver.can_ask:
            return None
        profile = decision.profile or self._profile
        # Nobody is asked about what will be refused all the same.
        check_decidable(decision, has_gate=self._has_gate or profile in self._narrowed)
        return await approver.ask(question_about_text(decision, profile=profile, workdir=request.workdir))

    async def admit_program(
        self,
        argv: tuple[str, ...],
        *,
        profile: str,
        environment: dict[str, str],
        timeout_s: float,
        requester: str | None = None,
        answer_of: Callable[[Decision], ApprovalAnswer | None] | None = None,
    ) -> LaunchRequest:
        """Take a program that is started without a shell through gate one, as the words of a command text would go.

        Args:
            answer_of: returns what people said where a rule asks, None where nobody can be asked; None: nobody can be.
                What it raises passes through.

        Raises:
            Refusal: the policy or a person says no, or the policy names a profile that this runner does not have.
            PeerError: words or environment cannot be a program's.
        """
        decision = await self.judge(shlex.join(argv), requester)
        answer = None
        if decision.verdict is Verdict.ASK and answer_of is not None:
            # Nobody is asked about what will be refused all the same.
            check_decidable(decision, has_gate=self._has_gate)
            answer = answer_of(decision)
        check_admitted(decision, has_gate=self._has_gate, answer=answer)
        launch = LaunchRequest(
            profile=self._known_profile(decision.profile or profile),
            argv=argv,
            environment=environment,
            timeout_s=min(timeout_s, decision.timeout_s or timeout_s),
            grace_s=STOP_GRACE_S,
            requester=requester,
            approved=approved_words(decision) if answer is not None else (),
        )
        check_launch_request(launch)
        return launch

    def _known_profile(self, profile: str) -> str:
        if profile not in self._profiles:
            raise Refusal(
                f"command denied: profile {profile!r}, which a rule asks for, is not among those of this runner"
                f" ({', '.join(sorted(self._profiles))}); change the rule or start the runner anew"
            )
        return profile

    async def run(
        self,
        admitted: AdmittedCommand,
        sink: OutputSink,
        *,
        stop: StopSignal,
        capture_limit_bytes: int | None = CAPTURE_LIMIT_BYTES,
    ) -> CommandRun:
        """Run what `admit` admitted to its end; ``stop`` ends it before.

        Args:
            capture_limit_bytes: of each stream; past it output is read, counted and dropped. None passes
                everything on and keeps nothing.

        Raises:
            Refusal: a layer of the wall cannot be put up; nothing has run.
        """
        stdout, stderr = Capture(limit_bytes=capture_limit_bytes), Capture(limit_bytes=capture_limit_bytes)
        outcome, egress, times = await self._launch(admitted, sink, stop, stdout, stderr)
        return CommandRun(
            decision=admitted.decision,
            outcome=outcome,
            timeout_s=admitted.launch.timeout_s,
            stdout=stdout,
            stderr=stderr,
            egress=egress,
            notes=admitted.notes,
            denials=self._explain(admitted.launch, outcome, stderr),
            times=times,
        )

    def _explain(self, request: LaunchRequest, outcome: CommandOutcome, stderr: Capture) -> tuple[Denial, ...]:
        if self._bundle is None:
            return ()
        end = End(
            exit_code=outcome.exit_code,
            signal_number=outcome.signal,
            oom_killed=outcome.oom_killed,
            denied_syscalls=outcome.denied_syscalls,
            stderr=stderr.tail.decode("utf-8", "replace"),
            workdir=request.workdir,
        )
        return explain_denials(self._bundle, request.profile, end)

    async def judge(self, text: str, requester: str | None = None) -> Decision:
        """Return gate one's decision without running anything, in bounded time.

        Raises:
            PeerError: the text cannot be an argument: too long or with a NUL byte.
            Refusal: no decision was reached in time.
        """
        with trio.move_on_after(JUDGE_TIMEOUT_S):
            return await trio.to_thread.run_sync(
                self._judge_checked, text, requester, abandon_on_cancel=True, limiter=self._judge_limiter
            )
        raise Refusal(
            f"command denied: the policy did not come to a decision within {JUDGE_TIMEOUT_S:g} s;"
            " write the command more simply"
        )

    async def _launch(
        self, admitted: AdmittedCommand, sink: OutputSink, stop: StopSignal, stdout: Capture, stderr: Capture
    ) -> tuple[CommandOutcome, dict[str, Any] | None, RunTimes]:
        request = admitted.launch
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        with (
            closing(trio.lowlevel.FdStream(out_read)) as out_stream,
            closing(trio.lowlevel.FdStream(err_read)) as err_stream,
        ):
            try:
                asked_s = trio.current_time()
                running = await self._launcher.launch(request, stdin_fd=None, stdout_fd=out_write, stderr_fd=err_write)
                started_s = trio.current_time()
                self._slowest_start_s = max(self._slowest_start_s, started_s - asked_s)
            finally:
                os.close(out_write)
                os.close(err_write)
            try:
                async with (
                    self._egress.serve(running.proxy_listener, request.profile) as egress,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_stop_when_asked, running, stop)
                    nursery.start_soon(_answer_questions, running, admitted)
                    async with trio.open_nursery() as pumps:
                        pumps.start_soon(_pump, out_stream, Stream.STDOUT, stdout, sink)
                        pumps.start_soon(_pump, err_stream, Stream.STDERR, stderr, sink)
                        outcome = await running.wait()
                    nursery.cancel_scope.cancel()
            finally:
                # Cancelled, or a failure here: a command that nobody waits for must not run on.
                await running.abandon()
        times = RunTimes(asked_s, started_s, trio.current_time())
        return outcome, None if egress is None else egress.as_json(), times


async def _stop_when_asked(running: Running, stop: StopSignal) -> None:
    await running.stop(await stop.wait())


async def _answer_questions(running: Running, admitted: AdmittedCommand) -> None:
    """Put what the exec gate asks about a command before who can be asked; without anybody it does not ask."""
    approver = admitted.approver
    if approver is None:
        return

    async def ask(question: Question) -> ApprovalAnswer:
        about = question_about_program(
            question, admitted.decision, profile=admitted.launch.profile, workdir=admitted.launch.workdir
        )
        return await approver.ask(about)

    await serve_questions(running, ask)


async def _pump(source: trio.abc.ReceiveStream, stream: Stream, capture: Capture, sink: OutputSink) -> None:
    """Carry one stream to the sink until the last writer has closed it."""
    while True:
        chunk = await source.receive_some(OUTPUT_CHUNK_MAX_BYTES)
        if not chunk:
            return
        kept = capture.add(bytes(chunk))
        if kept:
            try:
                await sink(stream, kept)
            except OutputClosedError:
                await source.aclose()
                return
