"""Messages to JSON bodies and back, checked strictly. Standard library only."""

import json
import re
from typing import Any, Final

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.launcher.messages.kinds import (
    AnswerQuestion,
    Exited,
    Launch,
    Message,
    ProxyListening,
    Question,
    QuestionOver,
    Ready,
    Refused,
    Started,
    StartWorker,
    Stop,
    WorkerStarted,
)
from guardhouse.launcher.messages.object_reader import ObjectReader
from guardhouse.launcher.messages.request import CommandOutcome, LaunchRequest, StopReason, check_launch_request

__all__ = ["parse_message", "render_message"]

_QUESTION_TEXT_MAX_CHARS: Final = 65_536
_WORKER: Final = re.compile(r"[a-z][a-z_]{0,31}\Z")

_KINDS: Final[dict[str, type]] = {
    "launch": Launch,
    "question": Question,
    "answer_question": AnswerQuestion,
    "question_over": QuestionOver,
    "stop": Stop,
    "start_worker": StartWorker,
    "proxy_listening": ProxyListening,
    "started": Started,
    "exited": Exited,
    "refused": Refused,
    "worker_started": WorkerStarted,
    "ready": Ready,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


# Made once: `json.dumps` and `json.loads` with options make a new one each time.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def render_message(message: Message) -> bytes:
    """Return the JSON body of ``message``."""
    # One level by hand, not `asdict`: it copies every list and string container below as well.
    body: dict[str, Any] = {"op": _NAMES[type(message)]}
    for name in type(message).__slots__:
        value = getattr(message, name)
        if isinstance(value, LaunchRequest | CommandOutcome):
            value = {key: getattr(value, key) for key in type(value).__slots__}
        body[name] = value
    return _ENCODER.encode(body).encode("ascii")


def parse_message(body: bytes) -> Message:
    """Return the message in ``body``, checked against every limit.

    Raises:
        PeerError: not JSON, an unknown or missing key, a wrong type, or a value beyond its limit.
    """
    if len(body) > limits.LAUNCH_BODY_MAX_BYTES:
        raise PeerError(
            f"launch message of {len(body)} bytes, the limit is {limits.LAUNCH_BODY_MAX_BYTES}", code="oversized"
        )
    try:
        raw = _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PeerError(f"launch message is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise PeerError(f"launch message must be an object, got {type(raw).__name__}")
    operation = raw.pop("op", None)
    kind = _KINDS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        raise PeerError(f"unknown launch operation: {operation!r}")
    reader = ObjectReader(raw, str(operation))
    identifier = reader.take_int("id", 0, 2**53)
    message: Message
    match operation:
        case "launch":
            message = Launch(identifier, _parse_request(reader.take_object("request")))
        case "stop":
            message = Stop(identifier, _parse_reason(reader.take_text("reason", 64)))
        case "start_worker":
            message = StartWorker(identifier, reader.take_matching("kind", _WORKER))
        case "proxy_listening":
            message = ProxyListening(identifier)
        case "started":
            message = Started(identifier, reader.take_int("pid", 1, 2**31))
        case "exited":
            message = Exited(identifier, _parse_outcome(reader.take_object("outcome")))
        case "refused":
            message = Refused(identifier, reader.take_text("layer", 256), reader.take_text("why", 16_384))
        case "ready":
            message = Ready(identifier)
        case "question":
            message = Question(
                identifier,
                reader.take_int("number", 1, 2**53),
                argv=reader.take_texts("argv"),
                **{
                    name: reader.take_text(name, _QUESTION_TEXT_MAX_CHARS)
                    for name in ("path", "started_by", "rule", "place", "because")
                },
            )
        case "answer_question":
            message = AnswerQuestion(
                identifier,
                reader.take_int("number", 1, 2**53),
                allows=reader.take_bool("allows"),
                why=reader.take_text("why", limits.APPROVAL_WHY_MAX_CHARS),
            )
        case "question_over":
            message = QuestionOver(
                identifier, reader.take_int("number", 1, 2**53), reader.take_text("why", limits.APPROVAL_WHY_MAX_CHARS)
            )
        case _:
            message = WorkerStarted(identifier, reader.take_int("pid", 1, 2**31))
    reader.finish()
    return message


def _parse_reason(text: str) -> StopReason:
    try:
        return StopReason(text)
    except ValueError as error:
        raise PeerError(f"unknown stop reason: {text!r}; known: {', '.join(StopReason)}") from error


def _parse_request(raw: dict[str, Any]) -> LaunchRequest:
    reader = ObjectReader(raw, "launch.request")
    request = LaunchRequest(
        profile=reader.take_text("profile", 64),
        argv=reader.take_texts("argv"),
        workdir=reader.take_text("workdir", limits.LAUNCH_WORKDIR_MAX_BYTES),
        environment=reader.take_table("environment", str),
        timeout_s=reader.take_number("timeout_s"),
        grace_s=reader.take_number("grace_s"),
        requester=reader.take_optional_text("requester"),
        ask_timeout_s=reader.take_number("ask_timeout_s"),
        approved=reader.take_text_lists("approved"),
    )
    reader.finish()
    check_launch_request(request)
    return request


def _parse_outcome(raw: dict[str, Any]) -> CommandOutcome:
    reader = ObjectReader(raw, "exited.outcome")
    outcome = CommandOutcome(
        exit_code=reader.take_int("exit_code", 0, 255),
        signal=reader.take_optional_int("signal"),
        timed_out=reader.take_bool("timed_out"),
        cancelled=reader.take_bool("cancelled"),
        duration_s=reader.take_number("duration_s"),
        cpu_user_s=reader.take_number("cpu_user_s"),
        cpu_system_s=reader.take_number("cpu_system_s"),
        peak_memory_bytes=reader.take_optional_int("peak_memory_bytes"),
        oom_killed=reader.take_bool("oom_killed"),
        denied_syscalls=reader.take_table("denied_syscalls", int),
        killed_descendants=reader.take_int("killed_descendants", 0, 2**53),
        notes=reader.take_texts("notes"),
        reason=reader.take_optional_text("reason"),
        execs=reader.take_optional_object("execs"),
    )
    reader.finish()
    return outcome
