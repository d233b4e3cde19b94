"""`ask` from a rule on the runner to a person at the hub and back: both gates, a lost hub, a cancel, the record."""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo.local_system import LocalSystem, system_directory

POLICY = """
version: 1
permission:
  bash:
    - {match: "*", then: allow}
    - {match: "touch *", then: ask, because: files appear}
    - {match: "mkdir *", then: deny}
"""
PATIENCE_S = 60.0
# Gate one sees that; the next one only the exec gate.
TEXT_ASKS = "touch asked-first; ls -d asked-first"
EXEC_ASKS = "echo begun; x=touch; for f in one two; do $x asked-$f; done; ls asked-*"


@pytest.fixture(scope="module")
def system() -> Iterator[LocalSystem]:
    with system_directory() as directory:
        policy = directory / "policy.yaml"
        policy.write_text(POLICY)
        policy.chmod(0o644)
        with LocalSystem(directory, policy=str(policy)) as running:
            running.make_certificates()
            running.start_hub()
            running.create_environment("asking")
            running.start_runner()
            yield running


def start(system: LocalSystem, command: str, **args: Any) -> str:
    body = {"environment_id": system.environment_id, "operation": "bash", "args": {"command": command, **args}}
    return str(system.api("POST", "/api/v1/tasks", json=body)["id"])


def until(what: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE_S:g} s")


def open_question(system: LocalSystem, task_id: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        listed = system.api("GET", "/api/v1/approvals", params={"state": "pending", "task": task_id})
        return next(iter(listed["approvals"]), None)

    return dict(until(there))


def next_question(system: LocalSystem, task_id: str) -> dict[str, Any]:
    """The exec gate's second question about `EXEC_ASKS`, once the first is answered."""
    return dict(until(lambda: found if (found := open_question(system, task_id))["argv"][-1] == "asked-two" else None))


def answer(system: LocalSystem, question: dict[str, Any], verb: str) -> None:
    system.api("POST", f"/api/v1/approvals/{question['id']}/{verb}", json={"note": "looked at"})


def result(system: LocalSystem, task_id: str) -> dict[str, Any]:
    return dict(
        until(
            lambda: (
                found
                if (found := system.api("GET", f"/api/v1/tasks/{task_id}"))["state"]
                in ("succeeded", "failed", "cancelled", "timed_out", "denied", "lost")
                else None
            )
        )
    )


def test_gate_one_waits_for_a_person(system: LocalSystem) -> None:
    """Nothing starts before the yes; the same program is not asked about again at its exec."""
    task_id = start(system, TEXT_ASKS)
    question = open_question(system, task_id)
    assert (question["gate"], question["command"], question["rule"]) == ("shell", TEXT_ASKS, "touch *")
    assert question["because"] == "files appear"
    answer(system, question, "approve")
    ended = result(system, task_id)
    assert ended["state"] == "succeeded"
    got = ended["result"]
    assert got["stdout"] == "asked-first\n"
    assert any("approved by" in note for note in got["notes"])


def test_the_exec_gate_holds_the_process_while_the_hub_is_away(system: LocalSystem) -> None:
    """The hub is killed and comes back: the question is asked again, and its answer lets the process go on."""
    task_id = start(system, EXEC_ASKS)
    first = open_question(system, task_id)
    assert (first["gate"], first["argv"][-1]) == ("exec", "asked-one")
    assert first["path"].endswith("/touch")
    system.process("hub").send_signal(signal.SIGKILL)
    system.process("hub").wait()
    system.start_hub()
    answer(system, open_question(system, task_id), "approve")
    answer(system, next_question(system, task_id), "deny")
    got = result(system, task_id)["result"]
    assert got["stdout"] == "begun\nasked-first\nasked-one\n"
    assert "Permission denied" in got["stderr"]
    ran = [program for program in got["execs"]["ran"] if program["path"].endswith("/touch")]
    assert ["approved by" in program["because"] for program in ran] == [True]
    (refused,) = got["execs"]["refused"]
    assert "not approved by" in refused["because"]
    shown = system.cli("task", "show", task_id, "--tree").stdout.decode()
    assert "/usr/bin/bash: bash -c" in shown
    assert "\n  /usr/bin/touch: touch asked-one  [pid" in shown
    assert "\n  REFUSED /usr/bin/touch: touch asked-two" in shown
    listed = system.api("GET", "/api/v1/audit", params={"task": task_id})["events"]
    assert {"approval.ask", "approval.approve", "approval.deny", "task.exec"} <= {event["action"] for event in listed}


@pytest.mark.parametrize("command", [TEXT_ASKS, EXEC_ASKS])
def test_a_cancel_ends_the_wait_and_the_question(system: LocalSystem, command: str) -> None:
    """Nobody needs to answer for a cancel to work, and nobody is asked afterwards."""
    task_id = start(system, command)
    question = open_question(system, task_id)
    system.api("POST", f"/api/v1/tasks/{task_id}/cancel")
    assert result(system, task_id)["state"] == "cancelled"
    until(lambda: system.api("GET", f"/api/v1/approvals/{question['id']}")["state"] == "withdrawn")


def test_what_is_denied_is_not_asked(system: LocalSystem) -> None:
    """The twin: a rule that denies answers at once."""
    ended = result(system, start(system, "touch a; mkdir d"))
    assert ended["result"]["verdict"] == "deny"


def test_a_stop_waits_for_no_answer_that_would_start_something(system: LocalSystem) -> None:
    """What is held before its start is ended at once; the twin, a program of a running command, is still decided."""
    held = start(system, TEXT_ASKS)
    question = open_question(system, held)
    running = start(system, EXEC_ASKS)
    first = open_question(system, running)
    system.process("runner").send_signal(signal.SIGTERM)
    ended = result(system, held)
    assert ended["state"] == "cancelled"
    assert "the runner was stopped while this waited for a person's answer" in ended["error"]
    until(lambda: system.api("GET", f"/api/v1/approvals/{question['id']}")["state"] == "withdrawn")
    answer(system, first, "approve")
    answer(system, next_question(system, running), "deny")
    assert result(system, running)["result"]["stdout"].startswith("begun\n")
    assert system.process("runner").wait(PATIENCE_S) == 0
    log = (system.directory / "runner.log").read_text()
    assert "drained" in log
    assert "drain time is over" not in log, "nobody waited for what nobody answered"
