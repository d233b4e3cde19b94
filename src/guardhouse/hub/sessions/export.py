"""A session as lines of JSON: who and where, then each task with its request, answer, decision and output.

Each line has ``kind`` and a growing ``seq``. The last one is ``end``, or ``error`` where the export broke off, so that
a file that was cut is known. Runs in the hub.
"""

import base64
import codecs
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import msgspec

from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import session_history
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.session_history import Step
from guardhouse.hub.store.sessions import find_session
from guardhouse.values import Stream

__all__ = ["OUTPUT_MAX_BYTES", "export_session"]

# Of each stream of a task; the line says how much more there was, and GET /api/v1/tasks/{task}/output has it.
OUTPUT_MAX_BYTES: Final = 256 * 1024
PAGE_STEPS: Final = 20


async def export_session(database: Database, meta: msgspec.Struct, session_id: str) -> AsyncIterator[bytes]:
    """Yield the lines of a session; ``meta`` is what the first one shows of it."""
    seq = 0

    def line(kind: str, **fields: Any) -> bytes:
        nonlocal seq
        seq += 1
        return msgspec.json.encode({"seq": seq, "kind": kind, **fields}) + b"\n"

    yield line("session_meta", exported_at=iso_time(now_ms()), session=msgspec.to_builtins(meta))
    after: tuple[int, str] | None = None
    count = 0
    try:
        while True:
            steps = await database.read(
                partial(session_history.list_steps, session_id=session_id, after=after, limit=PAGE_STEPS, whole=True)
            )
            for step in steps:
                yield line("tool_call", **_call(step), **await _output(database, step))
                for approval in step.approvals:
                    yield line("approval", call_id=step.task.id, approval=approval)
            count += len(steps)
            if len(steps) < PAGE_STEPS:
                break
            after = (steps[-1].task.created_ms, steps[-1].task.id)
        if await database.read(partial(find_session, session_id=session_id)) is None:
            # Its tasks went with it, so what was told is a part that looks like all.
            yield line("error", message="the session was deleted while it was exported")
            return
    except StoreUnavailable as error:
        yield line("error", message=str(error))
        return
    yield line("end", tool_calls=count)


def _call(step: Step) -> dict[str, Any]:
    task = step.task
    return {
        "call_id": task.id,
        "environment_id": task.environment_id,
        "environment_name": task.environment_name,
        "requested_by": task.created_by,
        "requested_by_name": task.requested_by,
        "created_at": iso_time(task.created_ms),
        "finished_at": iso_time(task.finished_ms),
        "trace_id": task.trace_id,
        "request": {"operation": task.operation, "profile": task.profile, "args": msgspec.Raw(task.args)},
        "response": {
            "state": task.state,
            "success": task.success,
            "exit_code": task.exit_code,
            "error": task.error,
            "error_code": task.error_code,
            "result": None if task.result is None else msgspec.Raw(task.result),
            "output_note": task.output_note,
        },
        "decision": step.decision,
        "executed": step.executed,
        "refused": step.refused,
        "output_bytes": {"stdout": task.stdout_bytes, "stderr": task.stderr_bytes},
    }


async def _output(database: Database, step: Step) -> dict[str, Any]:
    """Return the head of each stream, as text where it is UTF-8, and how many bytes of it are left out."""
    found: dict[str, Any] = {}
    totals = {Stream.STDOUT: step.task.stdout_bytes, Stream.STDERR: step.task.stderr_bytes}
    for stream, total in totals.items():
        if not total:
            continue
        chunks = await database.read(
            partial(
                store.read_output,
                task_id=step.task.id,
                offsets={stream: 0},
                after_seq=0,
                limit_bytes=OUTPUT_MAX_BYTES,
            )
        )
        data = b"".join(chunk.data for chunk in chunks)[:OUTPUT_MAX_BYTES]
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            # A character that the bound cuts in two is left out whole, and the text stays a text.
            found[stream.value] = decoder.decode(data, final=len(data) == total)
            data = data[: len(data) - len(decoder.getstate()[0])]
        except UnicodeDecodeError:
            found[f"{stream.value}_b64"] = base64.b64encode(data).decode("ascii")
        found[f"{stream.value}_left_out_bytes"] = total - len(data)
    return found
