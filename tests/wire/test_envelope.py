"""One frame is one typed message: every type, both ways, and what breaks the rules."""

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.strategies import values_of

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.values import Stream
from guardhouse.wire import (
    Direction,
    FrameTooLarge,
    InvalidPayloadError,
    UnsendableMessage,
    parse_frame,
    render_frame,
)
from guardhouse.wire.close_codes import close_code, close_reason
from guardhouse.wire.envelope import TYPES
from guardhouse.wire.messages import (
    EnvironmentInfo,
    Heartbeat,
    McpCall,
    McpServer,
    Message,
    Metrics,
    TaskCancel,
    TaskOutput,
    TaskRequest,
    TaskResult,
    Unknown,
    Welcome,
)
from guardhouse.wire.messages_v1 import ApprovalRequest
from guardhouse.wire.plain import as_plain, is_plain

EVERY_TYPE = [
    pytest.param(direction, kind, id=kind.TYPE) for direction in Direction for kind in TYPES[direction].values()
]


def envelope(kind: str, payload: object, **more: object) -> str:
    return json.dumps({"id": "msg_1", "type": kind, "payload": payload, "timestamp": 1, **more})


@pytest.mark.parametrize(("direction", "kind"), EVERY_TYPE)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_round_trip(direction: Direction, kind: type[Message], data: st.DataObject) -> None:
    """What is rendered is parsed to the same value, for every type and any value of it."""
    message = data.draw(values_of(kind))
    parsed = parse_frame(render_frame(message, message_id="msg_9", timestamp_ms=7), direction=direction)
    assert parsed.payload == message
    assert (parsed.id, parsed.type, parsed.timestamp_ms) == ("msg_9", kind.TYPE, 7)


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (Welcome(worknode_id="w", name="n"), {"worknode_id": "w", "name": "n", "labels": []}),
        (
            Heartbeat(worknode_id="w", name="n", labels=("a",), version="1", metrics=Metrics(cpu_percent=1.5)),
            {
                "worknode_id": "w",
                "name": "n",
                "labels": ["a"],
                "version": "1",
                "metrics": {"cpu_percent": 1.5, "memory_percent": 0.0, "disk_percent": 0.0},
            },
        ),
        (
            Heartbeat(environment=EnvironmentInfo(os="linux", num_cpu=2)),
            {
                "worknode_id": "",
                "name": "",
                "labels": [],
                "version": "",
                "environment": {"os": "linux", "num_cpu": 2},
            },
        ),
        (
            TaskRequest(task_id="t", operation="read", args={"path": "a"}, session_id="s"),
            {"task_id": "t", "operation": "read", "args": {"path": "a"}},
        ),
        (TaskCancel(task_id="t", reason="r"), {"task_id": "t"}),
        (
            TaskOutput(task_id="t", stream=Stream.STDERR, data="x", seq=1, offset=2),
            {"task_id": "t", "stream": "stderr", "data": "x"},
        ),
        (
            TaskResult(task_id="t", success=False, error="e", source_instance_id="i", error_code="c"),
            {"task_id": "t", "success": False, "error": "e", "source_instance_id": "i"},
        ),
        (
            McpCall(call_id="c", server=McpServer(name="s", transport="stdio"), tool_name="t", arguments={"a": 1}),
            {
                "call_id": "c",
                "server": {"name": "s", "transport": "stdio"},
                "tool_name": "t",
                "arguments": {"a": 1},
            },
        ),
    ],
    ids=lambda value: getattr(value, "TYPE", ""),
)
def test_plain_form(message: Message, payload: dict) -> None:
    """Towards a plain peer a message has exactly the fields of WIRE_PROTOCOL's table."""
    frame = json.loads(render_frame(as_plain(message), message_id="msg_1", timestamp_ms=1))
    assert frame == {"id": "msg_1", "type": message.TYPE, "payload": payload, "timestamp": 1}


def test_plain_types() -> None:
    """The plain protocol has the eight types of WIRE_PROTOCOL and no other."""
    plain = {kind.TYPE for kinds in TYPES.values() for kind in kinds.values() if is_plain(kind)}
    assert plain == {
        "welcome",
        "heartbeat",
        "task.request",
        "task.cancel",
        "task.output",
        "task.result",
        "mcp.call",
        "mcp.result",
    }


def test_null_is_absent() -> None:
    """Go writes null for an empty list, map or pointer; a known field that is null counts as absent."""
    frame = envelope("welcome", {"worknode_id": "w", "name": None, "labels": None})
    assert parse_frame(frame, direction=Direction.TO_RUNNER).payload == Welcome(worknode_id="w")
    frame = envelope(
        "mcp.call",
        {
            "call_id": "c",
            "server": {"name": "s", "transport": "stdio", "args": None},
            "tool_name": "t",
            "arguments": None,
        },
    )
    call = parse_frame(frame, direction=Direction.TO_RUNNER).payload
    assert isinstance(call, McpCall)
    assert call.server.args == ()


def test_null_inside_free_form_stays() -> None:
    """A null inside a tool's own arguments means what the tool says it means."""
    server = {"name": "s", "transport": "stdio"}
    frame = envelope("mcp.call", {"call_id": "c", "server": server, "tool_name": "t", "arguments": {"x": None}})
    call = parse_frame(frame, direction=Direction.TO_RUNNER).payload
    assert isinstance(call, McpCall)
    assert call.arguments == {"x": None}


def test_newer_peer() -> None:
    """A field that this version does not know is ignored, on every level."""
    frame = envelope("task.cancel", {"task_id": "t", "urgency": [1]}, v=2)
    assert parse_frame(frame, direction=Direction.TO_RUNNER).payload == TaskCancel(task_id="t")


@pytest.mark.parametrize("kind", ["task.pause", "heartbeat", "task.result", "runner.hello"])
def test_unknown_type(kind: str) -> None:
    """A type that is new, or that only the other side may send, is an `Unknown` and no error."""
    parsed = parse_frame(envelope(kind, {"anything": 1}), direction=Direction.TO_RUNNER)
    assert parsed.payload == Unknown(type=kind)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param("[]", "malformed", id="no object"),
        pytest.param('{"payload":{}}', "malformed", id="no type"),
        pytest.param('{"type":1}', "malformed", id="type is a number"),
        pytest.param('{"type":""}', "malformed", id="type is empty"),
        pytest.param('{"type":"welcome","timestamp":"1"}', "malformed", id="timestamp is text"),
        pytest.param('{"type":"welcome","timestamp":1.5}', "malformed", id="timestamp is a fraction"),
        pytest.param(envelope("welcome", []), "invalid_payload", id="payload is an array"),
        pytest.param(envelope("welcome", {"labels": "a"}), "invalid_payload", id="labels is text"),
        pytest.param(envelope("welcome", {"labels": [None]}), "invalid_payload", id="a label is null"),
        pytest.param(envelope("task.cancel", {}), "invalid_payload", id="no task_id"),
        pytest.param(envelope("task.cancel", {"task_id": ""}), "invalid_payload", id="empty task_id"),
        pytest.param(envelope("task.cancel", {"task_id": 7}), "invalid_payload", id="task_id is a number"),
        pytest.param(envelope("task.cancel", {"task_id": "a\n"}), "invalid_payload", id="newline in task_id"),
        pytest.param(envelope("task.cancel", {"task_id": "a" * 257}), "invalid_payload", id="long task_id"),
        pytest.param(envelope("task.request", {"task_id": "t"}), "invalid_payload", id="no operation"),
        pytest.param(
            envelope("welcome", {"labels": ["x"] * (limits.WIRE_LABELS_MAX + 1)}), "invalid_payload", id="labels"
        ),
    ],
)
def test_refused(frame: str, code: str) -> None:
    """A wrong envelope is malformed; a wrong payload says so, so that a plain session can carry on."""
    with pytest.raises(PeerError) as caught:
        parse_frame(frame, direction=Direction.TO_RUNNER)
    assert caught.value.code == code


def test_wrong_payload_names_its_task() -> None:
    """The error of a request that cannot be read says which task asked, so that it can be answered."""
    with pytest.raises(InvalidPayloadError) as caught:
        parse_frame(envelope("task.request", {"task_id": "t1", "operation": 5}), direction=Direction.TO_RUNNER)
    assert caught.value.reference == "t1"
    assert str(caught.value) == "invalid task.request: Expected `str`, got `int` - at `$.operation`"


def test_bad_args_do_not_break_the_frame() -> None:
    """Arguments of any JSON type pass the frame; only their task fails."""
    frame = envelope("task.request", {"task_id": "t", "operation": "read", "args": [1]})
    request = parse_frame(frame, direction=Direction.TO_RUNNER).payload
    assert isinstance(request, TaskRequest)
    assert request.args == [1]


def test_frame_too_large() -> None:
    """A message of ours over the limit is refused before it is sent, and says what to do."""
    output = TaskResult(task_id="t", success=True, result={"content": "x" * limits.MESSAGE_MAX_BYTES})
    with pytest.raises(FrameTooLarge, match="ask for less or for a part"):
        render_frame(output, message_id="m", timestamp_ms=1)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(TaskResult(task_id="t", success=True, result=[[0]] * 300_000), id="too many values"),
        pytest.param(TaskResult(task_id="t", success=True, result={"n": 2**70}), id="an integer beyond 64 bits"),
        pytest.param(TaskResult(task_id="t", success=True, result={"name": "\udc80"}), id="a lone surrogate"),
        pytest.param(TaskCancel(task_id="a\nb"), id="a control character in an id"),
        pytest.param(
            ApprovalRequest(approval_id="a", task_id="t", command="x", argv=("x",) * 8_193), id="too many words"
        ),
    ],
)
def test_unsendable(message: Message) -> None:
    """What the other side would refuse is refused here: resumption would send it, and be cut, for ever."""
    with pytest.raises(UnsendableMessage, match="cannot send"):
        render_frame(message, message_id="m", timestamp_ms=1)


def test_large_listing_is_sendable() -> None:
    """The twin: a listing of 100,000 files fits a frame in both counts."""
    entries = [{"path": f"dir/file-{n}", "is_dir": False, "size": n} for n in range(100_000)]
    frame = render_frame(
        TaskResult(task_id="t", success=True, result={"entries": entries}), message_id="m", timestamp_ms=1
    )
    parse_frame(frame, direction=Direction.TO_HUB)


def test_peer_text_in_errors_is_short_and_printable() -> None:
    """An error quotes a peer's value only in part and without control characters."""
    frame = envelope("task.output", {"task_id": "t", "stream": "\x1b[31m\n" + "A" * 100_000})
    with pytest.raises(PeerError) as caught:
        parse_frame(frame, direction=Direction.TO_HUB)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@settings(deadline=None, max_examples=25)
@given(st.binary() | st.text())
def test_any_bytes_parse_or_raise(data: bytes | str) -> None:
    """Any bytes and any text parse or raise PeerError; other errors escape and fail."""
    for direction in Direction:
        with contextlib.suppress(PeerError):
            parse_frame(data, direction=direction)


@pytest.mark.parametrize(
    ("code", "number"),
    [("oversized", 1009), ("malformed", 1007), ("idle", 1001), ("protocol", 1008), ("invalid_payload", 1008)],
)
def test_close_codes(code: str, number: int) -> None:
    """Each kind of broken rule has its WebSocket close code."""
    assert close_code(PeerError("x", code=code)) == number


def test_close_reason_fits() -> None:
    """A close reason fits a control frame and is cut on a character."""
    reason = close_reason(PeerError("é" * 100))
    assert len(reason.encode()) <= 123
    assert set(reason) == {"é"}


def test_every_message_is_documented() -> None:
    """docs/wire_protocol.md has a section for every type, and names every field of it."""
    text = Path(__file__, "../../../docs/wire_protocol.md").resolve().read_text()
    for kinds in TYPES.values():
        for kind in kinds.values():
            assert f"`{kind.TYPE}`" in text
            for field in msgspec.structs.fields(kind):
                assert f"`{field.encode_name}`" in text, f"{kind.TYPE}: {field.encode_name}"
