"""What a tool answered as text: every kind of block, and what a server of another mind may send."""

import pytest

from guardhouse.runner.mcp_service import mcp_subject
from guardhouse.runner.mcp_text import describe_tool, render_result


def test_every_block_is_named_in_order() -> None:
    """Text as it is, everything else by its kind, with the whole block kept."""
    blocks = [
        {"type": "text", "text": "a\nb"},
        {"type": "image", "mimeType": "image/png", "data": "aGk="},
        {"type": "audio", "data": "aGk="},
        {"type": "resource_link", "name": "log", "uri": "file:///log"},
        {"type": "resource", "resource": {"uri": "x://1", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "x://2", "mimeType": "a/b", "blob": "aGk="}},
        {"type": "hologram", "data": 1},
    ]
    answer = render_result({"content": blocks, "structuredContent": {"n": 1}, "isError": True})
    assert answer.text.split("\n") == [
        *("a", "b", "[Image: image/png]", "[Audio: unknown type]", "[Resource link: log file:///log]"),
        *("[Resource: x://1]", "inside", "[Resource: x://2, a/b]", "[hologram]"),
    ]
    assert list(answer.parts) == blocks[1:]
    assert (answer.structured, answer.is_error, answer.notes) == ({"n": 1}, True, ())


@pytest.mark.parametrize(
    "result",
    [{}, {"content": None}, {"content": "text"}, {"content": [7, "x", None]}, {"content": [{"type": 7, "text": 8}]}],
)
def test_what_is_not_as_it_should_be_is_said(result: dict[str, object]) -> None:
    """A malformed result is text and notes, never an error of ours."""
    answer = render_result(result)
    assert answer.notes or answer.parts
    assert answer.is_error is False


def test_tools_without_a_name_are_none() -> None:
    """A tool's name is what it is called by; the rest may be missing."""
    assert describe_tool({"name": "t", "description": 7, "inputSchema": {"type": "object"}}) == (
        "t", "", {"type": "object"},
    )  # fmt: skip
    assert describe_tool({"description": "x"}) is None
    assert describe_tool({"name": ""}) is None


def test_a_slash_in_a_name_does_not_shift_the_border() -> None:
    """`a/b` of server `c` is not tool `b/…` of another server, whatever rules say about either."""
    assert mcp_subject("server", "tool") == "server/tool"
    assert mcp_subject("a/b", "c") == "a%2Fb/c"
    assert mcp_subject("a", "b/c") == "a/b%2Fc"
    assert mcp_subject("a", "b%2Fc") == "a/b%252Fc"
    assert mcp_subject("My server", "get-it_1.0") == "My server/get-it_1.0"
