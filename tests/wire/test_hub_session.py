"""The hub's side as scripts: what it hears, what it must say, in order, against a clock that the test moves."""

import pytest
from tests.wire.world import V1, frame

from guardhouse.errors import InvariantError, PeerError, Refusal
from guardhouse.values import Stream, Verdict
from guardhouse.wire.messages import (
    Heartbeat,
    McpCall,
    McpResult,
    McpServer,
    Message,
    TaskCancel,
    TaskOutput,
    TaskRequest,
    TaskResult,
    Welcome,
)
from guardhouse.wire.messages_v1 import (
    ApprovalDecision,
    ApprovalRequest,
    Disposition,
    HeldTask,
    HubGoodbye,
    OutputAck,
    PolicyReport,
    RejectCode,
    ResultAck,
    ResumedTask,
    RunnerDraining,
    RunnerGoodbye,
    RunnerHello,
    RunnerResume,
    TaskAccepted,
    TaskCancelAck,
    TaskRejected,
    TaskState,
)
from guardhouse.wire.session import (
    HeartbeatReceived,
    HubSession,
    OutputGap,
    OutputReceived,
    ResultReceived,
    StoredState,
    StoredTask,
    TaskLost,
    TaskNotArrived,
    Warned,
    WentOffline,
)

WELCOME = Welcome(worknode_id="env_1", name="web-1", output_window_bytes=100)
HELLO = RunnerHello(memory_id="mem")
BASH = TaskRequest(task_id="t1", operation="bash", args={"command": "id"}, session_id="s1")
RUNNING = StoredTask(StoredState.RUNNING, memory_id="mem")


def start(subprotocol: str | None = V1, **stored: StoredTask) -> HubSession:
    """Return a ready session of a runner that holds every stored task."""
    session = HubSession(welcome=WELCOME, subprotocol=subprotocol, now_s=0.0)
    if subprotocol:
        held = tuple(HeldTask(task_id=task_id, state=TaskState.RUNNING, stdout_next=50) for task_id in stored)
        hear(session, RunnerHello(memory_id="mem", tasks=held))
        session.resume(stored)
    else:
        session.adopt(stored)
    session.take_messages()
    return session


def hear(session: HubSession, *messages: Message, now_s: float = 0.0) -> list:
    return [event for message in messages for event in session.received(frame(message), now_s)]


def out(data: str, *, seq: int | None = 0, offset: int | None = 0, task_id: str = "t1") -> TaskOutput:
    return TaskOutput(task_id=task_id, stream=Stream.STDOUT, data=data, seq=seq, offset=offset)


# Opening and presence.


def test_v1_opening() -> None:
    """The welcome goes first; nothing may be asked before hello and resume."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    assert session.take_messages() == [WELCOME]
    with pytest.raises(Refusal, match="not ready yet"):
        session.request(BASH)
    assert hear(session, HELLO) == [HELLO]
    assert not session.is_ready
    assert session.resume({}) == []
    assert session.take_messages() == [RunnerResume()]
    session.request(BASH)
    assert session.take_messages() == [BASH]


def test_plain_opening() -> None:
    """A plain runner gets the plain welcome, may be asked at once, and sees no field of v1."""
    session = HubSession(welcome=WELCOME, subprotocol=None, now_s=0.0)
    session.request(BASH)
    assert session.take_messages() == [
        Welcome(worknode_id="env_1", name="web-1"),
        TaskRequest(task_id="t1", operation="bash", args={"command": "id"}),
    ]


def test_hello_missing() -> None:
    """Under v1 a runner that says no hello within 5 s is closed; with it, it is not."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    assert session.deadline_s == 5.0
    with pytest.raises(PeerError, match=r"no runner\.hello within 5 s"):
        session.tick(5.0)
    assert start().tick(5.0) == []


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param([Heartbeat()], id="heartbeat before hello"),
        pytest.param([HELLO, HELLO], id="two hellos"),
        pytest.param(
            [RunnerHello(memory_id="m", tasks=(HeldTask(task_id="t", state=TaskState.RUNNING),) * 2)],
            id="one task twice in the hello",
        ),
        pytest.param(
            [RunnerHello(memory_id="m", tasks=(HeldTask(task_id="t", state=TaskState.RUNNING, stdout_first=1),))],
            id="a stream that begins after its end",
        ),
    ],
)
def test_v1_order(heard: list[Message]) -> None:
    """A message out of its order ends the connection."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    with pytest.raises(PeerError) as caught:
        hear(session, *heard)
    assert caught.value.code == "protocol"


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_presence(subprotocol: str | None) -> None:
    """Offline 90 s after the last heartbeat, said once; the next heartbeat ends it; silence of 60 s closes."""
    session = start(subprotocol)
    beat = Heartbeat(version="1")
    assert hear(session, beat, now_s=10.0) == [HeartbeatReceived(beat, first=True)]
    assert hear(session, beat, now_s=20.0) == [HeartbeatReceived(beat, first=False)]
    for now_s in (60.0, 109.9):
        session.traffic(now_s)
        assert session.tick(now_s) == []
    assert session.tick(110.0) == [WentOffline()]
    assert session.tick(111.0) == []
    hear(session, beat, now_s=112.0)
    assert not session.is_offline
    with pytest.raises(PeerError) as caught:
        session.tick(172.0)
    assert caught.value.code == "idle"


# Output and results.


def test_v1_output_is_stored_and_acknowledged() -> None:
    """New bytes are an event; they are acknowledged once a quarter of the window is stored, or when asked."""
    session = start(t1=RUNNING)
    assert hear(session, out("x" * 20)) == [OutputReceived("t1", Stream.STDOUT, 0, b"x" * 20, 0)]
    session.output_stored("t1", Stream.STDOUT, 20)
    assert session.take_messages() == []
    hear(session, out("y" * 5, seq=1, offset=20))
    session.output_stored("t1", Stream.STDOUT, 25)
    assert session.take_messages() == [OutputAck(task_id="t1", stdout_offset=25)]
    hear(session, out("z", seq=2, offset=25))
    session.output_stored("t1", Stream.STDOUT, 26)
    session.acknowledge_output("t1")
    assert session.take_messages() == [OutputAck(task_id="t1", stdout_offset=26)]


def test_v1_repeated_bytes_are_dropped() -> None:
    """A piece that was sent again is taken from where it is new."""
    session = start(t1=StoredTask(StoredState.RUNNING, stdout_offset=4, memory_id="mem"))
    assert hear(session, out("abc")) == []
    assert hear(session, out("cdef", offset=2, seq=1)) == [OutputReceived("t1", Stream.STDOUT, 4, b"ef", 1)]


def test_plain_output_is_counted() -> None:
    """A plain runner's output has no offsets; the hub counts them, from what is stored."""
    session = start(None, t1=StoredTask(StoredState.RUNNING, stdout_offset=3))
    first, second = hear(session, out("é", seq=None, offset=None), out("b", seq=None, offset=None))
    assert first == OutputReceived("t1", Stream.STDOUT, 3, "é".encode())
    assert second == OutputReceived("t1", Stream.STDOUT, 5, b"b")
    assert second.end == 6
    session.output_stored("t1", Stream.STDOUT, 6)
    session.acknowledge_output("t1")
    assert session.take_messages() == []


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        pytest.param([out("x", offset=1)], "protocol", id="a gap"),
        pytest.param([out("x", offset=None)], "protocol", id="no offset"),
        pytest.param([out("x", seq=None)], "protocol", id="no seq"),
        pytest.param([out("x" * 101)], "protocol", id="over the window"),
        pytest.param([TaskResult(task_id="t1", success=True), out("x")], "protocol", id="output after the result"),
        pytest.param([out("x", task_id="t2")], "foreign_task", id="output of another's task"),
        pytest.param([TaskResult(task_id="t2", success=True)], "foreign_task", id="result of another's task"),
        pytest.param(
            [ApprovalRequest(approval_id="a", task_id="t2", command="x")],
            "foreign_task",
            id="approval of another's task",
        ),
    ],
)
def test_v1_rules(messages: list[Message], code: str) -> None:
    """A runner that breaks a rule of output, results or approvals is closed."""
    with pytest.raises(PeerError) as caught:
        hear(start(t1=RUNNING), *messages)
    assert caught.value.code == code


def test_window_is_exact() -> None:
    """The twin of 'over the window': exactly the window passes."""
    assert len(hear(start(t1=RUNNING), out("x" * 100))) == 1


@pytest.mark.parametrize(
    "messages",
    [
        [out("x", task_id="t2")],
        [TaskResult(task_id="t2", success=True)],
        [TaskResult(task_id="t1", success=True), out("x")],
    ],
)
def test_plain_rules(messages: list[Message]) -> None:
    """From a plain runner the same is a warning and is not taken."""
    assert isinstance(hear(start(None, t1=RUNNING), *messages)[-1], Warned)


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_one_result(subprotocol: str | None) -> None:
    """A task has one result: a second is not taken, before or after the first was stored."""
    session = start(subprotocol, t1=RUNNING)
    result = TaskResult(task_id="t1", success=True)
    assert hear(session, result) == [ResultReceived(result)]
    assert hear(session, result) == []
    session.result_stored("t1")
    acks = [ResultAck(task_id="t1")] if subprotocol else []
    assert session.take_messages() == acks
    assert hear(session, result) == []
    assert session.take_messages() == acks


def test_incomplete_output_is_noticed() -> None:
    """A result that counts more bytes than arrived says so."""
    (event,) = hear(start(t1=RUNNING), TaskResult(task_id="t1", success=True, stdout_bytes=5, stderr_bytes=0))
    assert not event.complete
    session = start(t1=RUNNING)
    hear(session, out("12345"))
    (event,) = hear(session, TaskResult(task_id="t1", success=True, stdout_bytes=5, stderr_bytes=0))
    assert event.complete


def test_stored_more_than_received_is_ours_to_mend() -> None:
    """The store cannot have more than arrived."""
    session = start(t1=RUNNING)
    with pytest.raises(InvariantError):
        session.output_stored("t1", Stream.STDOUT, 1)
    session.output_stored("gone", Stream.STDOUT, 1)


# Resumption.


@pytest.mark.parametrize(
    ("stored", "disposition"),
    [
        (StoredTask(StoredState.REQUESTED), Disposition.CONTINUE),
        (StoredTask(StoredState.RUNNING), Disposition.CONTINUE),
        (StoredTask(StoredState.CANCELLING), Disposition.CANCEL),
        (StoredTask(StoredState.FINISHED), Disposition.STORED),
        (None, Disposition.UNKNOWN),
    ],
)
def test_disposition(stored: StoredTask | None, disposition: Disposition) -> None:
    """What the store says of a held task decides what the runner does with it."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    hear(session, RunnerHello(memory_id="m", tasks=(HeldTask(task_id="t1", state=TaskState.RUNNING),)))
    session.resume({"t1": stored} if stored else {})
    assert session.take_messages()[1] == RunnerResume(tasks=(ResumedTask(task_id="t1", disposition=disposition),))


@pytest.mark.parametrize(
    ("state", "memory_id", "event"),
    [
        (StoredState.REQUESTED, "mem", TaskNotArrived("t1")),
        (StoredState.REQUESTED, "older", TaskLost("t1")),
        (StoredState.REQUESTED, None, TaskLost("t1")),
        (StoredState.RUNNING, "mem", TaskLost("t1")),
        (StoredState.CANCELLING, "mem", TaskNotArrived("t1")),
        (StoredState.CANCELLING, "older", TaskLost("t1")),
    ],
)
def test_task_that_the_runner_does_not_hold(state: StoredState, memory_id: str | None, event: object) -> None:
    """Only an unaccepted request under the same memory may be sent again; everything else is lost, once."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    hear(session, HELLO)
    assert session.resume({"t1": StoredTask(state, memory_id=memory_id)}) == [event]


def test_gap_after_lost_store() -> None:
    """A hub that has less than the runner can send again says which bytes are gone, and goes on after them."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    held = HeldTask(task_id="t1", state=TaskState.RUNNING, stdout_first=9, stdout_next=20)
    hear(session, RunnerHello(memory_id="mem", tasks=(held,)))
    events = session.resume({"t1": StoredTask(StoredState.RUNNING, stdout_offset=4)})
    assert events == [OutputGap("t1", Stream.STDOUT, 4, 9)]
    (piece,) = hear(session, out("x", offset=9, seq=3))
    assert piece.offset == 9


def test_held_output_may_exceed_a_smaller_window() -> None:
    """What a runner held under an earlier, larger window is taken."""
    session = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    held = HeldTask(task_id="t1", state=TaskState.RUNNING, stdout_next=300)
    hear(session, RunnerHello(memory_id="mem", tasks=(held,)))
    session.resume({"t1": RUNNING})
    assert len(hear(session, out("x" * 300))) == 1
    with pytest.raises(PeerError):
        hear(session, out("x", offset=300, seq=1))


def test_plain_cancel_is_repeated() -> None:
    """A plain runner that comes back is told again of a cancel that it may have missed."""
    session = HubSession(welcome=WELCOME, subprotocol=None, now_s=0.0)
    session.adopt({"t1": StoredTask(StoredState.CANCELLING), "t2": StoredTask(StoredState.FINISHED)})
    assert session.take_messages()[1:] == [TaskCancel(task_id="t1")]


# The rest.


def test_request_twice_is_ours_to_mend() -> None:
    """The hub never gives one task to a runner twice on a connection."""
    session = start()
    session.request(BASH)
    with pytest.raises(InvariantError):
        session.request(BASH)


def test_rejected_task_may_go_again() -> None:
    """A rejected task is not this runner's any more; an acceptance or rejection of a foreign one is nothing."""
    session = start()
    session.request(BASH)
    accepted = TaskAccepted(task_id="t1")
    assert hear(session, accepted) == [accepted]
    rejected = TaskRejected(task_id="t1", code=RejectCode.BUSY)
    assert hear(session, rejected) == [rejected]
    assert hear(session, rejected, accepted) == []
    session.request(BASH)


def test_draining_runner_is_not_asked() -> None:
    """A runner that said it drains gets no new task, by message or in its hello."""
    session = start()
    draining = RunnerDraining(reason="SIGTERM")
    assert hear(session, draining) == [draining]
    with pytest.raises(Refusal, match="draining"):
        session.request(BASH)
    again = HubSession(welcome=WELCOME, subprotocol=V1, now_s=0.0)
    hear(again, RunnerHello(memory_id="m", draining=True))
    assert again.is_draining


def test_handed_on() -> None:
    """What only the hub's programs care about is handed on as it is."""
    session = start(t1=RUNNING)
    messages = [
        TaskCancelAck(task_id="t9", state=TaskState.UNKNOWN),
        PolicyReport(policy_name="p"),
        ApprovalRequest(approval_id="a", task_id="t1", command="x"),
        McpResult(call_id="c", success=True),
        RunnerGoodbye(reason="stopped"),
    ]
    assert hear(session, *messages) == messages


def test_said() -> None:
    """Cancel, call, decision and goodbye become messages, in order; the goodbye is of v1 only."""
    session = start(t1=RUNNING)
    call = McpCall(call_id="c", server=McpServer(name="s", transport="sse"), tool_name="t")
    decision = ApprovalDecision(approval_id="a", verdict=Verdict.DENY)
    session.cancel("t1", reason="user")
    session.call(call)
    session.decide(decision)
    session.say_goodbye(reason="upgrade", reconnect_after_s=2.0)
    assert session.take_messages() == [
        TaskCancel(task_id="t1", reason="user"),
        call,
        decision,
        HubGoodbye(reason="upgrade", reconnect_after_s=2.0),
    ]
    plain = start(None)
    plain.say_goodbye()
    assert plain.take_messages() == []


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_unknown_type_is_a_warning(subprotocol: str | None) -> None:
    """A message type that this version does not know is a warning in either dialect."""
    (event,) = start(subprotocol).received('{"type":"task.progress","payload":{}}', 0.0)
    assert isinstance(event, Warned)


def test_bad_payload() -> None:
    """A badly typed payload is a warning from a plain runner and the end under v1."""
    bad = '{"type":"task.result","payload":{"task_id":"t1"}}'
    (event,) = start(None, t1=RUNNING).received(bad, 0.0)
    assert isinstance(event, Warned)
    with pytest.raises(PeerError):
        start(t1=RUNNING).received(bad, 0.0)


def test_unknown_subprotocol_is_ours_to_mend() -> None:
    """The gateway chooses only what a session can speak."""
    with pytest.raises(InvariantError):
        HubSession(welcome=WELCOME, subprotocol="v9", now_s=0.0)
    with pytest.raises(InvariantError):
        start().resume({})
