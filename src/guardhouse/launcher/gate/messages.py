"""What a monitor and the launcher say to each other about questions: small typed values to datagrams and back.

The launcher tells a monitor which request begins, what a person answered and that the command ends; the monitor tells
what it asks and what need not be answered any more. Both are our own programs and one another's parent and child, so
a message that is not of this form is an error of ours. Knows no socket. Standard library only.
"""

import json
from dataclasses import dataclass
from typing import Any

from guardhouse.errors import InvariantError
from guardhouse.launcher.gate.judge import Judgement
from guardhouse.launcher.gate.questions import Answer, Request
from guardhouse.policy.model import Context

__all__ = ["Asked", "Begin", "End", "Over", "parse_order", "parse_question", "render_order", "render_question"]


@dataclass(frozen=True, slots=True)
class Begin:
    """To the monitor: the command that comes next."""

    request: Request


@dataclass(frozen=True, slots=True)
class End:
    """To the monitor: the command is being stopped; whatever is asked is refused."""


@dataclass(frozen=True, slots=True)
class Asked:
    """From the monitor: a process waits for the answer to this. Texts are as long as the record's."""

    number: int
    path: str
    argv: tuple[str, ...]
    started_by: str
    rule: str
    place: str
    because: str

    @classmethod
    def of(cls, number: int, judgement: Judgement, *, started_by: str) -> "Asked":
        """Return the question that ``judgement`` asks."""
        return cls(
            number, judgement.path, judgement.argv, started_by, judgement.rule, judgement.place, judgement.because
        )


@dataclass(frozen=True, slots=True)
class Over:
    """From the monitor: the question is none any more, and why."""

    number: int
    why: str


def render_order(order: Begin | End | tuple[int, Answer]) -> bytes:
    """Return the JSON of an order; an answer is the question's number with the answer."""
    body: dict[str, Any]
    match order:
        case Begin(request):
            context = request.context
            body = {
                "op": "begin",
                "environment": None if context.environment is None else sorted(context.environment),
                "requester": context.requester,
                "ask_timeout_s": request.ask_timeout_s,
                "approved": sorted((place, list(argv)) for place, argv in request.approved),
            }
        case End():
            body = {"op": "end"}
        case (number, answer):
            body = {"op": "answer", "number": number, "allows": answer.allows, "why": answer.why}
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def parse_order(body: bytes) -> Begin | End | tuple[int, Answer]:
    """Return the order in ``body``.

    Raises:
        InvariantError: it is none.
    """
    raw = _object(body)
    try:
        match raw["op"]:
            case "begin":
                tags = raw["environment"]
                context = Context(
                    environment=None if tags is None else frozenset(tags), requester=raw["requester"], now=None
                )
                approved = frozenset((place, tuple(argv)) for place, argv in raw["approved"])
                return Begin(Request(context, float(raw["ask_timeout_s"]), approved))
            case "end":
                return End()
            case "answer":
                return (int(raw["number"]), Answer(allows=raw["allows"] is True, why=str(raw["why"])))
    except (KeyError, TypeError, ValueError) as error:
        raise InvariantError(f"an order to a monitor is incomplete: {error!r}") from error
    raise InvariantError(f"unknown order to a monitor: {raw['op']!r}")


def render_question(question: Asked | Over) -> bytes:
    """Return the JSON of what a monitor says."""
    body: dict[str, Any]
    if isinstance(question, Over):
        body = {"op": "over", "number": question.number, "why": question.why}
    else:
        body = {"op": "asked", **{name: getattr(question, name) for name in Asked.__slots__}}
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def parse_question(body: bytes) -> Asked | Over:
    """Return what a monitor says in ``body``.

    Raises:
        InvariantError: it is nothing that a monitor says.
    """
    raw = _object(body)
    try:
        if raw["op"] == "over":
            return Over(int(raw["number"]), str(raw["why"]))
        texts = {name: str(raw[name]) for name in ("path", "started_by", "rule", "place", "because")}
        return Asked(number=int(raw["number"]), argv=tuple(map(str, raw["argv"])), **texts)
    except (KeyError, TypeError, ValueError) as error:
        raise InvariantError(f"a monitor's message is incomplete: {error!r}") from error


def _object(body: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(body)
    except ValueError as error:
        raise InvariantError(f"not JSON between launcher and monitor: {error}") from error
    if not isinstance(raw, dict):
        raise InvariantError("no object between launcher and monitor")
    return raw
