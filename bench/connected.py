"""Many plain-protocol runners on one hub process: memory, processor time, dispatch, and how long until all are back.

    python bench/connected.py [--runners 1000] [--listed 10000] [--idle 60] [--tls]

A hub process of its own on a new SQLite store; the runners are simulated in other processes: real sockets, real
frames, a heartbeat every 54 s as the seed's runner sends it, an answer to every task at once, back after 1 to 5 s.
Prints one JSON object:

* ``connect``: seconds until all are connected, and the slowest answer of ``/healthz`` meanwhile;
* ``idle``: the hub's resident memory (KiB, and KiB for each runner above an empty hub) and share of one core;
* ``dispatch``: one task at a time to runners at random, then 16 at a time;
* ``restart``: after ``kill -9`` of the hub under tasks: seconds until it answers and until all are back, peak memory,
  seconds of a task asked for meanwhile of a runner that is back, and the tasks lost, run twice or without an end;
* ``listed``: one page of 100 of all environments.

``--listed`` is how many environments there are in all; those above ``--runners`` never connect.
"""

import argparse
import base64
import json
import os
import random
import resource
import secrets
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import trio
import trustme

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

HEARTBEAT_S = 54.0
BACK_WITHIN_S = 300.0
PROCESSES = 3


# The simulated runners: one process for some thousands.


def masked(text: bytes, opcode: int = 1) -> bytes:
    size = len(text)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack("!H", size)
    # A mask of zeros is a mask; that it cannot be foreseen matters to proxies only.
    return head + bytes(4) + text


def message(kind: str, payload: dict[str, Any]) -> bytes:
    frame = {"id": "msg_bench", "type": kind, "payload": payload, "timestamp": int(time.time() * 1000)}
    return masked(json.dumps(frame).encode())


class Simulated:
    """Some thousands of runners and what they have seen."""

    def __init__(self, url: str, tokens: list[str], authority: str | None) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.tokens = tokens
        self.context = ssl.create_default_context(cafile=authority) if authority is not None else None
        self.connected = 0
        self.executed: dict[str, int] = {}
        self.refusals = 0
        self.cuts = 0

    async def runner(self, token: str) -> None:
        await trio.sleep(random.uniform(0, 2))
        while True:
            try:
                await self.session(token)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, EOFError):
                self.cuts += 1
            await trio.sleep(random.uniform(1, 5))

    async def session(self, token: str) -> None:
        with trio.fail_after(60):
            stream: trio.abc.Stream = await trio.open_tcp_stream(self.host, self.port)
            if self.context is not None:
                stream = trio.SSLStream(stream, self.context, server_hostname="localhost", https_compatible=True)
            key = base64.b64encode(secrets.token_bytes(16)).decode()
            await stream.send_all(
                f"GET /safari/worknode/ws?token={token} HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            buffer = b""
            while b"\r\n\r\n" not in buffer:
                buffer += await self.more(stream)
        if not buffer.startswith(b"HTTP/1.1 101"):
            self.refusals += 1
            await stream.aclose()
            return
        buffer = buffer.partition(b"\r\n\r\n")[2]
        lock = trio.Lock()
        async with stream, trio.open_nursery() as nursery:
            self.connected += 1
            try:
                nursery.start_soon(self.heartbeats, stream, lock, token)
                while True:
                    opcode, payload, buffer = await self.frame(stream, buffer)
                    if opcode == 8:
                        break
                    if opcode == 9:
                        async with lock:
                            await stream.send_all(masked(payload, opcode=10))
                    elif opcode == 1:
                        await self.heard(stream, lock, payload)
            finally:
                self.connected -= 1
                nursery.cancel_scope.cancel()

    async def more(self, stream: trio.abc.Stream) -> bytes:
        data = await stream.receive_some(4_096)
        if not data:
            raise EOFError
        return bytes(data)

    async def frame(self, stream: trio.abc.Stream, buffer: bytes) -> tuple[int, bytes, bytes]:
        while True:
            if len(buffer) >= 2:
                size, start = buffer[1] & 127, 2
                if size == 126 and len(buffer) >= 4:
                    size, start = struct.unpack_from("!H", buffer, 2)[0], 4
                elif size >= 126:
                    start = 1 << 30
                if len(buffer) >= start + size:
                    return buffer[0] & 15, buffer[start : start + size], buffer[start + size :]
            buffer += await self.more(stream)

    async def heartbeats(self, stream: trio.abc.Stream, lock: trio.Lock, token: str) -> None:
        environment = {"os": "linux", "arch": "amd64", "hostname": f"host-{token[-8:]}"}
        while True:
            beat = {"worknode_id": "", "name": "", "labels": [], "version": "9.9.9", "environment": environment}
            beat["metrics"] = {"cpu_percent": 1.5, "memory_percent": 2.5, "disk_percent": 3.5}
            async with lock:
                await stream.send_all(message("heartbeat", beat))
            await trio.sleep(HEARTBEAT_S * random.uniform(0.9, 1.1))

    async def heard(self, stream: trio.abc.Stream, lock: trio.Lock, payload: bytes) -> None:
        frame = json.loads(payload)
        if frame["type"] != "task.request":
            return
        task_id = frame["payload"]["task_id"]
        self.executed[task_id] = self.executed.get(task_id, 0) + 1
        result = {"stdout": "", "stderr": "", "exit_code": 0}
        answer = {"task_id": task_id, "success": True, "exit_code": 0, "result": result}
        async with lock:
            await stream.send_all(message("task.result", answer))

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for token in self.tokens:
                nursery.start_soon(self.runner, token)
            commands = trio.lowlevel.FdStream(os.dup(0))
            async for _ in commands:
                counts = {"connected": self.connected, "refusals": self.refusals, "executed": self.executed}
                print(json.dumps(counts), flush=True)
            nursery.cancel_scope.cancel()


def simulate() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    given = json.loads(sys.stdin.readline())
    trio.run(Simulated(given["url"], given["tokens"], given["authority"]).run)


class Fleet:
    """The processes of simulated runners, asked by a line each."""

    def __init__(self, url: str, tokens: list[str], authority: str | None) -> None:
        self.processes = []
        for index in range(PROCESSES):
            process = subprocess.Popen(
                [sys.executable, __file__, "--simulate"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert process.stdin is not None
            given = {"url": url, "tokens": tokens[index::PROCESSES], "authority": authority}
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
            self.processes.append(process)

    def ask(self) -> tuple[int, int, dict[str, int]]:
        connected, refusals, executed = 0, 0, {}
        for process in self.processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
        for process in self.processes:
            assert process.stdout is not None
            found = json.loads(process.stdout.readline())
            connected += found["connected"]
            refusals += found["refusals"]
            executed |= found["executed"]
        return connected, refusals, executed

    async def until_connected(self, count: int, *, tasks_done: Callable[[], bool] = lambda: True) -> float:
        began = time.perf_counter()
        while time.perf_counter() - began < BACK_WITHIN_S:
            connected, _, _ = await trio.to_thread.run_sync(self.ask)
            if connected >= count and tasks_done():
                return time.perf_counter() - began
            await trio.sleep(0.25)
        raise SystemExit(f"only {connected} of {count} runners are connected after {BACK_WITHIN_S:.0f} s")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


# The hub.


def seed(state_dir: Path, count: int) -> list[str]:
    """Make the store with ``count`` environments in it and return their tokens."""
    from guardhouse.hub.config import HubConfig
    from guardhouse.hub.credentials import RUNNER_TOKEN_PREFIX, Sealer, mint_id, mint_token, token_digest, token_hint
    from guardhouse.hub.server import initialise, open_database
    from guardhouse.hub.state_dir import StateDir
    from guardhouse.hub.store import environments, tokens

    config = HubConfig(state_dir=state_dir)
    initialise(config).close()
    state = StateDir.open(state_dir)
    sealer = Sealer(state.sealing_key(is_in_use=True))
    made = [mint_token(RUNNER_TOKEN_PREFIX) for _ in range(count)]

    def insert(connection: Any) -> None:
        for number, token in enumerate(made):
            environment_id, token_id, at_ms = mint_id("env"), mint_id("rtk"), int(time.time() * 1000)
            environments.insert_environment(
                connection,
                environment_id=environment_id,
                name=f"host-{number:06}",
                team_id=None,
                tags=("bench", f"rack-{number % 40}"),
                created_ms=at_ms,
                created_by="hub",
            )
            tokens.insert_runner_token(
                connection,
                tokens.RunnerTokenRecord(
                    id=token_id,
                    environment_id=environment_id,
                    digest=token_digest(token),
                    sealed=sealer.seal(token, owner=f"{environment_id}/{token_id}"),
                    hint=token_hint(token),
                    created_ms=at_ms,
                    created_by="hub",
                    expires_ms=None,
                    last_used_ms=None,
                ),
            )

    async def write() -> None:
        database = open_database(config, state)
        async with trio.open_nursery() as nursery:
            await nursery.start(database.run)
            await database.write(insert)
            database.close()

    trio.run(write)
    state.close()
    return made


class Hub:
    """The hub's process."""

    def __init__(self, state_dir: Path, *, port: int, tls: tuple[Path, Path] | None) -> None:
        words = ["hub", "--listen", f"127.0.0.1:{port}", "--state-dir", str(state_dir), "--log-level", "error"]
        if tls is not None:
            words += ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])]
        began = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, "-m", "guardhouse", *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said: list[str] = []
        for line in self.process.stderr:
            said.append(line)
            if "listening on" in line:
                break
        else:
            raise SystemExit("the hub did not start: " + "".join(said))
        self.url = said[-1].split()[-1]
        self.started_s = time.perf_counter() - began

    def memory_kib(self, field: str = "VmRSS") -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    def processor_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait()


def free_port() -> int:
    """Return a port that no client is given as its own: one that dials a dead hub could connect to itself otherwise."""
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def note(text: str) -> None:
    """Say on standard error how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def milliseconds(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 1), "p99_ms": round(cuts[98] * 1000, 1)}


async def timed(call: Callable[[], Awaitable[Any]], count: int) -> dict[str, float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return milliseconds(seconds)


async def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    state_dir = directory / "state"
    tls = authority = None
    verify: Any = True
    if options.tls:
        ca = trustme.CA()
        issued = ca.issue_cert("localhost", "127.0.0.1")
        tls, authority = (directory / "chain.pem", directory / "key.pem"), str(directory / "ca.pem")
        tls[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(tls[1]))
        ca.cert_pem.write_to_path(authority)
        verify = ssl.create_default_context(cafile=authority)
    tokens = await trio.to_thread.run_sync(partial(seed_elsewhere, state_dir, max(options.runners, options.listed)))
    tokens = tokens[: options.runners]
    port = free_port()
    hub = Hub(state_dir, port=port, tls=tls)
    empty_kib = hub.memory_kib()
    found: dict[str, Any] = {"runners": options.runners, "tls": options.tls, "empty_hub_kib": empty_kib}
    owner = (state_dir / "owner.token").read_text().strip()
    limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
    arguments = {"headers": {"authorization": f"Bearer {owner}"}, "verify": verify, "timeout": 120, "limits": limits}
    note(f"the hub answers after {hub.started_s:.1f} s")
    fleet = Fleet(hub.url, tokens, authority)
    try:
        async with httpx2.AsyncClient(base_url=hub.url, **arguments) as http:
            found["listed"] = {
                "environments": max(options.runners, options.listed),
                **await timed(lambda: http.get("/api/v1/environments", params={"limit": 100}), 20),
            }
            slowest = [0.0]

            async def watch() -> None:
                while True:
                    began = time.perf_counter()
                    await http.get("/healthz")
                    slowest[0] = max(slowest[0], time.perf_counter() - began)
                    await trio.sleep(0.1)

            before_s = hub.processor_s()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                took_s = await fleet.until_connected(options.runners)
                nursery.cancel_scope.cancel()
            found["connect"] = {
                "all_s": round(took_s, 1),
                "slowest_healthz_ms": round(slowest[0] * 1000),
                "hub_processor_ms_each": round((hub.processor_s() - before_s) * 1000 / options.runners, 2),
            }
            note("all are connected")
            await trio.sleep(20)
            before_s, began = hub.processor_s(), time.perf_counter()
            await trio.sleep(options.idle)
            resident = hub.memory_kib()
            found["idle"] = {
                "resident_kib": resident,
                "kib_each": round((resident - empty_kib) / options.runners, 1),
                "peak_kib": hub.memory_kib("VmHWM"),
                "core_percent": round((hub.processor_s() - before_s) / (time.perf_counter() - began) * 100, 1),
            }
            note(f"idle: {found['idle']}")
            asked: list[str] = []

            async def ask(wait_s: float = 60) -> str:
                name = f"host-{random.randrange(options.runners):06}"
                body = {"environment_id": name, "operation": "bash", "args": {"command": "true"}, "queue_s": 120}
                reply = await http.post("/api/v1/tasks", params={"wait_s": wait_s}, json=body)
                task = reply.json()
                asked.append(task["id"])
                return str(task["state"])

            async def many(count: int) -> None:
                for _ in range(count):
                    await ask()

            found["dispatch"] = await timed(ask, 200)
            began, before_s = time.perf_counter(), hub.processor_s()
            async with trio.open_nursery() as callers:
                for _ in range(16):
                    callers.start_soon(many, 40)
            found["dispatch"]["tasks_per_s_with_16_callers"] = round(640 / (time.perf_counter() - began), 1)
            found["dispatch"]["hub_processor_ms_each"] = round((hub.processor_s() - before_s) * 1000 / 640, 2)

            note(f"dispatch: {found['dispatch']}")

            # Killed in the middle of tasks, so that some are on their way.
            async def until_cut() -> None:
                while True:
                    try:
                        await ask(0)
                    except (httpx2.HTTPError, KeyError):
                        return

            async with trio.open_nursery() as callers:
                for _ in range(8):
                    callers.start_soon(until_cut)
                await trio.sleep(1)
                hub.end()
        began = time.perf_counter()
        hub = await trio.to_thread.run_sync(lambda: Hub(state_dir, port=port, tls=tls))
        restart: dict[str, Any] = {"answers_after_s": round(time.perf_counter() - began, 1)}
        async with httpx2.AsyncClient(base_url=hub.url, **arguments) as http:
            meanwhile: list[float] = []

            async def ask_meanwhile() -> None:
                while True:
                    page = await http.get("/api/v1/environments", params={"status": "online", "limit": 1})
                    if page.status_code == 200 and page.json()["environments"]:
                        began = time.perf_counter()
                        body = {"environment_id": page.json()["environments"][0]["id"], "operation": "bash"}
                        reply = await http.post(
                            "/api/v1/tasks", params={"wait_s": 60}, json=body | {"args": {"command": "true"}}
                        )
                        if reply.status_code == 200:
                            meanwhile.append(time.perf_counter() - began)
                    await trio.sleep(1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_meanwhile)
                await fleet.until_connected(options.runners)
                restart["all_back_s"] = round(time.perf_counter() - began, 1)
                nursery.cancel_scope.cancel()
            note(f"all are back after {restart['all_back_s']} s")
            restart["peak_kib"] = hub.memory_kib("VmHWM")
            restart["task_meanwhile_slowest_s"] = round(max(meanwhile), 2) if meanwhile else None
            # A plain runner keeps no results: one that was cut off on its way is `lost` after 90 s, with that reason.
            states: dict[str, int] = {}
            deadline = time.perf_counter() + 240
            pending = asked
            while pending and time.perf_counter() < deadline:
                still = []
                for task_id in pending:
                    task = (await http.get(f"/api/v1/tasks/{task_id}")).json()
                    if task["finished"]:
                        states[task["state"]] = states.get(task["state"], 0) + 1
                    else:
                        still.append(task_id)
                pending = still
                await trio.sleep(1)
            _, refusals, executed = await trio.to_thread.run_sync(fleet.ask)
            restart["tasks"] = {
                "acknowledged": len(asked),
                **states,
                "without_an_end": len(pending),
                "run_twice": sum(count > 1 for count in executed.values()),
                "refused_upgrades": refusals,
            }
            found["restart"] = restart
            found["listed_connected"] = await timed(
                lambda: http.get("/api/v1/environments", params={"limit": 100, "status": "online"}), 20
            )
    finally:
        fleet.end()
        hub.end()
    return found


def seed_elsewhere(state_dir: Path, count: int) -> list[str]:
    """Run `seed` in a process of its own: it has an event loop of its own."""
    words = [sys.executable, __file__, "--seed", str(state_dir), "--listed", str(count)]
    found: list[str] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", type=int, default=1_000)
    parser.add_argument("--listed", type=int, default=10_000, help="environments in all")
    parser.add_argument("--idle", type=float, default=60, help="seconds of rest to measure")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--simulate", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simulate:
        simulate()
    elif options.seed is not None:
        print(json.dumps(seed(options.seed, options.listed)))
    else:
        with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as directory:
            print(json.dumps(trio.run(measure, options, Path(directory)), indent=2))


if __name__ == "__main__":
    main()
