"""A real runner, confined as it always is, with a profile in network mode `domains`: result, log and reload."""

import http.server
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform_stub import open_stub
from tests.support.runner_process import make_directory, remove_directory, start_runner

TOKEN = "wnt_canary_3e17"
PROFILE = """
profile: web
summary: isolate, and one name
extends: isolate
network:
  mode: domains
  why: test of the egress proxy
  domains: [{{domain: localhost, ports: [{port}], why: test}}]
  addresses:
    - {{address: 127.0.0.1, ports: [{port}], why: test}}
    - {{address: "::1", ports: [{port}], why: test}}
"""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def directory(port: int) -> Iterator[Path]:
    place = make_directory()
    (place / "web.yaml").write_text(PROFILE.format(port=port))
    yield place
    remove_directory(place)


async def test_connections_are_in_the_result_and_in_the_log(directory: Path, port: int) -> None:
    """The host's own name service resolves; what was reached and refused goes to the hub, and to the log by task."""
    flags = ("--profile", str(directory / "web.yaml"))
    fetch = f"curl -sS -x http://127.0.0.1:3128 --noproxy '' http://localhost:{port}/?api_key=AKIAIOSFODNN7EXAMPLE"
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=flags) as run,
    ):
        peer = await stub.peer()
        found = await peer.run(f"{fetch}; curl -sS https://evil.example/")
        result = found["result"]
        assert result["stdout"] == "served"
        assert "[guardhouse: the egress proxy refused evil.example:443: no entry of profile 'web'" in result["stderr"]
        reached, refused = result["egress"]["connections"]
        assert (reached["host"], reached["verdict"], reached["bytes_down"]) == ("localhost", "allow", 6)
        assert reached["address"] in ("127.0.0.1", "::1")
        assert (refused["host"], refused["code"]) == ("evil.example", "domain")
        assert (result["egress"]["allowed"], result["egress"]["refused"]) == (1, 1)
        await run.logged("event=egress")
        lines = [line for line in run.text.splitlines() if "event=egress" in line]
        assert len(lines) == 2
        assert all(f"task_id={found['task_id']}" in line for line in lines)
        assert "AKIAIOSFODNN7EXAMPLE" not in run.text + str(result)


async def test_a_reload_changes_what_the_proxy_lets_pass(directory: Path, port: int) -> None:
    """The next command's proxy obeys the new profile's names and the new policy's egress rules."""
    flags = ("--profile", str(directory / "web.yaml"))
    fetch = f"curl -sS -o /dev/null -w '%{{http_code}}' -x http://127.0.0.1:3128 --noproxy '' http://localhost:{port}/"
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=flags) as run,
    ):
        peer = await stub.peer()
        assert (await peer.run(fetch))["result"]["stdout"] == "200"
        policy = (directory / "policy.yaml").read_text()
        (directory / "policy.yaml").write_text(policy + f'  egress:\n    "http://localhost:{port}/other": allow\n')
        run.process.send_signal(signal.SIGHUP)
        await run.logged("policy reloaded")
        refused = (await peer.run(fetch))["result"]
        assert refused["stdout"] == "403"
        assert refused["egress"]["connections"][0]["code"] == "policy"
