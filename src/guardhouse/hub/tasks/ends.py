"""What a runner's result makes of a task, and how that is stored and recorded. Runs in the hub."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from guardhouse.hub.audit.policies import policies_of_decision
from guardhouse.hub.store import audit
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.tasks import TaskEnd, TaskRecord, TaskState
from guardhouse.wire.messages import TaskResult

__all__ = ["decide_end", "finish_and_record", "hub_end"]

# What a list shows of an error; the runner's whole result is kept beside it.
ERROR_MAX_CHARS: Final = 16_384


def decide_end(result: TaskResult, *, at_ms: int, cancel_asked: bool, notes: list[str]) -> TaskEnd:
    """Return the stored end of a task whose runner answered ``result``.

    A command that ran and returned a status other than 0 has succeeded as a task: its ``exit_code`` says the rest.
    Cancelled and timed out are taken from the operation's own result where it has them; a plain runner's failure
    after a cancel counts as cancelled.
    """
    body: dict[str, Any] = result.result if isinstance(result.result, dict) else {}
    if body.get("timed_out") is True or result.error_code == "timed_out":
        state = TaskState.TIMED_OUT
    elif body.get("cancelled") is True or result.error_code == "cancelled" or (cancel_asked and not result.success):
        state = TaskState.CANCELLED
    else:
        state = TaskState.SUCCEEDED if result.success else TaskState.FAILED
    exit_code = result.exit_code
    if exit_code is None and isinstance(body.get("exit_code"), int):
        exit_code = body["exit_code"]
    reason = body.get("reason")
    error = result.error
    if error is not None and len(error) > ERROR_MAX_CHARS:
        notes = [*notes, f"the error was cut from {len(error)} to {ERROR_MAX_CHARS} characters"]
        error = error[:ERROR_MAX_CHARS]
    return TaskEnd(
        state=state,
        at_ms=at_ms,
        reason=reason[:ERROR_MAX_CHARS] if isinstance(reason, str) and reason else None,
        success=result.success,
        result=_stored_result(result),
        error=error,
        error_code=result.error_code[:64] if result.error_code else None,
        exit_code=exit_code,
        output_note="; ".join(notes) or None,
    )


def _stored_result(result: TaskResult) -> bytes | None:
    """Return the operation's result, with what the policy said of it as `decision`, as a command's result has it.

    A refused operation's result is the decision itself, as a refused command's is.
    """
    body, decision = result.result, result.decision
    if isinstance(decision, dict):
        if body is None:
            body = decision
        elif isinstance(body, dict) and "decision" not in body:
            body = {**body, "decision": decision}
    return None if body is None else msgspec.json.encode(body)


def hub_end(state: TaskState, *, at_ms: int, code: str, reason: str, notes: list[str]) -> TaskEnd:
    """Return an end that the hub gives because no runner does: lost, never started, cancelled before it was sent."""
    return TaskEnd(
        state=state, at_ms=at_ms, reason=reason, error=reason, error_code=code, output_note="; ".join(notes) or None
    )


def finish_and_record(
    connection: Connection, record: TaskRecord, end: TaskEnd, *, actor: str, policies: dict[str, Any] | None
) -> bool:
    """Store the one end of a task and, in the audit log, how it ended, what was decided and what really ran.

    Args:
        policies: those in force as the runner said last, for an end without a decision (`audit.policies`).

    Returns:
        False, with nothing stored, when the task has an end already or is gone.
    """
    if not store.finish_task(connection, record.id, end):
        return False
    shown = _read_shown(end.result)
    decision, execs = shown.decision, shown.execs
    policies = policies_of_decision(decision) or policies
    audit.record_audit_event(
        connection,
        at_ms=end.at_ms,
        actor=actor,
        action="task.end",
        target=record.id,
        address=None,
        environment=record.environment_id,
        task=record.id,
        command=record.command,
        state=end.state.value,
        exit_code=end.exit_code,
        error_code=end.error_code,
        error=None if end.error is None else end.error[:1_024],
        decision=_decision_facts(decision) if isinstance(decision, dict) else None,
        policies=policies,
    )
    if isinstance(execs, dict):
        audit.record_executed(
            connection,
            at_ms=end.at_ms,
            environment=record.environment_id,
            task=record.id,
            command=record.command,
            execs=execs,
            policies=policies,
        )
    return True


class _Shown(msgspec.Struct):
    """What the audit log wants of a result; the rest, which may be megabytes, is passed over unread."""

    decision: Any = None
    execs: Any = None
    # A refused command's result is the decision itself.
    verdict: Any = None
    because: Any = None
    policy: Any = None
    narrowing: Any = None
    shadow: Any = None


def _read_shown(result: bytes | None) -> _Shown:
    if result is None:
        return _Shown()
    try:
        shown = msgspec.json.decode(result, type=_Shown)
    except msgspec.ValidationError:
        return _Shown()
    if shown.decision is None and isinstance(shown.verdict, str) and isinstance(shown.policy, dict):
        names = ("verdict", "because", "policy", "narrowing", "shadow")
        shown.decision = {name: value for name in names if (value := getattr(shown, name)) is not None}
    return shown


def _decision_facts(decision: dict[str, Any]) -> dict[str, Any]:
    """Return the short values of a decision: verdict, rule, the policies in force with their digests, and the shadow.

    The result keeps the whole.
    """
    facts = _short_values(decision)
    for name in ("policy", "narrowing", "shadow"):
        inner = decision.get(name)
        if isinstance(inner, dict):
            facts[name] = _short_values(inner)
            if isinstance(inner.get("policy"), dict):
                facts[name]["policy"] = _short_values(inner["policy"])
    return facts


def _short_values(values: dict[str, Any]) -> dict[str, Any]:
    return {
        str(key)[:64]: value[:512] if isinstance(value, str) else value
        for key, value in list(values.items())[:32]
        if isinstance(value, str | int | bool)
    }
