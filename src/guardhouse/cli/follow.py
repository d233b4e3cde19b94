"""A task's output to this terminal, and its end to an exit status.

A stream that breaks off is taken up where it broke: that loses the wait, never the task. Runs in the `guardhouse`
command.
"""

import base64
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, HubUnreachable
from guardhouse.cli.exit_codes import ExitCode

__all__ = ["exit_status", "follow_output"]

# A hub that restarts is back within this; a longer silence is told.
RETRY_FOR_S: Final = 60.0
RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 5.0


def follow_output(
    client: HubClient, task_id: str, *, stream: str = "both", offset: int = 0, follow: bool = True
) -> Iterator[tuple[str, bytes]]:
    """Yield stream names and bytes in order of arrival, each byte once, until the hub says that this is all.

    Raises:
        HubUnreachable: the hub did not come back within `RETRY_FOR_S`.
    """
    offsets = {"stdout": 0, "stderr": 0}
    if stream != "both":
        offsets[stream] = offset
    delay_s, broke_at_s = RETRY_FIRST_S, None
    while True:
        query = {
            "stream": stream,
            "stdout_offset": offsets["stdout"],
            "stderr_offset": offsets["stderr"],
            "follow": follow,
        }
        try:
            for line in client.lines(f"/api/v1/tasks/{quote(task_id, safe='')}/output", query=query):
                delay_s, broke_at_s = RETRY_FIRST_S, None
                if line.get("end"):
                    if line["finished"] or not follow:
                        return
                elif "stream" in line:
                    data = base64.b64decode(line["data_b64"]) if "data_b64" in line else line["data"].encode()
                    missing = line["offset"] - offsets[line["stream"]]
                    if missing > 0:
                        click.echo(f"guardhouse: {missing} bytes of {line['stream']} were lost", err=True)
                    offsets[line["stream"]] = line["offset"] + len(data)
                    yield line["stream"], data
        except HubUnreachable as error:
            now_s = time.monotonic()
            broke_at_s = now_s if broke_at_s is None else broke_at_s
            if now_s - broke_at_s >= RETRY_FOR_S:
                raise
            click.echo(f"guardhouse: {error}; trying again", err=True)
        time.sleep(delay_s)
        delay_s = min(delay_s * 2, RETRY_MAX_S)


def exit_status(found: dict[str, Any]) -> int:
    """Return the exit status for a finished task: the command's own where it ran to its end."""
    state, exit_code = found["state"], found["exit_code"]
    if (found["error"] or "").startswith("command not started"):
        # The launcher's words when a layer of the wall cannot be put up: nobody denied anything.
        return ExitCode.SETUP
    if is_denied(found):
        return ExitCode.DENIED
    if state == "timed_out":
        return ExitCode.TIMED_OUT
    if state == "cancelled":
        return ExitCode.INTERRUPTED
    if state == "lost":
        return ExitCode.UNAVAILABLE
    if state == "succeeded":
        return (exit_code or 0) & 0xFF
    if found["error_code"] in {"environment_unavailable", "queue_timeout", "runner_draining", "runner_busy"}:
        return ExitCode.UNAVAILABLE
    if found["error_code"] in {"setup", "setup_error", "launch_failed"}:
        return ExitCode.SETUP
    return (exit_code & 0xFF) or ExitCode.FAILED if exit_code is not None else ExitCode.FAILED


def is_denied(found: dict[str, Any]) -> bool:
    """Return whether policy or wall refused the task; a plain runner says so only in words (README of the seed)."""
    words = found["error"] or ""
    code = found["error_code"] or ""
    return found["state"] == "failed" and (
        code in {"denied", "command_denied", "refused"} or words.startswith("command denied")
    )


def close_quietly() -> None:
    """Point our stdout at nothing after its reader has gone, so that the interpreter's own flush stays silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
