"""A scripted model on the loopback: it has an agent call one tool after the other, and keeps what it is told.

Speaks, as far as agents need, four interfaces of model providers, each as a stream: Anthropic's Messages, OpenAI's
Responses and Chat Completions, and Gemini's streamGenerateContent. Decides nothing by itself: the script says which
call comes next. Knows no MCP: an agent's tools are those that it offers. Runs in the tests of agents.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

__all__ = ["Call", "ModelServer", "Script"]

# What every agent says of itself to its model beside the tools' results: long texts, which nobody here reads.
_WORDS: Final = "The walk is over."


@dataclass(frozen=True)
class Call:
    """One call: the tool's own name, as its MCP server has it, and the arguments."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass
class Script:
    """What the model does, one call after the other.

    Attributes:
        next_call: the call that follows on what every call before it brought, as (call, text); None: it is over.
        brought: what the model was given for each call so far, to the character.
        offered: the descriptions of the tools, by their own names, as the agent gave them to its model.
        asked: how often the agent asked with the tools at hand.
    """

    next_call: Callable[[list[tuple[Call, str]]], Call | None]
    brought: list[tuple[Call, str]] = field(default_factory=list)
    offered: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    _current: Call | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def go_on(self, results: Mapping[str, str]) -> tuple[str, Call] | None:
        """Return the call to make, under its id; ``results`` are all that the conversation holds, by the calls' ids."""
        with self._lock:
            self.asked += 1
            found = results.get(self._id) if self._current is not None else None
            if self._current is not None and found is not None:
                self.brought.append((self._current, found))
                self._current = None
            if self._current is None:
                self._current = self.next_call(self.brought)
            return None if self._current is None else (self._id, self._current)

    @property
    def _id(self) -> str:
        return f"call_{len(self.brought):04d}"


class ModelServer:
    """Serves one script on a free port of the loopback while it is held."""

    def __init__(self, script: Script, *, server: str) -> None:
        """``server`` is the name under which the agent has the MCP server: part of the names that it gives tools."""
        self.script = script
        self.requests: list[tuple[str, Any]] = []
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, server))
        self._thread = threading.Thread(target=self._httpd.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def __enter__(self) -> "ModelServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


def _handler(model: ModelServer, server: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._json({"data": [{"id": "scripted", "object": "model"}], "models": []})

        def do_HEAD(self) -> None:
            self._json({})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
            path = self.path.partition("?")[0]
            model.requests.append((path, body))
            if path.endswith("/count_tokens"):
                self._json({"input_tokens": 100})
            elif path.endswith("/messages"):
                self._stream(_anthropic(model.script, server, body), named=True)
            elif path.endswith("/responses"):
                self._stream(_responses(model.script, server, body), named=True)
            elif path.endswith("/chat/completions"):
                self._stream(_chat(model.script, server, body), named=False, end="[DONE]")
            elif path.endswith(":streamGenerateContent"):
                self._stream(_gemini(model.script, server, body), named=False)
            elif path.endswith(":generateContent"):
                [whole] = _gemini(model.script, server, {**body, "tools": []})
                self._json(whole)
            else:
                self._json({})

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _stream(self, events: Iterator[dict[str, Any]], *, named: bool, end: str = "") -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for event in events:
                name = f"event: {event['type']}\n" if named else ""
                self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
            if end:
                self.wfile.write(f"data: {end}\n\n".encode())
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    return Handler


def _own_name(name: str, server: str) -> str | None:
    """Return a tool's own name from the one that the agent gave it; None for a tool of the agent's."""
    for prefix in (f"mcp__{server}__", f"mcp_{server}_", f"{server}__", f"{server}_", f"{server}-", f"{server}."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return None


def _anthropic(script: Script, server: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = {}
    for tool in body.get("tools") or []:
        own = _own_name(tool["name"], server)
        if own is not None:
            names[own] = tool["name"]
            script.offered[own] = tool
    results = {
        block["tool_use_id"]: _text_of(block.get("content"))
        for message in body.get("messages", [])
        if isinstance(message.get("content"), list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    }
    found = script.go_on(results) if names else None
    usage = {"input_tokens": 10, "output_tokens": 10}
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [],
    }
    yield {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}}
    if found is None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": _WORDS}
    else:
        block = {"type": "tool_use", "id": found[0], "name": names[found[1].tool], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(found[1].arguments)}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    reason = "end_turn" if found is None else "tool_use"
    yield {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    yield {"type": "message_stop"}


def _responses(script: Script, server: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names: dict[str, dict[str, str]] = {}
    for tool in body.get("tools") or []:
        if tool.get("type") == "namespace":
            space = _own_name(f"{tool['name'].rstrip('_')}__", server) is not None
            for inner in tool.get("tools") or [] if space else []:
                names[inner["name"]] = {"name": inner["name"], "namespace": tool["name"]}
                script.offered[inner["name"]] = inner
        elif (own := _own_name(tool.get("name", ""), server)) is not None:
            names[own] = {"name": tool["name"]}
            script.offered[own] = tool
    results = {
        item["call_id"]: _text_of(item.get("output"))
        for item in body.get("input") or []
        if isinstance(item, dict) and item.get("type") == "function_call_output"
    }
    found = script.go_on(results) if names else None
    answer: dict[str, Any] = {"id": "resp_1", "object": "response", "model": body.get("model"), "output": []}
    yield {"type": "response.created", "response": {**answer, "status": "in_progress"}}
    if found is None:
        text = {"type": "output_text", "text": _WORDS, "annotations": []}
        item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}
    else:
        item = {"type": "function_call", "id": "fc_1", "call_id": found[0], **names[found[1].tool]}
        item["arguments"] = json.dumps(found[1].arguments)
    item["status"] = "completed"
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    usage = {"input_tokens": 10, "output_tokens": 10, "total_tokens": 20}
    yield {
        "type": "response.completed",
        "response": {**answer, "status": "completed", "output": [item], "usage": usage},
    }


def _chat(script: Script, server: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = {}
    for tool in body.get("tools") or []:
        own = _own_name(tool["function"]["name"], server)
        if own is not None:
            names[own] = tool["function"]["name"]
            script.offered[own] = tool["function"]
    results = {
        message["tool_call_id"]: _text_of(message.get("content"))
        for message in body.get("messages", [])
        if message.get("role") == "tool"
    }
    found = script.go_on(results) if names else None
    if found is None:
        delta: dict[str, Any] = {"role": "assistant", "content": _WORDS}
    else:
        function = {"name": names[found[1].tool], "arguments": json.dumps(found[1].arguments)}
        delta = {"role": "assistant", "tool_calls": [{"index": 0, "id": found[0], "type": "function"}]}
        delta["tool_calls"][0]["function"] = function
    chunk = {"id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
    yield {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = "stop" if found is None else "tool_calls"
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}


def _gemini(script: Script, server: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = {}
    for group in body.get("tools") or []:
        for tool in group.get("functionDeclarations") or []:
            own = _own_name(tool["name"], server)
            if own is not None:
                names[own] = tool["name"]
                script.offered[own] = tool
    results = {
        part["functionResponse"].get("id", ""): _text_of(part["functionResponse"].get("response"))
        for content in body.get("contents", [])
        for part in content.get("parts", [])
        if "functionResponse" in part
    }
    found = script.go_on(results) if names else None
    part: dict[str, Any] = {"text": _WORDS}
    if found is not None:
        part = {"functionCall": {"id": found[0], "name": names[found[1].tool], "args": dict(found[1].arguments)}}
    yield {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20},
    }


def _text_of(content: Any) -> str:
    """Return a tool's result as one text: of blocks the text of each, of another kind the block as JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            block["text"] if isinstance(block, dict) and isinstance(block.get("text"), str) else json.dumps(block)
            for block in content
        )
    return json.dumps(content)
