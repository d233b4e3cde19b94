"""The operator of `guardhouse try` as the one who is asked."""

import os
import pty

import pytest
import trio

from guardhouse.runner.approvals import ApprovalQuestion
from guardhouse.runner.terminal_approver import OptionApprover, TerminalApprover, find_approver
from guardhouse.wire.messages_v1 import ApprovalGate

QUESTION = ApprovalQuestion(
    gate=ApprovalGate.EXEC,
    command="touch a",
    argv=("touch", "a\x1b[2Jb"),
    path="/usr/bin/touch",
    started_by="/usr/bin/bash",
    rule="touch *",
    because="",
    place="p.yaml:3:5",
    profile="observe",
    workdir="",
)


@pytest.mark.parametrize(("said", "allows"), [(b"y\n", True), (b"YES\n", True), (b"n\n", False), (b"\n", False)])
async def test_only_a_yes_is_a_yes(said: bytes, *, allows: bool) -> None:
    """The question stands on the terminal, without control characters of the command, and the line is the answer."""
    ours, theirs = pty.openpty()
    try:
        approver = TerminalApprover(theirs, lambda text: text.replace("touch", "***"))
        os.write(ours, said)
        with trio.fail_after(30):
            answer = await approver.ask(QUESTION)
        shown = b""
        # The echo and the question are chunks of their own.
        while b"[y/N]" not in shown:
            shown += os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert answer.allows is allows
    assert answer.why.endswith("at the terminal")
    assert b"may it run?" in shown
    assert b"p.yaml:3:5" in shown
    assert b"\x1b" not in shown
    assert b"touch" not in shown


async def test_the_option_says_yes() -> None:
    """--approve answers without a terminal."""
    approver = find_approver(approves_all=True, shown=str)
    assert isinstance(approver, OptionApprover)
    assert (await approver.ask(QUESTION)).allows
