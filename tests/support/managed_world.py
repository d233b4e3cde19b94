"""A hub with a managed sandbox in network and mount namespaces of its own, and a host beside it with public addresses.

Started by tests/hub/test_managed_egress.py below `unshare`; prints one JSON object. The other host is a process in a
further network namespace, at the end of a virtual cable: its servers are real, and nothing of it leaves the machine.
"""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import trio
from tests.support.runner_process import ACCOUNT

from guardhouse.hub.config import HubConfig
from guardhouse.hub.managed.settings import ManagedSettings
from guardhouse.hub.managed.upkeep import SandboxUpkeep
from guardhouse.hub.server import open_hub

LISTED, OTHER, GATEWAY = "93.184.216.34", "93.184.216.35", "93.184.216.1"
HOSTS = f"""\
127.0.0.1 localhost
{LISTED} packages.example.com
{OTHER} evil.example.net
127.0.0.1 inside.example.org
10.1.2.3 private.example.org
"""
# Through the proxy that the sandbox's variables name, or past it with a plain socket.
FETCH = """\
import sys, urllib.request
try:
    print("GOT", urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
except OSError as error:
    print("NO", error, getattr(error, "read", bytes)())
"""
DIRECT = """\
import socket, sys
try:
    print("GOT", socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).getpeername())
except OSError as error:
    print("NO", error)
"""


class Handler(http.server.BaseHTTPRequestHandler):
    """Says its address, and keeps who asked."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        body = f"from {self.server.server_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def serve(address: str) -> tuple[int, list[str]]:
    seen: list[str] = []
    server = http.server.ThreadingHTTPServer((address, 0), type("OneHandler", (Handler,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], seen


def be_the_other_host() -> None:
    """Serve at the public addresses until standard input ends; then tell how many requests came to each server."""
    sys.stdin.readline()
    ip("addr", "add", f"{LISTED}/32", "dev", "far")
    ip("addr", "add", f"{OTHER}/32", "dev", "far")
    ip("link", "set", "far", "up")
    ip("route", "add", f"{GATEWAY}/32", "dev", "far")
    served = [serve(LISTED), serve(LISTED), serve(OTHER)]
    print(json.dumps([port for port, _ in served]), flush=True)
    sys.stdin.read()
    print(json.dumps([len(seen) for _, seen in served]), flush=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def make_world(directory: Path) -> "subprocess.Popen[str]":
    """Lay the cable to the other host, give the names their own file, and return the other host's process."""
    hosts = directory / "hosts"
    hosts.write_text(HOSTS, encoding="ascii")
    hosts.chmod(0o644)
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    ip("link", "set", "lo", "up")
    ip("link", "add", "near", "type", "veth", "peer", "name", "far")
    words = ["unshare", "--net", "--", sys.executable, "-m", "tests.support.managed_world"]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end_s = time.monotonic() + 30
    own = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{other.pid}/ns/net") == own and time.monotonic() < end_s:
        time.sleep(0.02)
    ip("link", "set", "far", "netns", str(other.pid))
    ip("addr", "add", f"{GATEWAY}/32", "dev", "near")
    ip("link", "set", "near", "up")
    ip("route", "add", f"{LISTED}/32", "dev", "near")
    ip("route", "add", f"{OTHER}/32", "dev", "near")
    return other


async def main(directory: Path) -> dict[str, str]:
    other_host = make_world(directory)
    assert other_host.stdin is not None
    assert other_host.stdout is not None
    other_host.stdin.write("go\n")
    other_host.stdin.flush()
    port, second_port, other_port = json.loads(other_host.stdout.readline())
    inside_port, inside_seen = serve("127.0.0.1")
    settings = ManagedSettings(directory=directory / "sandboxes", run_as=ACCOUNT if os.geteuid() == 0 else None)
    told: dict[str, str] = {}
    async with open_hub(HubConfig(state_dir=directory / "state", port=0, managed=settings)) as hub:
        token = (directory / "state" / "owner.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=hub.url, headers=headers, timeout=120) as http_:
            names = {"packages.example.com": port, "inside.example.org": inside_port, "private.example.org": port}
            domains = {"domains": [{"domain": name, "ports": [at]} for name, at in names.items()]}
            (await http_.put("/api/v1/managed-sandbox", json=domains)).raise_for_status()
            made = await http_.post("/api/v1/sessions", json={"environment": {"kind": "managed"}})
            session = made.json()["id"]

            async def task(operation: str, args: dict[str, Any]) -> dict[str, Any]:
                body = {"session_id": session, "operation": operation, "args": args}
                reply = await http_.post("/api/v1/tasks", json=body, params={"wait_s": 90})
                reply.raise_for_status()
                return reply.json()

            async def run(name: str, program: str, *arguments: str) -> None:
                words = " ".join(f"'{word}'" for word in arguments)
                done = await task("bash", {"command": f"python3 - {words} <<'END'\n{program}END"})
                told[name] = str((done["result"] or {}).get("stdout", done["error"]))

            allowed = f"http://packages.example.com:{port}/from-the-sandbox"
            await run("listed", FETCH, allowed)
            await run("other name", FETCH, f"http://evil.example.net:{other_port}/")
            await run("other address", FETCH, f"http://{OTHER}:{other_port}/")
            await run("other port", FETCH, f"http://packages.example.com:{second_port}/")
            await run("listed, leads to loopback", FETCH, f"http://inside.example.org:{inside_port}/")
            await run("listed, leads to a private address", FETCH, f"http://private.example.org:{port}/")
            await run("the hub", FETCH, f"{hub.url}/healthz")
            await run("past the proxy", DIRECT, LISTED, str(port))
            await run("past the proxy, the hub", DIRECT, "127.0.0.1", hub.url.rpartition(":")[2])
            for name, url in (("webfetch listed", allowed), ("webfetch other", f"http://{OTHER}:{other_port}/")):
                done = await task("webfetch", {"url": url})
                told[name] = json.dumps(done["result"]) if done["success"] else str(done["error"])

            # Taken off the list while it is frozen: the thawed sandbox does not reach it any more.
            host = hub.services.sessions.managed
            (environment,) = [record.environment_id for record in host.records]
            host.settings = replace(settings, idle_s=0.01)
            with trio.fail_after(60):
                while host.find(environment).state != "frozen":
                    await SandboxUpkeep(host).look(environment)
                    await trio.sleep(0.05)
            told["in memory"] = str(host.runners.frozen)
            host.settings = settings
            await http_.put("/api/v1/managed-sandbox", json={"domains": []})
            await run("listed before", FETCH, allowed)
            other_host.stdin.close()
            told["seen"] = json.dumps([*json.loads(other_host.stdout.readline()), len(inside_seen)])
            (await http_.delete(f"/api/v1/sessions/{session}")).raise_for_status()
    return told


if __name__ == "__main__":
    if len(sys.argv) == 1:
        be_the_other_host()
    else:
        print(json.dumps(trio.run(main, Path(sys.argv[1]))))
