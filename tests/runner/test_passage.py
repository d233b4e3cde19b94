"""The way of one request past the policy: who is asked, how often, what a yes covers, and what is written down."""

import pytest

from guardhouse.errors import Refusal
from guardhouse.policy import decide_operation, load_policy
from guardhouse.policy.operation import OperationDenied
from guardhouse.runner.approvals import ApprovalAnswer, ApprovalQuestion
from guardhouse.runner.operation_preview import preview_operation, summarise_operation
from guardhouse.runner.passage import NeedsApproval, Passage
from guardhouse.wire import operations as wire

POLICY = load_policy(
    'permission: {bash: {}, read: {"**": ask}, write: {"**": allow, "a": ask, "b": ask, "no": deny}}', name="p.yaml"
)


class People:
    """Somebody who says the same to everything."""

    timeout_s = 5.0
    can_ask = True

    def __init__(self, *, allows: bool = True) -> None:
        self.allows = allows
        self.asked: list[ApprovalQuestion] = []

    async def ask(self, question: ApprovalQuestion) -> ApprovalAnswer:
        self.asked.append(question)
        return ApprovalAnswer(allows=self.allows, why="said ada")


def decisions(*subjects: str, policy=POLICY):
    return [decide_operation(policy, *subject.split(" ")) for subject in subjects]


async def through(passage: Passage, *subjects: str, policy=POLICY) -> None:
    while True:
        try:
            passage.check(decisions(*subjects, policy=policy))
        except NeedsApproval as needed:
            await passage.ask(needed)
        else:
            return


async def test_each_rule_asks_once() -> None:
    """Two paths of one rule are one question, another rule is another; a yes holds for the same subjects again."""
    people = People()
    passage = Passage(approver=people, summary="move a to b")
    await through(passage, "read x", "read y", "write a")
    assert [(one.rule, one.command) for one in people.asked] == [("**", "move a to b"), ("a", "move a to b")]
    await through(passage, "read x", "write a")
    assert len(people.asked) == 2
    await through(passage, "read z")
    assert len(people.asked) == 3
    said = passage.as_json()
    assert said is not None
    assert (said["verdict"], len(said["approved"]), said["policy"]["digest"]) == ("ask", 3, POLICY.digest)


async def test_a_yes_is_of_the_policy_that_asked() -> None:
    """Under another policy, or the same with a hub's next to it, the rule asks anew."""
    people = People()
    passage = Passage(approver=people)
    await through(passage, "write a")
    other = load_policy('permission: {bash: {}, write: {"a": ask}}', name="p.yaml")
    await through(passage, "write a", policy=other)
    assert len(people.asked) == 2


async def test_no_is_no() -> None:
    """What is denied is not asked about; a person's no, nobody there and no approver are refusals that say so."""
    people = People(allows=False)
    with pytest.raises(OperationDenied, match="rule 'no'"):
        await through(Passage(approver=people), "write a", "write no")
    assert people.asked == []
    with pytest.raises(OperationDenied, match="said ada"):
        await through(Passage(approver=people), "write a")
    people.can_ask = False
    for passage in (Passage(approver=people), Passage()):
        with pytest.raises(Refusal, match="nobody can be asked here"):
            await through(passage, "write a")


async def test_questions_have_an_end() -> None:
    """A server that leads from one asked address to the next does not ask people for ever."""
    people = People()
    passage = Passage(approver=people)
    for number in range(16):
        await through(passage, f"read {number}")
    with pytest.raises(Refusal, match="the limit"):
        await through(passage, "read more")
    assert len(people.asked) == 16


async def test_preview() -> None:
    """A write is shown as a difference where the file may be read, bounded, and never as bytes that are no text."""

    async def before() -> bytes | None:
        return b"one\ntwo\n"

    async def hidden() -> bytes | None:
        return None

    async def missing() -> bytes | None:
        raise Refusal("no such file")

    args = wire.WriteArgs(path="a", content=b"one\n2\n")
    assert "-two\n+2" in (await preview_operation(args, before))["text"]
    assert (await preview_operation(args, hidden))["kind"].startswith("replaces a file")
    assert (await preview_operation(args, missing))["kind"] == "new file"
    long = await preview_operation(wire.WriteArgs(path="a", content=b"x\n" * 9_000), missing)
    assert (len(long["text"].split("\n")), "of 18000 characters" in long["left_out"]) == (200, True)
    for content in (b"\x00", b"\xff", b"x" * 100_000):
        assert "text" not in await preview_operation(wire.WriteArgs(path="a", content=content), missing)
    assert summarise_operation("read", wire.ReadArgs(path="a\nb\u202ec")) == "read a\\nb\\u202ec"
    everything = wire.RemoveArgs(path="d", recursive=True)
    assert summarise_operation("remove", everything) == "remove d and everything below it"
