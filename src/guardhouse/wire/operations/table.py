"""The table of operations, and arguments and results parsed by it. Runs wherever `wire` does."""

from typing import Any, Final

from guardhouse.errors import PeerError
from guardhouse.wire.operations.base import Args, Result
from guardhouse.wire.operations.bash import BashArgs, BashResult
from guardhouse.wire.operations.files import (
    EditArgs,
    EditResult,
    GlobArgs,
    GlobResult,
    GrepArgs,
    GrepResult,
    ListArgs,
    ListResult,
    MoveArgs,
    ReadArgs,
    ReadResult,
    RemoveArgs,
    StatArgs,
    StatResult,
    SuccessResult,
    WriteArgs,
)
from guardhouse.wire.operations.mcp import McpCallArgs, McpListToolsArgs, McpListToolsResult, McpOutcome
from guardhouse.wire.operations.skill import SyncSkillArgs, SyncSkillResult
from guardhouse.wire.operations.webfetch import WebfetchArgs, WebfetchResult
from guardhouse.wire.paths import path_as_bytes
from guardhouse.wire.typed import parse_typed, printable

__all__ = ["INVALID_ARGS", "OPERATIONS", "UNKNOWN_OPERATION", "parse_args", "parse_result"]

UNKNOWN_OPERATION: Final = "unknown_operation"
INVALID_ARGS: Final = "invalid_args"

OPERATIONS: Final[dict[str, tuple[type[Args], type[Result]]]] = {
    "bash": (BashArgs, BashResult),
    "read": (ReadArgs, ReadResult),
    "write": (WriteArgs, SuccessResult),
    "list": (ListArgs, ListResult),
    "glob": (GlobArgs, GlobResult),
    "grep": (GrepArgs, GrepResult),
    "webfetch": (WebfetchArgs, WebfetchResult),
    "mcp_call": (McpCallArgs, McpOutcome),
    "mcp_list_tools": (McpListToolsArgs, McpListToolsResult),
    "sync_skill": (SyncSkillArgs, SyncSkillResult),
    "edit": (EditArgs, EditResult),
    "stat": (StatArgs, StatResult),
    "move": (MoveArgs, SuccessResult),
    "remove": (RemoveArgs, SuccessResult),
}


def parse_args(operation: str, args: Any) -> Args:
    """Return the typed arguments of ``operation``.

    Args:
        operation: as `TaskRequest.operation` has it.
        args: the plain JSON value of `TaskRequest.args`; None stands for no arguments.

    Raises:
        PeerError: ``unknown_operation`` ("unknown operation: …") or ``invalid_args`` ("invalid read args: …").
    """
    if operation not in OPERATIONS:
        raise PeerError(f"unknown operation: {printable(operation)}", code=UNKNOWN_OPERATION)
    kind = OPERATIONS[operation][0]
    parsed = parse_typed(args, kind, what=f"{operation} args", code=INVALID_ARGS)
    _check_encodings(operation, parsed)
    return parsed


def parse_result(operation: str, result: Any) -> Result:
    """Return the typed result of ``operation``, as the hub reads it.

    Raises:
        PeerError: ``unknown_operation``, or ``invalid_result`` ("invalid read result: …").
    """
    if operation not in OPERATIONS:
        raise PeerError(f"unknown operation: {printable(operation)}", code=UNKNOWN_OPERATION)
    return parse_typed(result, OPERATIONS[operation][1], what=f"{operation} result", code="invalid_result")


def _check_encodings(operation: str, args: Args) -> None:
    """Refuse paths whose text and bytes disagree, at the door rather than where the file is opened."""
    for name in ("path", "target", "pattern", "workdir"):
        text = getattr(args, name, None)
        if isinstance(text, str):
            try:
                path_as_bytes(text, getattr(args, f"{name}_b64", None))
            except PeerError as error:
                raise PeerError(f"invalid {operation} args: {error}", code=INVALID_ARGS) from error
