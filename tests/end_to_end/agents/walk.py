"""The walk that an agent is led on: every tool of the hub, with what one answer says given to the next call. Pure.

What is checked is what the agent told its model, not what the hub sent: a tool whose answer an agent loses on the way
is of no use to anybody.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from tests.end_to_end.agents.model_server import Call

__all__ = ["STEPS", "TOOLS", "Step", "Walk"]


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        tool: its name.
        arguments: what it is called with; ``{name}`` in a text is what an earlier answer said.
        says: what the model has to be told, as regular expressions, with the same names.
        learns: names for what later calls need, each with an expression whose first group it is.
    """

    tool: str
    arguments: dict[str, Any]
    says: tuple[str, ...]
    learns: tuple[tuple[str, str], ...] = ()


_TASK: Final = ("task", r"\b(tsk_\w+)")
# Agents show a result as text, as JSON, or as JSON within JSON: a line end, a quote and a tab may be escaped.
_LINE: Final = r"(?:\n|\\+n)"

STEPS: Final[tuple[Step, ...]] = (
    Step("list_environments", {}, (r"{host}", r"online")),
    Step("get_environment", {"environment": "{host}"}, (r"{host}", r"online", r"workspace_root")),
    Step("open_session", {"title": "a walk", "environment": "{host}"}, (r"ses_\w+",), (("session", r"\b(ses_\w+)"),)),
    Step(
        "run_command",
        {"session_id": "{session}", "command": "echo begun; echo oops >&2; sleep {hold}", "wait_s": 2},
        (r"{state}", r"begun", r"oops"),
        (_TASK,),
    ),
    Step("wait_task", {"task_id": "{task}", "wait_s": 0}, (r"{task}", r"{state}")),
    Step("read_output", {"task_id": "{task}", "stream": "stderr"}, (r"oops", r"untrusted")),
    Step("cancel_task", {"task_id": "{task}", "reason": "enough"}, (r"{task}", r"cancelling|finished")),
    Step("wait_task", {"task_id": "{task}", "wait_s": 30}, (r"begun|cancelled",)),
    Step(
        "run_readonly_command",
        {"environment": "{host}", "command": "seq 1 20000", "max_output_tokens": 200},
        (rf"{_LINE}1{_LINE}2{_LINE}|\"1{_LINE}2{_LINE}", r"20000", r"left out", r"untrusted"),
    ),
    Step("run_readonly_command", {"environment": "{host}", "command": "rm x"}, (r"not_read_only", r"retryable: no")),
    Step(
        "write_file",
        {"session_id": "{session}", "path": "{place}/a.txt", "text": "one\ntwo\n", "if_checksum": ""},
        (r"{place}/a\.txt", r"sha256:[0-9a-f]{64}"),
        (("checksum", r"(sha256:[0-9a-f]{64})"),),
    ),
    Step(
        "edit_file",
        {"session_id": "{session}", "path": "{place}/a.txt", "old": "two", "new": "zwei", "if_checksum": "{checksum}"},
        (r"{place}/a\.txt", r"sha256:[0-9a-f]{64}"),
        (("edited", r"(sha256:[0-9a-f]{64})"),),
    ),
    Step(
        "read_file",
        {"session_id": "{session}", "path": "{place}/a.txt"},
        (rf"one{_LINE}zwei", r"{edited}", r"untrusted"),
    ),
    Step("list_files", {"session_id": "{session}", "path": "{place}"}, (r"{place}/a\.txt", r"untrusted")),
    Step("glob_files", {"session_id": "{session}", "pattern": "{place}/*.txt"}, (r"{place}/a\.txt", r"untrusted")),
    Step("grep_files", {"session_id": "{session}", "pattern": "zwei"}, (r"{place}/a\.txt:2:zwei", r"untrusted")),
    Step("call_mcp_tool", {"environment": "{host}", "server": "walk-shouter"}, (r"shout", r"what is to be shouted")),
    Step(
        "call_mcp_tool",
        {"environment": "{host}", "server": "walk-shouter", "tool": "shout", "arguments": {"text": "hello {checksum}"}},
        (r"HELLO SHA256:", r"untrusted"),
    ),
    Step("run_command", {"environment": "{host}", "command": "printf '%s' \"$((6 * 7))\""}, (r"(?<!\d)42(?!\d)",)),
)


TOOLS: Final = frozenset(step.tool for step in STEPS)


def _filled(value: Any, facts: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, fact in facts.items():
            value = value.replace(f"{{{name}}}", fact)
        return value
    if isinstance(value, dict):
        return {name: _filled(each, facts) for name, each in value.items()}
    return value


def _filled_pattern(pattern: str, facts: dict[str, str]) -> str:
    for name, fact in facts.items():
        pattern = pattern.replace(f"{{{name}}}", re.escape(fact))
    return pattern


@dataclass(frozen=True)
class Walk:
    """The walk over one hub.

    Attributes:
        host: the environment's name.
        place: a directory of the workspace that is not there yet.
        follows_tasks: the host has the Tasks extension, and so answers its model when a command has ended only.
    """

    host: str
    place: str
    follows_tasks: bool = False

    def next_call(self, brought: list[tuple[Call, str]]) -> Call | None:
        """Return the call that follows on what every call before it brought; None at the end."""
        if len(brought) == len(STEPS):
            return None
        step = STEPS[len(brought)]
        return Call(step.tool, _filled(step.arguments, self._facts(brought)))

    def missing(self, brought: list[tuple[Call, str]]) -> list[str]:
        """Return what an agent's model was not told, in words; nothing when the whole walk was as it has to be."""
        found = [
            f"{number} {step.tool}: nothing like {pattern!r} in {text[:1500]!r}"
            for number, (step, (_, text)) in enumerate(zip(STEPS, brought, strict=False), 1)
            for pattern in (_filled_pattern(each, self._facts(brought)) for each in step.says)
            if re.search(pattern, text) is None
        ]
        if len(brought) < len(STEPS):
            found.append(f"the walk ended before {STEPS[len(brought)].tool}, call {len(brought) + 1} of {len(STEPS)}")
        return found

    def _facts(self, brought: list[tuple[Call, str]]) -> dict[str, str]:
        hold, state = ("3", "finished") if self.follows_tasks else ("300", "running")
        facts = {"host": self.host, "place": self.place, "hold": hold, "state": state}
        for step, (_, text) in zip(STEPS, brought, strict=False):
            for name, pattern in step.learns:
                found = re.search(pattern, text)
                facts[name] = found[1] if found else f"nothing was said of {name}"
        return facts
