"""What the hub keeps of a runner's question: the exact command, who asks, and until when an answer helps.

Knows neither the store nor people. Runs in the hub.
"""

from typing import Final

import msgspec

from guardhouse import limits
from guardhouse.hub.audit.policies import policies_of_decision
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.store.approvals import RULE_MAX_CHARS, ApprovalRecord
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.wire.messages_v1 import ApprovalRequest

__all__ = ["EXPIRY_GRACE_MS", "new_record"]

# What is kept of a question's larger parts; what is cut is said where people decide.
ARGV_MAX_BYTES: Final = 256 * 1024
EXPLANATION_MAX_BYTES: Final = 256 * 1024
# Beyond the runner's own end, so that its "withdrawn" is seen first where the two clocks agree.
EXPIRY_GRACE_MS: Final = 2_000


def new_record(
    request: ApprovalRequest,
    *,
    environment: EnvironmentRecord,
    task: TaskRecord,
    votes_needed: int,
    at_ms: int,
    peer_time_ms: int,
) -> ApprovalRecord:
    """Return the open question that ``request`` is.

    Args:
        votes_needed: how many people must say yes.
        peer_time_ms: the runner's clock when it sent it, against which its ``expires_at_ms`` counts.
    """
    default_ms = int(limits.APPROVAL_TIMEOUT_DEFAULT_S * 1000)
    left_ms = default_ms if request.expires_at_ms is None else request.expires_at_ms - peer_time_ms
    left_ms = max(0, min(left_ms, int(limits.APPROVAL_TIMEOUT_MAX_S * 1000)))
    argv = None if request.argv is None else _cut_argv(list(request.argv))
    explanation = None if request.explanation is None else msgspec.json.encode(request.explanation)
    if explanation is not None and len(explanation) > EXPLANATION_MAX_BYTES:
        left_out = {"left_out": f"{len(explanation)} bytes: more than the hub keeps"}
        explanation = msgspec.json.encode({**left_out, **(policies_of_decision(request.explanation) or {})})
    return ApprovalRecord(
        id=mint_id("apr"),
        environment_id=environment.id,
        environment_name=environment.name,
        question_id=request.approval_id,
        task_id=task.id,
        # Whoever asks names their sessions themselves, so a session is one of its asker's.
        session_key=f"{task.created_by}/{task.session_id}" if task.session_id else f"task/{task.id}",
        command=request.command,
        gate=request.gate.value,
        argv=argv,
        path=request.path[:4_096],
        started_by=request.started_by[:4_096],
        rule=request.rule[:RULE_MAX_CHARS],
        because=request.because[:4_096],
        place=request.place[:RULE_MAX_CHARS],
        profile=request.profile,
        workdir=request.workdir[:4_096],
        requested_by=task.requested_by,
        requester=task.created_by,
        explanation=None if explanation is None else explanation.decode(),
        asked_ms=at_ms,
        expires_ms=at_ms + left_ms + EXPIRY_GRACE_MS,
        state="pending",
        votes_needed=votes_needed,
    )


def _cut_argv(words: list[str]) -> str:
    encoded = msgspec.json.encode(words)
    if len(encoded) > ARGV_MAX_BYTES:
        kept: list[str] = []
        room = ARGV_MAX_BYTES
        for word in words:
            # An escape takes at most six bytes.
            room -= 6 * len(word) + 3
            if room < 0:
                break
            kept.append(word)
        encoded = msgspec.json.encode([*kept, f"[guardhouse: {len(words) - len(kept)} more words are left out]"])
    return encoded.decode()
