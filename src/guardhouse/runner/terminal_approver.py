"""The operator of `guardhouse try` as the one who is asked: at the terminal, or by an option once for all.

Runs in the process of `guardhouse try`.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Final

import trio

from guardhouse.limits import APPROVAL_TIMEOUT_DEFAULT_S
from guardhouse.runner.approvals import ApprovalAnswer, ApprovalQuestion

__all__ = ["OptionApprover", "TerminalApprover", "find_approver"]

_TERMINAL: Final = "/dev/tty"
_YES: Final = frozenset({"y", "yes"})


class OptionApprover:
    """Says yes to everything, as ``--approve`` asked for. What a rule denies is not asked about."""

    timeout_s = APPROVAL_TIMEOUT_DEFAULT_S
    can_ask = True

    async def ask(self, question: ApprovalQuestion) -> ApprovalAnswer:  # noqa: ARG002 - whatever it asks
        """Say yes."""
        return ApprovalAnswer(allows=True, why="approved by --approve")


class TerminalApprover:
    """Asks whoever sits at the controlling terminal, one question after the other."""

    timeout_s = APPROVAL_TIMEOUT_DEFAULT_S
    can_ask = True

    def __init__(self, terminal_fd: int, shown: Callable[[str], str]) -> None:
        """``shown`` takes out of a text what must not be shown."""
        self._terminal_fd = terminal_fd
        self._shown = shown
        self._turn = trio.Lock()

    async def ask(self, question: ApprovalQuestion) -> ApprovalAnswer:
        """Ask, and take anything but a yes as a no."""
        async with self._turn:
            with trio.move_on_after(self.timeout_s):
                said = await self._read_answer(self._shown(_prompt(question)))
                if said.strip().lower() in _YES:
                    return ApprovalAnswer(allows=True, why="approved at the terminal")
                return ApprovalAnswer(allows=False, why="not approved at the terminal")
        return ApprovalAnswer(allows=False, why=f"nobody answered within {self.timeout_s:g} s")

    async def _read_answer(self, prompt: str) -> str:
        await trio.to_thread.run_sync(os.write, self._terminal_fd, prompt.encode("utf-8", "replace"))
        await trio.lowlevel.wait_readable(self._terminal_fd)
        # A terminal hands over whole lines (termios(3), canonical mode).
        return os.read(self._terminal_fd, 1_024).decode("utf-8", "replace")


def find_approver(*, approves_all: bool, shown: Callable[[str], str]) -> OptionApprover | TerminalApprover | None:
    """Return who is asked: the option, else the terminal where standard input and error are one, else nobody."""
    if approves_all:
        return OptionApprover()
    if not (os.isatty(0) and os.isatty(2)):
        return None
    with contextlib.suppress(OSError):
        return TerminalApprover(os.open(_TERMINAL, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY), shown)
    return None


def _prompt(question: ApprovalQuestion) -> str:
    if question.argv is None:
        what = f"the command: {question.command}"
    else:
        what = f"{question.path} with the words {' '.join(map(repr, question.argv))}, started by {question.started_by}"
    # Control characters could move the cursor and show another question than the one that is asked.
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in what)
    return (
        f"\nguardhouse: the rule {question.rule!r} ({question.place}) asks about {printable}\n"
        "guardhouse: may it run? [y/N] "
    )
