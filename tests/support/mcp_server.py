"""An MCP server made with the official SDK, for tests: over stdio, streamable HTTP or SSE, with tools that misbehave.

python mcp_server.py stdio
python mcp_server.py http|sse PORT_FILE     # listens on a free port of the loopback and writes it into the file
"""

import os
import socket
import sys
import time
from pathlib import Path

import anyio
from mcp.server import MCPServer
from mcp.types import AudioContent, EmbeddedResource, ImageContent, TextContent, TextResourceContents

server = MCPServer("test-server", version="1.2.3")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


@server.tool()
async def wait(seconds: float) -> str:
    """Answer late."""
    await anyio.sleep(seconds)
    return f"waited {seconds:g}"


@server.tool()
def show() -> list[TextContent | ImageContent | AudioContent | EmbeddedResource]:
    """Answer with every kind of content."""
    return [
        TextContent(type="text", text="first"),
        ImageContent(type="image", data="aGk=", mime_type="image/png"),
        AudioContent(type="audio", data="aGk=", mime_type="audio/wav"),
        EmbeddedResource(
            type="resource", resource=TextResourceContents(uri="file:///a.txt", mime_type="text/plain", text="inside")
        ),
        TextContent(type="text", text="last"),
    ]


@server.tool()
def large(size: int) -> str:
    """Answer with so many bytes."""
    return "x" * size


@server.tool()
def environment() -> dict[str, str]:
    """Return this process's environment."""
    return dict(os.environ)


@server.tool()
def run(command: str) -> str:
    """Run a shell command where the server is."""
    with os.popen(command) as pipe:
        return pipe.read()


@server.tool()
def die() -> str:
    """End the server's process at once."""
    os._exit(3)


@server.tool()
def spin(seconds: float) -> str:
    """Block the server's only thread."""
    time.sleep(seconds)
    return "spun"


def main() -> None:
    """Serve as the command line says."""
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    import uvicorn

    app = server.streamable_http_app() if sys.argv[1] == "http" else server.sse_app()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        path = Path(sys.argv[2])
        path.with_suffix(".new").write_text(str(listener.getsockname()[1]), encoding="ascii")
        path.with_suffix(".new").rename(path)
        config = uvicorn.Config(app, log_level="error")
        anyio.run(lambda: uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
