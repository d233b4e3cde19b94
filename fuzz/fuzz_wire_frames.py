"""Any bytes are a message, or a PeerError: in both directions, as text and as bytes alike, and stable once read."""

from contextlib import suppress

from driver import main
from guardhouse.errors import PeerError
from guardhouse.wire.envelope import parse_frame, render_frame
from guardhouse.wire.messages import Direction, TaskRequest, TaskResult, Unknown
from guardhouse.wire.operations import OPERATIONS, parse_args, parse_result

__all__ = ["TARGET", "fuzz_one"]


def _outcome(data: bytes | str, direction: Direction) -> object:
    try:
        return parse_frame(data, direction=direction)
    except PeerError as error:
        return error.code


def fuzz_one(data: bytes) -> None:
    """Parse; what parses is read back the same after rendering; arguments and results never raise anything else."""
    for direction in Direction:
        outcome = _outcome(data, direction)
        if isinstance(outcome, str):
            continue
        assert outcome == _outcome(data.decode("utf-8"), direction)
        message = outcome.payload
        if isinstance(message, Unknown):
            continue
        again = parse_frame(render_frame(message, message_id="m", timestamp_ms=0), direction=direction)
        assert again.payload == message
        if isinstance(message, TaskRequest):
            _check(parse_args, message.operation, message.args)
        elif isinstance(message, TaskResult):
            for operation in OPERATIONS:
                _check(parse_result, operation, message.result)


def _check(parse, operation: str, value: object) -> None:
    with suppress(PeerError):
        parse(operation, value)


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
