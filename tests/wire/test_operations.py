"""Arguments and results of every operation."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.strategies import values_of

from guardhouse.errors import PeerError
from guardhouse.wire.messages import McpServer, TaskRequest
from guardhouse.wire.operations import (
    OPERATIONS,
    BashArgs,
    BashResult,
    GlobArgs,
    ListArgs,
    ListEntry,
    ListResult,
    McpCallArgs,
    ReadArgs,
    Result,
    SuccessResult,
    WebfetchArgs,
    WriteArgs,
    parse_args,
    parse_result,
)
from guardhouse.wire.paths import path_as_bytes, path_as_text, path_b64

SERVER = {"name": "s", "transport": "stdio", "command": "x"}


def test_every_operation_of_the_protocol_is_known() -> None:
    """The ten operations of WIRE_PROTOCOL have typed arguments and results."""
    protocol = "read write list glob grep bash webfetch mcp_call mcp_list_tools sync_skill"
    assert set(protocol.split()) <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("operation", "args", "parsed"),
    [
        ("bash", {"command": "id"}, BashArgs(command="id")),
        ("bash", {"command": "id", "timeout": 5, "workdir": "a"}, BashArgs(command="id", timeout=5.0, workdir="a")),
        ("read", {"path": "a", "offset": 3, "limit": -1}, ReadArgs(path="a", offset=3, limit=-1)),
        ("write", {"path": "a", "content": "AAE="}, WriteArgs(path="a", content=b"\0\1")),
        ("list", None, ListArgs()),
        ("list", {"path": "a", "recursive": True, "ignore": None}, ListArgs(path="a", recursive=True)),
        ("glob", {"pattern": "**/*.py"}, GlobArgs(pattern="**/*.py")),
        ("webfetch", {"url": "https://x", "format": ""}, WebfetchArgs(url="https://x")),
        (
            "mcp_call",
            {"server": SERVER, "tool_name": "t", "args": {"a": None}},
            McpCallArgs(server=McpServer(name="s", transport="stdio", command="x"), tool_name="t", args={"a": None}),
        ),
    ],
)
def test_args(operation: str, args: object, parsed: object) -> None:
    """Well-formed arguments become their type; null is absent, base64 is bytes."""
    assert parse_args(operation, args) == parsed


@pytest.mark.parametrize(
    ("operation", "args", "text"),
    [
        ("format_disk", {}, "unknown operation: format_disk"),
        ("", {}, "unknown operation: "),
        ("read", {}, "invalid read args: Object missing required field `path`"),
        ("read", [], "invalid read args: Expected `object`, got `array`"),
        ("read", "x", "invalid read args: Expected `object`, got `str`"),
        ("read", {"path": 1}, "invalid read args: Expected `str`, got `int` - at `$.path`"),
        ("read", {"path": "a", "offset": -1}, "invalid read args: Expected `int` >= 0 - at `$.offset`"),
        ("read", {"path": "a", "offset": "1"}, "invalid read args: Expected `int`, got `str` - at `$.offset`"),
        ("read", {"path": "a\0b"}, "invalid read args: "),
        ("read", {"path": "a" * 40_000}, "invalid read args: "),
        ("write", {"path": "a"}, "invalid write args: Object missing required field `content`"),
        ("write", {"path": "a", "content": "A"}, "invalid write args: Invalid base64 encoded string"),
        ("write", {"path": "a", "content": "AA==\n"}, "invalid write args: Invalid base64"),
        ("bash", {"command": "a\0b"}, "invalid bash args: "),
        ("bash", {"command": "a" * 131_072}, "invalid bash args: "),
        ("bash", {"command": "id", "timeout": -1}, "invalid bash args: "),
        ("bash", {"command": "id", "timeout": 86_401}, "invalid bash args: "),
        ("bash", {"command": "id", "timeout": True}, "invalid bash args: "),
        ("bash", {"command": ["id"]}, "invalid bash args: "),
        ("webfetch", {"url": "https://x", "format": "pdf"}, "invalid webfetch args: "),
        ("mcp_call", {"server": {}, "tool_name": "t"}, "invalid mcp_call args: "),
        ("grep", {"pattern": ""}, "invalid grep args: "),
        ("sync_skill", {"skill_name": "s", "skill_dir": "d", "zip_data": 1}, "invalid sync_skill args: "),
        ("move", {"path": "a", "target": "b", "target_b64": "/w=="}, "invalid move args: invalid path: "),
    ],
)
def test_bad_args(operation: str, args: object, text: str) -> None:
    """Bad arguments are refused in the words that the seed's users search for."""
    with pytest.raises(PeerError) as caught:
        parse_args(operation, args)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("args", "seconds"),
    [
        (BashArgs(command=""), 120),
        (BashArgs(command="", timeout=0), 120),
        (BashArgs(command="", timeout=0.5), 0.5),
        (WebfetchArgs(url="x"), 30),
        (WebfetchArgs(url="x", timeout=300), 120),
        (McpCallArgs(server=McpServer(name="s", transport="sse"), tool_name="t"), 60),
        (McpCallArgs(server=McpServer(name="s", transport="sse", call_timeout=9), tool_name="t"), 9),
    ],
)
def test_timeouts(args: BashArgs | WebfetchArgs | McpCallArgs, seconds: float) -> None:
    """Absent and 0 mean the default of WIRE_PROTOCOL; a page never takes more than 120 s."""
    assert args.timeout_s == seconds


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_results_round_trip(operation: str, data: st.DataObject) -> None:
    """Every result is read back as it was written."""
    result = data.draw(values_of(OPERATIONS[operation][1]))
    assert parse_result(operation, msgspec.json.decode(msgspec.json.encode(result))) == result


@pytest.mark.parametrize(
    ("result", "json"),
    [
        (BashResult(exit_code=0), b'{"stdout":"","stderr":"","exit_code":0}'),
        (SuccessResult(), b'{"success":true}'),
        (ListResult(), b'{"entries":[]}'),
        (
            ListResult(entries=(ListEntry(path="a", is_dir=False, size=0),)),
            b'{"entries":[{"path":"a","is_dir":false,"size":0}]}',
        ),
    ],
)
def test_result_has_the_platforms_fields(result: Result, json: bytes) -> None:
    """A result without anything special is exactly what the plain protocol says."""
    assert sorted(msgspec.json.decode(msgspec.json.encode(result)).items()) == sorted(msgspec.json.decode(json).items())


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=30).filter(lambda raw: b"\0" not in raw))
def test_path_round_trip(raw: bytes) -> None:
    """Any file name that Linux allows survives the wire byte for byte."""
    assert path_as_bytes(path_as_text(raw), path_b64(raw)) == raw


def test_path_and_bytes_must_agree() -> None:
    """A path whose text is not that of its bytes is refused: rules and people would read another name."""
    with pytest.raises(PeerError, match="is not the text of path_b64"):
        path_as_bytes("harmless", b"/etc/shadow")


def test_paths_that_no_file_can_have() -> None:
    """A NUL or a lone surrogate is refused rather than cut or guessed."""
    for path, raw in (("a\0b", None), ("a\0", b"a\0"), ("a\udc80", None)):
        with pytest.raises(PeerError, match="invalid path"):
            path_as_bytes(path, raw)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_args_round_trip(operation: str, data: st.DataObject) -> None:
    """Arguments are read back as they were written, and paths in them name the bytes that were meant."""
    args = data.draw(values_of(OPERATIONS[operation][0]))
    fixed = {f"{name}_b64": None for name in ("path", "target", "pattern", "workdir") if hasattr(args, f"{name}_b64")}
    args = msgspec.structs.replace(args, **fixed)
    parsed = parse_args(operation, msgspec.json.decode(msgspec.json.encode(args)))
    assert parsed == args
    for name in ("path", "target", "pattern", "workdir"):
        if hasattr(parsed, f"{name}_bytes"):
            assert getattr(parsed, f"{name}_bytes") == getattr(args, name).encode()


def test_unknown_result() -> None:
    """A result is read for a known operation only, and a wrong one is the runner's fault."""
    with pytest.raises(PeerError, match="unknown operation"):
        parse_result("format_disk", {})
    with pytest.raises(PeerError, match="invalid bash result: Object missing required field `exit_code`"):
        parse_result("bash", {})


def test_secrets_stay_out_of_repr() -> None:
    """What an MCP server record holds in env and headers is not in its repr, so not in a log by accident."""
    server = McpServer(name="s", transport="stdio", env={"TOKEN": "hunter2"}, headers={"A": "hunter2"})
    assert "hunter2" not in repr(server)
    request = TaskRequest(task_id="t", operation="mcp_call", args={"server": {"env": {"TOKEN": "hunter2"}}})
    assert "hunter2" not in repr(request)
