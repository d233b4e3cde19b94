"""What the REST interface takes and answers about records of MCP servers. Runs in the hub."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from guardhouse.hub.api.schemas import Input, Output, Reference
from guardhouse.hub.api.schemas_environments import EnvironmentScope

__all__ = [
    "McpServer",
    "McpServerCheck",
    "McpServerCreate",
    "McpServerList",
    "McpServerTest",
    "McpServerTested",
    "McpServerUpdate",
    "McpToolShown",
]

_TIMEOUT_MAX_S: Final = 3_600
_NAME = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$(?![\s\S])")]
_Word = Annotated[str, Meta(max_length=8_192, pattern=r"^[^\x00]*$(?![\s\S])")]
_Words = Annotated[tuple[_Word, ...], Meta(max_length=256)]
_Values = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=256)], _Word], Meta(max_length=64)]
_Timeout = Annotated[float, Meta(gt=0, le=_TIMEOUT_MAX_S)]
Transport = Literal["stdio", "sse", "streamable-http"]


class McpServerCreate(Input, frozen=True):
    """A new record. ``env`` and ``headers`` are kept sealed and never shown again.

    ``stdio`` needs a ``command``, the others a ``url``. With an ``environment`` (id or name) it is for that one only.
    """

    name: _NAME
    transport: Transport
    command: _Word = ""
    args: _Words = ()
    url: _Word = ""
    env: _Values = msgspec.field(default_factory=dict)
    headers: _Values = msgspec.field(default_factory=dict)
    connect_timeout_s: _Timeout | None = None
    call_timeout_s: _Timeout | None = None
    scope: EnvironmentScope = EnvironmentScope()
    environment: Reference | None = None
    enabled: bool = True


class McpServerUpdate(Input, frozen=True):
    """What changes; what is absent stays. A value of ``env`` or ``headers`` that is empty keeps the one before."""

    name: _NAME | UnsetType = UNSET
    transport: Transport | UnsetType = UNSET
    command: _Word | UnsetType = UNSET
    args: _Words | UnsetType = UNSET
    url: _Word | UnsetType = UNSET
    env: _Values | UnsetType = UNSET
    headers: _Values | UnsetType = UNSET
    connect_timeout_s: _Timeout | UnsetType | None = UNSET
    call_timeout_s: _Timeout | UnsetType | None = UNSET
    environment: Reference | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class McpServerCheck(Output, frozen=True):
    """What it answered in one environment when it was asked for its tools last."""

    environment_id: str
    checked_at: str
    tool_count: int | None
    error: str | None


class McpServer(Output, frozen=True):
    """One record; values of ``env`` and ``headers`` are masked."""

    id: str
    name: str
    transport: Transport
    command: str
    args: list[str]
    url: str
    env: dict[str, str]
    headers: dict[str, str]
    connect_timeout_s: float | None
    call_timeout_s: float | None
    team_id: str | None
    environment_id: str | None
    enabled: bool
    created_at: str
    created_by: str
    updated_at: str
    checks: tuple[McpServerCheck, ...] = ()


class McpServerList(Output, frozen=True):
    """Every record that the caller sees, by name."""

    servers: list[McpServer]


class McpServerTest(Input, frozen=True):
    """Where its tools are asked for."""

    environment_id: Reference


class McpToolShown(Output, frozen=True):
    """One tool, in its server's words."""

    name: str
    description: str


class McpServerTested(Output, frozen=True):
    """What the server answered; ``error`` where it did not."""

    environment_id: str
    task_id: str
    tools: list[McpToolShown]
    error: str | None
