"""The runner's side as scripts: what it hears, what it must say, in order, against a clock that the test moves."""

import pytest
from tests.wire.world import V1, frame

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError
from guardhouse.values import Stream, Verdict
from guardhouse.wire.messages import (
    EnvironmentInfo,
    Heartbeat,
    McpCall,
    McpResult,
    McpServer,
    Message,
    Metrics,
    TaskCancel,
    TaskOutput,
    TaskRequest,
    TaskResult,
    Welcome,
)
from guardhouse.wire.messages_v1 import (
    ApprovalDecision,
    ApprovalRequest,
    ApprovalWithdrawn,
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
    DuplicateRequest,
    HeartbeatDue,
    OutputRoom,
    ResultAcknowledged,
    Resumed,
    RunnerSession,
    Warned,
    WelcomeMissing,
)

WELCOME = Welcome(worknode_id="env_1", name="web-1", labels=("linux",), output_window_bytes=100)
BASH = TaskRequest(task_id="t1", operation="bash", args={"command": "id"}, source_instance_id="node-2")
DONE = TaskResult(task_id="t1", success=True, exit_code=0)


def start(subprotocol: str | None = V1) -> RunnerSession:
    """Return a session that is ready at 0 s and has said its first heartbeat."""
    session = RunnerSession(memory_id="mem", version="1.0", name="host", labels=("own",))
    session.connected(0.0, subprotocol=subprotocol)
    hear(session, WELCOME)
    if subprotocol:
        hear(session, RunnerResume())
    session.take_messages()
    session.flushed()
    return session


def hear(session: RunnerSession, *messages: Message, now_s: float = 0.0) -> list:
    return [event for message in messages for event in session.received(frame(message), now_s)]


def running(subprotocol: str | None = V1) -> RunnerSession:
    """Return a session with the task t1 accepted."""
    session = start(subprotocol)
    hear(session, BASH)
    session.accept("t1")
    session.take_messages()
    session.flushed()
    return session


def reconnect(session: RunnerSession, *resumed: ResumedTask, subprotocol: str | None = V1) -> list:
    """Cut and come back; return the events of the resumption."""
    session.disconnected()
    session.connected(50.0, subprotocol=subprotocol)
    events = hear(session, WELCOME, now_s=50.0)
    if subprotocol:
        session.take_messages()
        events += hear(session, RunnerResume(tasks=resumed), now_s=50.0)
    return events


# Opening, heartbeat and time.


def test_v1_opening() -> None:
    """Under v1: hello after the welcome, heartbeat after the resume, then one every 30 s."""
    session = RunnerSession(memory_id="mem", version="1.0")
    session.connected(0.0, subprotocol=V1)
    assert session.take_messages() == []
    assert hear(session, WELCOME) == [WELCOME]
    assert session.take_messages() == [RunnerHello(memory_id="mem", version="1.0")]
    assert not session.is_ready
    assert hear(session, RunnerResume()) == [Resumed(), HeartbeatDue(first=True)]
    session.heartbeat(metrics=Metrics(cpu_percent=5), environment=EnvironmentInfo(os="linux"), tasks_waiting=2)
    assert session.take_messages() == [
        Heartbeat(
            worknode_id="env_1",
            name="web-1",
            labels=("linux",),
            version="1.0",
            environment=EnvironmentInfo(os="linux"),
            metrics=Metrics(cpu_percent=5),
            tasks_running=0,
            tasks_waiting=2,
            draining=False,
        )
    ]
    assert session.tick(29.9) == []
    assert session.tick(30.0) == [HeartbeatDue(first=False)]
    assert session.tick(30.1) == []


def test_plain_opening() -> None:
    """On the plain protocol the heartbeat follows the welcome at once and has no field of v1."""
    session = RunnerSession(memory_id="mem", version="1.0")
    session.connected(0.0, subprotocol=None)
    welcome = Welcome(worknode_id="env_1", name="web-1")
    assert hear(session, welcome) == [welcome, Resumed(), HeartbeatDue(first=True)]
    session.heartbeat(metrics=None, tasks_waiting=2)
    assert session.take_messages() == [Heartbeat(worknode_id="env_1", name="web-1", version="1.0")]


def test_plain_welcome_missing() -> None:
    """A plain platform that sends no welcome within 5 s is warned about and served; a late welcome still counts."""
    session = RunnerSession(memory_id="mem", version="1.0", name="host", labels=("own",))
    session.connected(0.0, subprotocol=None)
    assert session.deadline_s == limits.WELCOME_TIMEOUT_S
    assert session.tick(4.9) == []
    assert session.tick(5.0) == [WelcomeMissing(), Resumed(), HeartbeatDue(first=True)]
    session.heartbeat(metrics=None)
    assert session.take_messages() == [Heartbeat(name="host", labels=("own",), version="1.0")]
    assert hear(session, WELCOME) == [WELCOME]
    assert [type(event) for event in hear(session, WELCOME)] == [Warned]


def test_plain_request_before_welcome() -> None:
    """A plain platform that begins with a request is served at once."""
    session = RunnerSession(memory_id="mem", version="1.0")
    session.connected(0.0, subprotocol=None)
    assert hear(session, BASH) == [WelcomeMissing(), Resumed(), HeartbeatDue(first=True), BASH]


@pytest.mark.parametrize("heard", [[], [WELCOME]], ids=["welcome", "runner.resume"])
def test_v1_opening_missing(heard: list[Message]) -> None:
    """Under v1 a missing welcome or resume ends the connection: nothing could be resumed."""
    session = RunnerSession(memory_id="mem", version="1.0")
    session.connected(0.0, subprotocol=V1)
    hear(session, *heard)
    missing = "runner.resume" if heard else "welcome"
    with pytest.raises(PeerError, match=f"no {missing} within 5 s"):
        session.tick(5.0)


@pytest.mark.parametrize(
    ("heard", "broken"),
    [
        pytest.param([], BASH, id="a request first"),
        pytest.param([], RunnerResume(), id="resume before welcome"),
        pytest.param([WELCOME], BASH, id="a request before resume"),
        pytest.param([WELCOME], WELCOME, id="two welcomes"),
        pytest.param([WELCOME, RunnerResume()], RunnerResume(), id="two resumes"),
    ],
)
def test_v1_order(heard: list[Message], broken: Message) -> None:
    """Under v1 a message out of its order ends the connection."""
    session = RunnerSession(memory_id="mem", version="1.0")
    session.connected(0.0, subprotocol=V1)
    hear(session, *heard)
    with pytest.raises(PeerError) as caught:
        hear(session, broken)
    assert caught.value.code == "protocol"


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_idle(subprotocol: str | None) -> None:
    """After 60 s of silence the connection is dead; any traffic moves that."""
    session = start(subprotocol)
    session.traffic(40.0)
    session.tick(99.9)
    with pytest.raises(PeerError, match="nothing heard for 60 s"):
        session.tick(100.0)


def test_unknown_subprotocol() -> None:
    """A subprotocol that was not offered is refused."""
    with pytest.raises(PeerError, match="unknown subprotocol 'v9'"):
        RunnerSession(memory_id="m", version="1").connected(0.0, subprotocol="v9")


def test_no_deadline_without_connection() -> None:
    """While there is no connection time asks for nothing."""
    session = start()
    session.disconnected()
    assert session.deadline_s == float("inf")
    assert session.tick(1e9) == []


# One task.


def test_v1_life_of_a_task() -> None:
    """Accepted, output numbered over both streams, result kept until it is acknowledged."""
    session = start()
    assert hear(session, BASH) == [BASH]
    session.accept("t1")
    session.output("t1", Stream.STDOUT, b"one")
    session.output("t1", Stream.STDERR, b"\xff")
    session.output("t1", Stream.STDOUT, b"two")
    assert session.finish(DONE) == []
    result = TaskResult(
        task_id="t1", success=True, exit_code=0, source_instance_id="node-2", stdout_bytes=6, stderr_bytes=1
    )
    assert session.take_messages() == [
        TaskAccepted(task_id="t1"),
        TaskOutput(task_id="t1", stream=Stream.STDOUT, data="one", seq=0, offset=0),
        TaskOutput(task_id="t1", stream=Stream.STDERR, data_b64=b"\xff", seq=1, offset=0),
        TaskOutput(task_id="t1", stream=Stream.STDOUT, data="two", seq=2, offset=3),
        result,
    ]
    assert session.flushed() == []
    assert session.unsent == 1
    assert hear(session, ResultAck(task_id="t1")) == [ResultAcknowledged("t1")]
    assert session.unsent == 0
    assert hear(session, ResultAck(task_id="t1")) == []


def test_plain_life_of_a_task() -> None:
    """No acceptance, text output with characters whole, and the result is over once it was written."""
    session = start(None)
    assert hear(session, BASH) == [BASH]
    session.accept("t1")
    session.output("t1", Stream.STDOUT, "é".encode()[:1])
    session.output("t1", Stream.STDOUT, "é".encode()[1:] + b"\xff")
    session.output("t1", Stream.STDOUT, b"\xe2\x82")
    session.finish(DONE)
    assert session.take_messages() == [
        TaskOutput(task_id="t1", stream=Stream.STDOUT, data="é\ufffd"),
        TaskOutput(task_id="t1", stream=Stream.STDOUT, data="\ufffd"),
        TaskResult(task_id="t1", success=True, exit_code=0, source_instance_id="node-2"),
    ]
    assert session.flushed() == [ResultAcknowledged("t1")]


def test_large_output_is_cut_into_pieces() -> None:
    """One piece holds at most 64 KiB."""
    session = start()
    session.received(frame(BASH), 0.0)
    session.disconnected()
    session.connected(0.0, subprotocol=V1)
    hear(session, Welcome())
    hear(session, RunnerResume(tasks=(ResumedTask(task_id="t1", disposition=Disposition.CONTINUE),)))
    session.take_messages()
    session.output("t1", Stream.STDOUT, b"x" * (limits.OUTPUT_CHUNK_MAX_BYTES + 1))
    sizes = [len(piece.raw) for piece in session.take_messages() if isinstance(piece, TaskOutput)]
    assert sizes == [limits.OUTPUT_CHUNK_MAX_BYTES, 1]


def test_credit() -> None:
    """Each stream has its own window; acknowledgement gives room back; more than the room is our own defect."""
    session = running()
    session.output("t1", Stream.STDOUT, b"x" * 100)
    assert session.output_room("t1", Stream.STDOUT) == 0
    assert session.output_room("t1", Stream.STDERR) == 100
    with pytest.raises(InvariantError):
        session.output("t1", Stream.STDOUT, b"x")
    assert hear(session, OutputAck(task_id="t1", stdout_offset=60)) == [OutputRoom("t1")]
    assert session.output_room("t1", Stream.STDOUT) == 60
    assert hear(session, OutputAck(task_id="t1", stdout_offset=30)) == []
    assert hear(session, OutputAck(task_id="t9", stdout_offset=30)) == []


def test_plain_credit() -> None:
    """On the plain protocol the socket gives the credit: what is queued and not written counts."""
    session = running(None)
    session.output("t1", Stream.STDOUT, b"x" * limits.OUTPUT_WINDOW_BYTES)
    assert session.output_room("t1", Stream.STDOUT) == 0
    session.take_messages()
    assert session.output_room("t1", Stream.STDOUT) == 0
    assert session.flushed() == [OutputRoom("t1")]
    assert session.output_room("t1", Stream.STDOUT) == limits.OUTPUT_WINDOW_BYTES


@pytest.mark.parametrize(
    "broken",
    [OutputAck(task_id="t1", stdout_offset=1), ResultAck(task_id="t1")],
    ids=["output that was not sent", "a result that was not sent"],
)
def test_acknowledged_too_much(broken: Message) -> None:
    """An acknowledgement of what was never sent ends the connection."""
    with pytest.raises(PeerError) as caught:
        hear(running(), broken)
    assert caught.value.code == "protocol"


def test_second_result_is_ours_to_mend() -> None:
    """A second result for a task, output after it, or a result of a task that is not here are defects of ours."""
    session = running()
    session.finish(DONE)
    with pytest.raises(InvariantError):
        session.finish(DONE)
    with pytest.raises(InvariantError):
        session.output("t1", Stream.STDOUT, b"x")
    with pytest.raises(InvariantError):
        session.finish(TaskResult(task_id="t2", success=True))


# Requests that come again.


def test_v1_repeated_request() -> None:
    """A repeated request is answered from memory in every state, and never starts anything."""
    session = running()
    assert hear(session, BASH) == [DuplicateRequest("t1", TaskState.RUNNING)]
    assert session.take_messages() == [TaskAccepted(task_id="t1", state=TaskState.RUNNING)]
    session.finish(DONE)
    (result,) = session.take_messages()
    assert hear(session, BASH) == [DuplicateRequest("t1", TaskState.FINISHED)]
    assert session.take_messages() == [TaskAccepted(task_id="t1", state=TaskState.FINISHED), result]
    hear(session, ResultAck(task_id="t1"))
    assert hear(session, BASH) == [DuplicateRequest("t1", TaskState.FORGOTTEN)]
    (rejected,) = session.take_messages()
    assert isinstance(rejected, TaskRejected)
    assert rejected.code is RejectCode.FORGOTTEN


def test_plain_repeated_request() -> None:
    """On the plain protocol a repeat is ignored while the task runs, and gets the remembered result after."""
    session = running(None)
    assert hear(session, BASH) == [DuplicateRequest("t1", TaskState.RUNNING)]
    assert session.take_messages() == []
    session.finish(DONE)
    (result,) = session.take_messages()
    session.flushed()
    assert hear(session, BASH) == [DuplicateRequest("t1", TaskState.FORGOTTEN)]
    assert session.take_messages() == [result]


def test_plain_results_remembered_are_bounded() -> None:
    """Only the last results are kept; an older repeat is told that it ran before, and still starts nothing."""
    session = start(None)
    for number in range(limits.PLAIN_RESULTS_REMEMBERED + 1):
        request = TaskRequest(task_id=f"n{number}", operation="bash")
        hear(session, request)
        session.finish(TaskResult(task_id=f"n{number}", success=True))
        session.take_messages()
        session.flushed()
    assert hear(session, TaskRequest(task_id="n0", operation="bash")) == [DuplicateRequest("n0", TaskState.FORGOTTEN)]
    (answer,) = session.take_messages()
    assert isinstance(answer, TaskResult)
    assert answer.error is not None
    assert answer.error.startswith("task n0 ran before")


def test_ids_remembered_are_bounded() -> None:
    """The memory of ids does not grow for ever."""
    session = start()
    for number in range(limits.FINISHED_TASKS_REMEMBERED + 1):
        session.restore_forgotten(f"n{number}")
    assert session.state("n0") is TaskState.UNKNOWN
    assert session.state("n1") is TaskState.FORGOTTEN


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_rejected_request_may_come_again(subprotocol: str | None) -> None:
    """A request that the runner rejected started nothing, so the same id may be asked for later."""
    session = start(subprotocol)
    hear(session, BASH)
    session.reject("t1", RejectCode.BUSY, "runner is busy")
    expected = (
        TaskRejected(task_id="t1", code=RejectCode.BUSY, error="runner is busy")
        if subprotocol
        else TaskResult(task_id="t1", success=False, error="runner is busy", source_instance_id="node-2")
    )
    assert session.take_messages() == [expected]
    assert hear(session, BASH) == [BASH]


# Cancel, drain, goodbye.


@pytest.mark.parametrize(
    ("task_id", "state", "events"),
    [("t1", TaskState.RUNNING, [TaskCancel(task_id="t1")]), ("t9", TaskState.UNKNOWN, [])],
)
def test_v1_cancel(task_id: str, state: TaskState, events: list) -> None:
    """Under v1 every cancel is answered with the task's state, known or not."""
    session = running()
    assert hear(session, TaskCancel(task_id=task_id)) == events
    assert session.take_messages() == [TaskCancelAck(task_id=task_id, state=state)]


def test_plain_cancel() -> None:
    """On the plain protocol an unknown id is ignored silently; a known one is an event and no answer."""
    session = running(None)
    assert hear(session, TaskCancel(task_id="t9")) == []
    assert hear(session, TaskCancel(task_id="t1")) == [TaskCancel(task_id="t1")]
    assert session.take_messages() == []


def test_v1_drain() -> None:
    """A draining runner says so, rejects new tasks, finishes running ones and says goodbye."""
    session = running()
    session.start_drain(reason="SIGTERM", deadline_s=30.0)
    assert hear(session, TaskRequest(task_id="t2", operation="bash")) == []
    session.finish(DONE)
    session.say_goodbye("stopped")
    said = session.take_messages()
    assert said[0] == RunnerDraining(reason="SIGTERM", deadline_s=30.0)
    assert isinstance(said[1], TaskRejected)
    assert said[1].code is RejectCode.DRAINING
    assert isinstance(said[2], TaskResult)
    assert said[3] == RunnerGoodbye(reason="stopped")
    assert hear(session, BASH) == [DuplicateRequest("t1", TaskState.FINISHED)]


def test_plain_drain() -> None:
    """A plain platform is told by the failed task; there is no drain message and no goodbye."""
    session = start(None)
    session.start_drain()
    assert hear(session, BASH) == []
    session.say_goodbye()
    (answer,) = session.take_messages()
    assert isinstance(answer, TaskResult)
    assert answer.error is not None
    assert answer.error.startswith("runner is draining")


def test_hub_goodbye() -> None:
    """The hub's goodbye is handed on, also before the resumption."""
    session = RunnerSession(memory_id="m", version="1")
    session.connected(0.0, subprotocol=V1)
    goodbye = HubGoodbye(reason="upgrade", reconnect_after_s=3.0)
    assert hear(session, goodbye) == [goodbye]


# Cuts.


def test_hello_names_what_is_held() -> None:
    """The hello names every task that is not acknowledged, with what can be sent again."""
    session = running()
    session.output("t1", Stream.STDOUT, b"abcdef")
    hear(session, OutputAck(task_id="t1", stdout_offset=2))
    session.restore(TaskResult(task_id="t0", success=False, error="interrupted"))
    session.disconnected()
    session.output("t1", Stream.STDERR, b"x")
    session.connected(1.0, subprotocol=V1)
    hear(session, WELCOME)
    assert session.take_messages() == [
        RunnerHello(
            memory_id="mem",
            version="1.0",
            tasks=(
                HeldTask(task_id="t1", state=TaskState.RUNNING, stdout_first=2, stdout_next=6, stderr_next=1),
                HeldTask(task_id="t0", state=TaskState.FINISHED),
            ),
        )
    ]


def test_resume_sends_what_the_hub_lacks() -> None:
    """After a cut only output beyond the hub's offsets goes again, in order, and then the result."""
    session = running()
    session.output("t1", Stream.STDOUT, b"one")
    session.output("t1", Stream.STDERR, b"err")
    session.disconnected()
    session.output("t1", Stream.STDOUT, b"two")
    session.finish(DONE)
    assert session.take_messages() == []
    continued = ResumedTask(task_id="t1", disposition=Disposition.CONTINUE, stdout_offset=3)
    reconnect(session, continued)
    said = session.take_messages()
    assert said[:2] == [
        TaskOutput(task_id="t1", stream=Stream.STDERR, data="err", seq=1, offset=0),
        TaskOutput(task_id="t1", stream=Stream.STDOUT, data="two", seq=2, offset=3),
    ]
    assert isinstance(said[2], TaskResult)


@pytest.mark.parametrize("disposition", [Disposition.STORED, Disposition.UNKNOWN])
def test_resume_of_what_the_hub_does_not_want(disposition: Disposition) -> None:
    """A finished task that the hub has is forgotten; a running one is stopped and nothing of it is sent."""
    session = running()
    events = reconnect(session, ResumedTask(task_id="t1", disposition=disposition))
    assert any(isinstance(event, TaskCancel) for event in events)
    session.output("t1", Stream.STDOUT, b"x" * 100)
    assert session.finish(DONE) == [ResultAcknowledged("t1")]
    assert session.take_messages() == []
    finished = running()
    finished.finish(DONE)
    assert ResultAcknowledged("t1") in reconnect(finished, ResumedTask(task_id="t1", disposition=disposition))


def test_cancelled_while_disconnected() -> None:
    """A cancel that the cut swallowed arrives with the resumption."""
    events = reconnect(running(), ResumedTask(task_id="t1", disposition=Disposition.CANCEL))
    assert [event.task_id for event in events if isinstance(event, TaskCancel)] == ["t1"]


@pytest.mark.parametrize(
    "resumed",
    [
        pytest.param((), id="a task is missing"),
        pytest.param(
            (ResumedTask(task_id="t1", disposition=Disposition.CONTINUE, stdout_offset=1),),
            id="more than was ever sent",
        ),
    ],
)
def test_bad_resume(resumed: tuple[ResumedTask, ...]) -> None:
    """A resume that leaves a task out or claims bytes that do not exist ends the connection."""
    with pytest.raises(PeerError):
        reconnect(running(), *resumed)


def test_rejected_between_hello_and_resume() -> None:
    """A request that was named in the hello and then not started is rejected after the resume."""
    session = start()
    hear(session, BASH)
    session.disconnected()
    session.connected(1.0, subprotocol=V1)
    hear(session, WELCOME)
    session.reject("t1", RejectCode.BUSY, "busy")
    session.take_messages()
    hear(session, RunnerResume(tasks=(ResumedTask(task_id="t1", disposition=Disposition.CONTINUE),)))
    assert [type(message) for message in session.take_messages()] == [TaskRejected]


def test_plain_result_over_a_cut() -> None:
    """A result that was not written before the cut, or came after it, goes out on the next plain connection."""
    session = running(None)
    session.finish(DONE)
    (result,) = session.take_messages()
    reconnect(session, subprotocol=None)
    assert session.take_messages() == [result]
    assert session.flushed() == [ResultAcknowledged("t1")]
    reconnect(session, subprotocol=None)
    assert session.take_messages() == []


def test_from_v1_to_plain() -> None:
    """A hub that comes back without the subprotocol gets plain messages of what was held."""
    session = running()
    session.output("t1", Stream.STDOUT, b"lost to a plain peer")
    session.finish(DONE)
    reconnect(session, subprotocol=None)
    assert (
        session.take_messages() == [TaskResult(task_id="t1", success=True, exit_code=0, source_instance_id="node-2")]
        or session.is_v1 is False
    )


# The rest.


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_unknown_type_is_a_warning(subprotocol: str | None) -> None:
    """A message type that this version does not know is a warning in either dialect."""
    session = start(subprotocol)
    (event,) = session.received('{"type":"task.pause","payload":{"task_id":"t1"}}', 0.0)
    assert isinstance(event, Warned)
    assert str(event.error) == "unknown message type: task.pause"


def test_v1_message_on_plain_is_a_warning() -> None:
    """What only v1 has is unknown on the plain protocol."""
    (event,) = hear(start(None), ResultAck(task_id="t1"))
    assert isinstance(event, Warned)


def test_plain_bad_payload() -> None:
    """A plain platform's badly typed request is answered where it can be named, and the connection stays."""
    session = start(None)
    (event,) = session.received('{"type":"task.request","payload":{"task_id":"t1","operation":5}}', 0.0)
    assert isinstance(event, Warned)
    error = "invalid task.request: Expected `str`, got `int` - at `$.operation`"
    assert session.take_messages() == [TaskResult(task_id="t1", success=False, error=error)]
    session.received('{"type":"mcp.call","payload":{"call_id":"c1"}}', 0.0)
    (answer,) = session.take_messages()
    assert isinstance(answer, McpResult)
    session.received('{"type":"task.cancel","payload":{}}', 0.0)
    assert session.take_messages() == []


def test_v1_bad_payload() -> None:
    """Under v1 the same ends the connection."""
    with pytest.raises(PeerError) as caught:
        start().received('{"type":"task.request","payload":{"task_id":"t1","operation":5}}', 0.0)
    assert caught.value.code == "invalid_payload"


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_malformed_ends_either(subprotocol: str | None) -> None:
    """What is no message at all ends the connection in either dialect."""
    with pytest.raises(PeerError) as caught:
        start(subprotocol).received("{", 0.0)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("subprotocol", [V1, None])
def test_mcp_call(subprotocol: str | None) -> None:
    """The answer to a call is kept over a cut until it was written."""
    session = start(subprotocol)
    call = McpCall(call_id="c1", server=McpServer(name="s", transport="stdio"), tool_name="t")
    assert hear(session, call) == [call]
    answer = McpResult(call_id="c1", success=True, result={"content": "x"})
    session.answer_call(answer)
    assert session.take_messages() == [answer]
    reconnect(session, subprotocol=subprotocol)
    assert answer in session.take_messages()
    session.flushed()
    reconnect(session, subprotocol=subprotocol)
    assert answer not in session.take_messages()


def test_approvals() -> None:
    """A request for approval is repeated after a cut until it is decided or withdrawn."""
    session = running()
    ask = ApprovalRequest(approval_id="a1", task_id="t1", command="rm x")
    assert session.ask_approval(ask)
    assert session.take_messages() == [ask]
    continued = ResumedTask(task_id="t1", disposition=Disposition.CONTINUE)
    reconnect(session, continued)
    assert session.take_messages() == [ask]
    decision = ApprovalDecision(approval_id="a1", verdict=Verdict.ALLOW)
    assert hear(session, decision) == [decision]
    assert hear(session, decision) == []
    session.ask_approval(ask)
    session.withdraw_approval("a1", "time ran out")
    session.withdraw_approval("a1")
    assert session.take_messages() == [ask, ApprovalWithdrawn(approval_id="a1", reason="time ran out")]
    reconnect(session, continued)
    assert session.take_messages() == []


def test_an_approval_ends_with_its_task() -> None:
    """The result is preceded by the withdrawal of what is still asked, and nothing is asked for an ended task."""
    session = running()
    ask = ApprovalRequest(approval_id="a1", task_id="t1", command="rm x")
    session.ask_approval(ask)
    session.take_messages()
    session.finish(TaskResult(task_id="t1", success=True))
    said = session.take_messages()
    assert said[0] == ApprovalWithdrawn(approval_id="a1", reason="the task has ended")
    assert isinstance(said[1], TaskResult)
    assert not session.ask_approval(ask)
    assert not session.ask_approval(ApprovalRequest(approval_id="a2", task_id="t9", command="rm x"))
    assert session.take_messages() == []


@pytest.mark.parametrize("disposition", [Disposition.UNKNOWN, Disposition.STORED])
def test_an_approval_of_an_unwanted_task_is_not_asked_again(disposition: Disposition) -> None:
    """A hub that no longer knows the task would close the connection for it (foreign_task)."""
    session = running()
    ask = ApprovalRequest(approval_id="a1", task_id="t1", command="rm x")
    session.ask_approval(ask)
    reconnect(session, ResumedTask(task_id="t1", disposition=disposition))
    assert ask not in session.take_messages()
    assert not session.ask_approval(ask)
    assert hear(session, ApprovalDecision(approval_id="a1", verdict=Verdict.ALLOW)) == []


def test_plain_has_no_approvals() -> None:
    """On the plain protocol nobody can be asked, and the caller is told so."""
    session = running(None)
    assert not session.ask_approval(ApprovalRequest(approval_id="a1", task_id="t1", command="rm x"))
    session.report_policy(PolicyReport(policy_name="p"))
    assert session.take_messages() == []


def test_policy_report() -> None:
    """The policy report is said at once and after every resumption."""
    session = start()
    report = PolicyReport(policy_name="p", policy_digest="d", layers=("seccomp",))
    session.report_policy(report)
    assert session.take_messages() == [report]
    reconnect(session)
    assert session.take_messages() == [report]


def test_replaced_result() -> None:
    """A result that could not be rendered is replaced by a smaller one, which is then the one kept."""
    session = running()
    session.finish(TaskResult(task_id="t1", success=True, result={"n": 2**70}))
    session.take_messages()
    smaller = TaskResult(task_id="t1", success=False, error="result could not be sent")
    session.replace_result(smaller)
    (sent,) = session.take_messages()
    assert isinstance(sent, TaskResult)
    assert sent.error == "result could not be sent"
    reconnect(session, ResumedTask(task_id="t1", disposition=Disposition.CONTINUE))
    assert session.take_messages() == [sent]
    with pytest.raises(InvariantError):
        running().replace_result(smaller)


def test_held_tasks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that never acknowledges cannot make a runner hold any number of results."""
    monkeypatch.setattr(limits, "HELD_TASKS_MAX", 1)
    session = running()
    assert hear(session, TaskRequest(task_id="t2", operation="bash")) == []
    (rejected,) = session.take_messages()
    assert isinstance(rejected, TaskRejected)
    assert rejected.code is RejectCode.BUSY
    assert session.backlog == 0
