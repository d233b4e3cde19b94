"""A task's output as a stream of lines, from any offset, to its end. Runs in the hub.

Each line is one JSON object: ``{"stream", "offset", "data"}``, or ``data_b64`` where the bytes are no UTF-8 by
themselves; ``{"keepalive": true}`` while nothing happens; and last ``{"end": true, …}`` with the task's state.
"""

import base64
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import msgspec

from guardhouse.hub.database import Database
from guardhouse.hub.long_waits import LongWaits
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.tasks import OutputChunk, TaskRecord
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.values import Stream

__all__ = ["follow_output"]

READ_BYTES: Final = 512 * 1024
KEEPALIVE_S: Final = 15.0


async def follow_output(
    database: Database, board: TaskBoard, waits: LongWaits, task_id: str, *, offsets: dict[Stream, int], follow: bool
) -> AsyncIterator[bytes]:
    """Yield lines from ``offsets`` on; with ``follow`` until the task has ended or the hub stops, else what is stored.

    Where the hub stops, the last line says that the task is not finished: ask again when the hub is back.
    """
    after_seq = 0
    while True:
        live = board.find(task_id)
        changed = live.changed if live is not None else None
        chunks = await database.read(
            partial(store.read_output, task_id=task_id, offsets=offsets, after_seq=after_seq, limit_bytes=READ_BYTES)
        )
        if chunks:
            after_seq = chunks[-1].seq
            yield b"".join(_line(_piece(chunk)) for chunk in chunks)
            continue
        if changed is None or not follow:
            record = await board.record(task_id)
            if record is not None:
                yield _line(_end(record))
            return
        with waits.at_most(KEEPALIVE_S) as wait:
            await changed.wait()
        if waits.is_over:
            follow = False
        elif wait.cancelled_caught:
            yield _line({"keepalive": True})


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _piece(chunk: OutputChunk) -> dict[str, Any]:
    try:
        return {"stream": chunk.stream, "offset": chunk.offset, "data": chunk.data.decode("utf-8")}
    except UnicodeDecodeError:
        encoded = base64.b64encode(chunk.data).decode("ascii")
        return {"stream": chunk.stream, "offset": chunk.offset, "data_b64": encoded}


def _end(record: TaskRecord) -> dict[str, Any]:
    return {
        "end": True,
        "finished": record.is_finished,
        "state": record.state,
        "exit_code": record.exit_code,
        "stdout_bytes": record.stdout_bytes,
        "stderr_bytes": record.stderr_bytes,
        "note": record.output_note,
    }
