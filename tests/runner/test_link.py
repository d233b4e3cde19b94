"""The link over connections in memory: the clock is the test's."""

import msgspec
import pytest
import trio
from tests.runner.conversation import MemoryConnection, StillHost

from guardhouse.errors import PeerError
from guardhouse.runner.link import Link
from guardhouse.values import Stream, Verdict
from guardhouse.wire.events import ResultAcknowledged
from guardhouse.wire.messages import EnvironmentInfo, McpResult, TaskRequest, TaskResult
from guardhouse.wire.messages_v1 import ApprovalDecision, ApprovalRequest, PolicyReport
from guardhouse.wire.runner_session import RunnerSession

V1 = "guardhouse.v1"


@pytest.fixture
def events() -> list:
    return []


@pytest.fixture
def link(events) -> Link:
    session = RunnerSession(memory_id="mem_1", version="0.0", name="host")
    return Link(session, facts=StillHost(), handle=events.append)


async def _settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_first_heartbeat_carries_the_facts(nursery, link, autojump_clock) -> None:
    """The first heartbeat comes at once with facts and metrics, the next after 30 s with metrics alone."""
    connection = MemoryConnection()
    nursery.start_soon(link.converse, connection)
    connection.hear("welcome", worknode_id="wn_1", name="prod-1", labels=["a"])
    first = await connection.next("heartbeat")
    began_s = trio.current_time()
    second = await connection.next("heartbeat")
    assert first["environment"]["os"] == "linux"
    assert first["metrics"] == {"cpu_percent": 1.0, "memory_percent": 2.0, "disk_percent": 3.0}
    assert (first["worknode_id"], first["name"], first["labels"]) == ("wn_1", "prod-1", ["a"])
    assert "environment" not in second
    assert second["metrics"]["disk_percent"] == 3.0
    assert trio.current_time() - began_s == pytest.approx(30, abs=0.1)
    nursery.cancel_scope.cancel()


async def test_a_plain_platform_without_welcome_is_served_after_five_seconds(nursery, link, autojump_clock) -> None:
    """The seed logs a missing welcome and carries on; so do we."""
    connection = MemoryConnection()
    began_s = trio.current_time()
    nursery.start_soon(link.converse, connection)
    await connection.next("heartbeat")
    assert trio.current_time() - began_s == pytest.approx(5, abs=0.1)
    nursery.cancel_scope.cancel()


async def test_v1_without_welcome_ends_after_five_seconds(link, autojump_clock) -> None:
    """Our own hub always says welcome: without it the connection is closed."""
    began_s = trio.current_time()
    connection = MemoryConnection(V1)
    with pytest.raises(PeerError, match="no welcome within 5 s"):
        await link.converse(connection)
    assert trio.current_time() - began_s == pytest.approx(5, abs=0.1)
    assert connection.closed_with[0] == 1008


async def test_a_dead_path_is_noticed_within_45_seconds(link, autojump_clock) -> None:
    """A connection that answers no ping is given up long before TCP would."""
    connection = MemoryConnection()
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    connection.answers_pings = False
    began_s = trio.current_time()
    with pytest.raises(PeerError, match="no answer to a ping"):
        await link.converse(connection)
    assert trio.current_time() - began_s <= 45


async def test_a_quiet_but_living_path_is_kept(nursery, link, autojump_clock) -> None:
    """The twin: with answered pings nothing ends the connection, however little is said."""
    connection = MemoryConnection()
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    nursery.start_soon(link.converse, connection)
    await trio.sleep(3600)
    assert connection.closed_with is None
    assert connection.pings >= 239
    nursery.cancel_scope.cancel()


async def test_a_result_that_was_not_confirmed_is_sent_again(link, autojump_clock) -> None:
    """On the plain protocol a result counts as delivered only when a ping after it was answered."""
    connection = MemoryConnection()
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    async with trio.open_nursery() as nursery:

        async def first() -> None:
            with pytest.raises(PeerError):
                await link.converse(connection)

        nursery.start_soon(first)
        connection.hear("task.request", task_id="t1", operation="bash", args={"command": "true"})
        await connection.next("heartbeat")
        await _settle()
        connection.answers_pings = False
        link.accept("t1")
        link.finish(TaskResult(task_id="t1", success=True))
        await connection.next("task.result")
        connection.cut()
    again = MemoryConnection()
    again.hear("welcome", worknode_id="w", name="n", labels=[])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.converse, again)
        result = await again.next("task.result")
        assert result["task_id"] == "t1"
        await _settle()
        assert link.unsent == 0
        nursery.cancel_scope.cancel()


async def test_output_waits_for_credit(nursery, link, events, autojump_clock) -> None:
    """Under v1 no more than the window is sent before the hub has stored it: the command's pipe is not read."""
    connection = MemoryConnection(V1)
    connection.hear("welcome", worknode_id="w", name="n", labels=[], output_window_bytes=1000)
    nursery.start_soon(link.converse, connection)
    await connection.next("runner.hello")
    connection.hear("runner.resume", tasks=[])
    connection.hear("task.request", task_id="t1", operation="bash", args={})
    await _settle()
    assert isinstance(events[-1], TaskRequest)
    link.accept("t1")
    sent = trio.Event()

    async def write() -> None:
        await link.send_output("t1", Stream.STDOUT, b"x" * 1500)
        sent.set()

    nursery.start_soon(write)
    await trio.sleep(10)
    assert not sent.is_set()
    assert sum(len(m["payload"]["data"]) for m in connection.said if m["type"] == "task.output") == 1000
    connection.hear("task.output.ack", task_id="t1", stdout_offset=600, stderr_offset=0)
    with trio.fail_after(30):
        await sent.wait()
    nursery.cancel_scope.cancel()


async def test_malformed_frames_end_the_connection(link, autojump_clock) -> None:
    """A frame that is no JSON is answered with close code 1007."""
    connection = MemoryConnection()
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    connection.hear_raw("{not json")
    with pytest.raises(PeerError):
        await link.converse(connection)
    assert connection.closed_with[0] == 1007


async def test_a_hub_that_says_goodbye_is_left_alone_for_as_long_as_it_asked(link, autojump_clock) -> None:
    """hub.goodbye ends the conversation without an error and says when to come back."""
    connection = MemoryConnection(V1)
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.converse, connection)
        await connection.next("runner.hello")
        connection.hear("runner.resume", tasks=[])
        connection.hear("hub.goodbye", reason="upgrade", reconnect_after_s=7)
        await _settle()
        connection.cut()
    assert link.reconnect_after_s == 7


async def test_end_says_goodbye_and_closes(link, autojump_clock) -> None:
    """A wanted end is announced and closed with 1000."""
    connection = MemoryConnection(V1)
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.converse, connection)
        await connection.next("runner.hello")
        connection.hear("runner.resume", tasks=[])
        await connection.next("heartbeat")
        link.end("shutdown")
        await connection.next("runner.goodbye")
    assert connection.closed_with == (1000, "shutdown")


async def _begin_v1(nursery, link, connection: MemoryConnection) -> None:
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    nursery.start_soon(link.converse, connection)
    await connection.next("runner.hello")
    connection.hear("runner.resume", tasks=[])
    await connection.next("heartbeat")


# A result that breaks a limit of the wire which its size does not show: nesting.
_TOO_DEEP = msgspec.json.decode(b"[" * 100 + b"]" * 100)


async def test_a_result_that_cannot_be_sent_is_answered_all_the_same(nursery, link, autojump_clock) -> None:
    """A failure that says why stands in its place, the connection holds, and the next result is as ever."""
    connection = MemoryConnection(V1)
    await _begin_v1(nursery, link, connection)
    for task_id in ("t1", "t2"):
        connection.hear("task.request", task_id=task_id, operation="bash", args={}, source_instance_id="node-7")
    await _settle()
    link.accept("t1")
    link.accept("t2")
    link.finish(TaskResult(task_id="t1", success=True, result={"deep": _TOO_DEEP}, exit_code=0))
    link.finish(TaskResult(task_id="t2", success=True, result={"fine": 1}))
    answers = {answer["task_id"]: answer for answer in [await connection.next("task.result") for _ in "12"]}
    assert answers["t1"]["success"] is False
    assert answers["t1"]["error_code"] == "unsendable"
    assert answers["t1"]["source_instance_id"] == "node-7"
    assert "nest" in answers["t1"]["error"]
    assert answers["t2"]["result"] == {"fine": 1}
    assert connection.closed_with is None
    nursery.cancel_scope.cancel()


async def test_on_the_plain_protocol_the_replacement_is_what_counts_as_delivered(link, events, autojump_clock) -> None:
    """A cut between the two leaves the result to the next connection: it is not forgotten with the unsendable one."""
    connection = MemoryConnection()
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    async with trio.open_nursery() as nursery:

        async def first() -> None:
            with pytest.raises(PeerError):
                await link.converse(connection)

        nursery.start_soon(first)
        connection.hear("task.request", task_id="t1", operation="bash", args={})
        await connection.next("heartbeat")
        await _settle()
        link.accept("t1")
        connection.answers_pings = False
        link.finish(TaskResult(task_id="t1", success=True, result={"deep": _TOO_DEEP}))
        assert (await connection.next("task.result"))["success"] is False
        await _settle()
        assert not [event for event in events if isinstance(event, ResultAcknowledged)]
        assert link.unsent == 1
        connection.cut()


async def test_an_answer_to_a_call_that_cannot_be_sent_is_a_failure(nursery, link, autojump_clock) -> None:
    """An mcp.result over a limit becomes one that says so."""
    connection = MemoryConnection(V1)
    await _begin_v1(nursery, link, connection)
    link.answer_call(McpResult(call_id="c1", success=True, result=_TOO_DEEP))
    answer = await connection.next("mcp.result")
    assert (answer["call_id"], answer["success"]) == ("c1", False)
    assert "nest" in answer["error"]
    nursery.cancel_scope.cancel()


async def test_an_approval_that_cannot_be_asked_for_is_denied(nursery, events, autojump_clock) -> None:
    """Nobody saw the request, so the answer is no; it is not asked again on the next connection."""
    session = RunnerSession(memory_id="mem_1", version="0.0", name="host")
    link = Link(session, facts=StillHost(), handle=events.append)
    connection = MemoryConnection(V1)
    await _begin_v1(nursery, link, connection)
    connection.hear("task.request", task_id="t1", operation="bash", args={})
    await _settle()
    link.ask_approval(ApprovalRequest(approval_id="a1", task_id="t1", command="x", explanation={"deep": _TOO_DEEP}))
    assert (await connection.next("approval.withdrawn"))["approval_id"] == "a1"
    (decision,) = [event for event in events if isinstance(event, ApprovalDecision)]
    assert (decision.approval_id, decision.verdict, decision.decided_by) == ("a1", Verdict.DENY, "runner")
    assert not [message for message in connection.said if message["type"] == "approval.request"]


class _NamelessHost(StillHost):
    async def environment(self) -> EnvironmentInfo:
        return msgspec.structs.replace(await super().environment(), hostname="h" * 2_000)


async def test_a_heartbeat_that_cannot_be_sent_ends_nothing(nursery, events, autojump_clock) -> None:
    """Facts over a limit cost one heartbeat; the next one, without them, comes in its time."""
    session = RunnerSession(memory_id="mem_1", version="0.0", name="host")
    link = Link(session, facts=_NamelessHost(), handle=events.append)
    connection = MemoryConnection()
    connection.hear("welcome", worknode_id="w", name="n", labels=[])
    nursery.start_soon(link.converse, connection)
    heartbeat = await connection.next("heartbeat")
    assert "environment" not in heartbeat
    assert trio.current_time() == pytest.approx(30, abs=0.1)
    nursery.cancel_scope.cancel()


async def test_the_policy_in_force_is_reported_at_once_and_on_every_connection(link, autojump_clock) -> None:
    """A reload while connected is told now; the next connection begins with it."""
    first = MemoryConnection(V1)
    async with trio.open_nursery() as nursery:
        await _begin_v1(nursery, link, first)
        link.report_policy(PolicyReport(policy_name="p.yaml", policy_digest="ab" * 32))
        assert (await first.next("policy.report"))["policy_digest"] == "ab" * 32
        link.report_policy(PolicyReport(policy_name="p.yaml", policy_digest="cd" * 32))
        assert (await first.next("policy.report"))["policy_digest"] == "cd" * 32
        nursery.cancel_scope.cancel()
    second = MemoryConnection(V1)
    async with trio.open_nursery() as nursery:
        await _begin_v1(nursery, link, second)
        report = next(message for message in second.said if message["type"] == "policy.report")
        assert report["payload"]["policy_digest"] == "cd" * 32
        nursery.cancel_scope.cancel()
