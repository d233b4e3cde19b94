"""Both sessions survive any peer: a conversation of frames, one a line, ends in events or in a PeerError.

The first byte chooses the side and the dialect. Lines are frames; a line `!cut`, `!tick`, `!work` is the host's
own doing.
"""

from driver import main
from guardhouse.errors import PeerError
from guardhouse.values import Stream
from guardhouse.wire.envelope import render_frame
from guardhouse.wire.messages import McpCall, McpResult, Metrics, TaskRequest, TaskResult, Welcome
from guardhouse.wire.messages_v1 import RejectCode, RunnerHello
from guardhouse.wire.session import (
    HeartbeatDue,
    HubSession,
    OutputReceived,
    ResultReceived,
    RunnerSession,
    StoredState,
    StoredTask,
)

__all__ = ["TARGET", "fuzz_one"]

STORED = {
    "t1": StoredTask(StoredState.RUNNING, stdout_offset=5, memory_id="mem"),
    "t2": StoredTask(StoredState.FINISHED),
    "t3": StoredTask(StoredState.REQUESTED, memory_id="mem"),
    "t4": StoredTask(StoredState.CANCELLING, memory_id="other"),
}


def fuzz_one(data: bytes) -> None:
    """No peer makes a session raise anything but PeerError, start a task twice or say what cannot be rendered."""
    kind = data[:1] or b"0"
    lines = data[1:].split(b"\n")
    subprotocol = "guardhouse.v1" if kind in b"vh" else None
    if kind in b"vp":
        _fuzz_runner(lines, subprotocol)
    else:
        _fuzz_hub(lines, subprotocol)


def _fuzz_runner(lines: list[bytes], subprotocol: str | None) -> None:
    session = RunnerSession(memory_id="mem", version="1")
    session.restore(TaskResult(task_id="t0", success=True))
    session.connected(0.0, subprotocol=subprotocol)
    started: set[str] = set()
    now_s = 0.0
    for line in lines:
        now_s += 1.0
        try:
            match line:
                case b"!cut":
                    raise PeerError("cut", code="idle")
                case b"!tick":
                    events = session.tick(now_s + 4.0)
                case b"!work":
                    events = _work(session, started)
                case _:
                    events = session.received(line, now_s)
        except PeerError:
            session.disconnected()
            session.connected(now_s, subprotocol=subprotocol)
            continue
        for event in events:
            match event:
                case TaskRequest() if event.operation == "reject":
                    session.reject(event.task_id, RejectCode.BUSY, "busy")
                case TaskRequest():
                    assert event.task_id not in started, "started twice"
                    started.add(event.task_id)
                    session.accept(event.task_id)
                case McpCall():
                    session.answer_call(McpResult(call_id=event.call_id, success=True))
                case HeartbeatDue():
                    session.heartbeat(metrics=Metrics())
                case _:
                    pass
        _render(session)
        session.flushed()


def _work(session: RunnerSession, started: set[str]) -> list:
    events = []
    for number, task_id in enumerate(sorted(started)):
        if session.state(task_id) != "running":
            continue
        data = bytes([number % 256]) * min(9, session.output_room(task_id, Stream.STDOUT))
        session.output(task_id, Stream.STDOUT, data)
        if number % 2:
            events += session.finish(TaskResult(task_id=task_id, success=True))
    return events


def _fuzz_hub(lines: list[bytes], subprotocol: str | None) -> None:
    session = HubSession(welcome=Welcome(output_window_bytes=64), subprotocol=subprotocol, now_s=0.0)
    session.adopt({} if subprotocol else STORED)
    results: set[str] = set()
    now_s = 0.0
    for line in lines:
        now_s += 1.0
        try:
            events = session.tick(now_s + 4.0) if line == b"!tick" else session.received(line, now_s)
        except PeerError:
            return
        for event in events:
            match event:
                case RunnerHello():
                    session.resume(STORED)
                case OutputReceived():
                    assert event.task_id in STORED, "output of a task that was never given"
                    session.output_stored(event.task_id, event.stream, event.end)
                case ResultReceived():
                    assert event.result.task_id in STORED
                    assert event.result.task_id not in results, "second result"
                    results.add(event.result.task_id)
                    session.result_stored(event.result.task_id)
                case _:
                    pass
        _render(session)


def _render(session: RunnerSession | HubSession) -> None:
    for message in session.take_messages():
        render_frame(message, message_id="m", timestamp_ms=0)


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
