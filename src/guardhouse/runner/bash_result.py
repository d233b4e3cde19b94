"""A command's end as the `bash` operation answers it: text bounded, what was left out said.

The streamed output is exact; the texts here are for people and agents, so bad bytes become U+FFFD and our own
remarks follow the command's output in square brackets. Runs in the runner.
"""

from typing import Final

from guardhouse.egress.record import refused_lines
from guardhouse.errors import PeerError, Refusal
from guardhouse.launcher.messages import CommandOutcome
from guardhouse.limits import INLINE_LIMIT_CHARS, PREVIEW_CHARS, PREVIEW_LINES
from guardhouse.runner.capture import Capture
from guardhouse.runner.command_run import CommandRun
from guardhouse.runner.files import BoundedText, FilesService
from guardhouse.wire.operations import BashResult

__all__ = ["make_bash_result", "refused_remarks"]

_REFUSALS_SHOWN: Final = 5


async def make_bash_result(run: CommandRun, *, command: str, files: FilesService) -> BashResult:
    """Return the result of ``run``; a text over 30,000 characters is in the workspace and previewed here."""
    outcome = run.outcome
    stdout = await _bounded(run.stdout, command, files)
    stderr = await _bounded(run.stderr, command, files)
    remarks = [note for note in (run.stdout.dropped_note("stdout"), run.stderr.dropped_note("stderr")) if note]
    if outcome.timed_out:
        remarks.append(f"[guardhouse: command timed out after {run.timeout_s:g} s; everything it started was ended]")
    elif outcome.reason:
        remarks.append(f"[guardhouse: {outcome.reason}]")
    refused = (*refused_remarks(outcome), *refused_lines(run.egress), *(denial.text for denial in run.denials))
    remarks += [f"[guardhouse: {remark}]" for remark in refused]
    return BashResult(
        stdout=stdout.text,
        stderr=_with_remarks(stderr.text, remarks),
        exit_code=outcome.exit_code,
        truncated=stdout.truncated,
        file_path=stdout.file_path,
        total_size=stdout.total_size,
        stderr_truncated=stderr.truncated,
        stderr_file_path=stderr.file_path,
        stderr_total_size=stderr.total_size,
        stdout_dropped=run.stdout.dropped_bytes,
        stderr_dropped=run.stderr.dropped_bytes,
        timed_out=outcome.timed_out,
        cancelled=outcome.cancelled,
        signal=outcome.signal,
        duration_s=max(0.0, outcome.duration_s),
        cpu_user_s=max(0.0, outcome.cpu_user_s),
        cpu_system_s=max(0.0, outcome.cpu_system_s),
        peak_memory_bytes=outcome.peak_memory_bytes,
        oom_killed=outcome.oom_killed,
        denied_syscalls=outcome.denied_syscalls,
        killed_descendants=outcome.killed_descendants,
        notes=(*run.notes, *outcome.notes),
        reason=outcome.reason,
        decision=run.decision.as_json(),
        execs=outcome.execs,
        egress=run.egress,
        denials=tuple(denial.as_json() for denial in run.denials),
    )


def refused_remarks(outcome: CommandOutcome) -> list[str]:
    """Say which programs the exec gate did not let run: a shell only prints 'Permission denied'."""
    if outcome.execs is None:
        return []
    refused = outcome.execs["refused"]
    remarks = [
        f"the exec gate did not let {program['path'] or 'a program'} run: {program['because']}"
        for program in refused[:_REFUSALS_SHOWN]
    ]
    if len(refused) > _REFUSALS_SHOWN:
        remarks.append(f"and {len(refused) - _REFUSALS_SHOWN} further programs, which the result lists")
    return remarks


async def _bounded(capture: Capture, command: str, files: FilesService) -> BoundedText:
    text = capture.content.decode("utf-8", "replace")
    if len(text) <= INLINE_LIMIT_CHARS:
        return BoundedText(text=text)
    try:
        return await files.bound(text, operation="bash", command=command)
    except (Refusal, PeerError) as error:
        # A full workspace must not cost the command's result; what is missing is said.
        lines = "\n".join(text.split("\n", PREVIEW_LINES)[:PREVIEW_LINES])[:PREVIEW_CHARS]
        return BoundedText(
            text=f"{lines}\n[guardhouse: the rest of {len(text)} characters could not be saved: {error}]",
            truncated=True,
            total_size=capture.kept_bytes,
        )


def _with_remarks(text: str, remarks: list[str]) -> str:
    if not remarks:
        return text
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "\n".join(remarks) + "\n"
