"""The arguments and results of every operation that a task can ask for: WIRE_PROTOCOL "Operations".

Strict like the messages: a known field has one type and bound, unknown fields are ignored, ``null`` is absent. What
the table of WIRE_PROTOCOL does not have is optional and of ours; a plain platform neither sends nor needs it.
Knows nothing of how an operation is done. Runs in the runner, its workers and the hub.
"""

from guardhouse.wire.operations.base import Args, Result
from guardhouse.wire.operations.bash import BashArgs, BashResult
from guardhouse.wire.operations.files import (
    EditArgs,
    EditResult,
    GlobArgs,
    GlobResult,
    GrepArgs,
    GrepMatch,
    GrepResult,
    ListArgs,
    ListEntry,
    ListResult,
    MoveArgs,
    ReadArgs,
    ReadResult,
    RemoveArgs,
    StatArgs,
    StatResult,
    SuccessResult,
    WalkProblem,
    WriteArgs,
)
from guardhouse.wire.operations.mcp import McpCallArgs, McpListToolsArgs, McpListToolsResult, McpOutcome, McpTool
from guardhouse.wire.operations.skill import SyncSkillArgs, SyncSkillResult
from guardhouse.wire.operations.table import INVALID_ARGS, OPERATIONS, UNKNOWN_OPERATION, parse_args, parse_result
from guardhouse.wire.operations.webfetch import WEBFETCH_TIMEOUT_MAX_S, WebfetchArgs, WebfetchResult

__all__ = [
    "INVALID_ARGS",
    "OPERATIONS",
    "UNKNOWN_OPERATION",
    "WEBFETCH_TIMEOUT_MAX_S",
    "Args",
    "BashArgs",
    "BashResult",
    "EditArgs",
    "EditResult",
    "GlobArgs",
    "GlobResult",
    "GrepArgs",
    "GrepMatch",
    "GrepResult",
    "ListArgs",
    "ListEntry",
    "ListResult",
    "McpCallArgs",
    "McpListToolsArgs",
    "McpListToolsResult",
    "McpOutcome",
    "McpTool",
    "MoveArgs",
    "ReadArgs",
    "ReadResult",
    "RemoveArgs",
    "Result",
    "StatArgs",
    "StatResult",
    "SuccessResult",
    "SyncSkillArgs",
    "SyncSkillResult",
    "WalkProblem",
    "WebfetchArgs",
    "WebfetchResult",
    "WriteArgs",
    "parse_args",
    "parse_result",
]
