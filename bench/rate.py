"""Tasks through one hub at a fixed rate, whatever its answers do (open loop): errors, latency, processor time.

    python bench/rate.py [--rate 300] [--seconds 60] [--runners 200] [--store postgresql] [--json]

A hub process of its own on a new store, simulated plain runners in another (`connected_clients.py`), the callers in
this one. A task is due every 1/rate seconds and is sent then: over an idle connection, or a new one where none is
idle. So a hub that falls behind is not given less to do, and a wait behind others counts: latency runs from the moment
a task was *due* until its result is here (``wait_s``), ``late_ms`` says how late this program itself came to send.

Prints one JSON object: ``errors`` by kind (to be empty), ``latency`` (p50, p99, p99.9 and the slowest, ms), what was
``reached`` (answers a second until the last one), ``started_twice`` by the runners' own record (to be 0), and the
hub's processor time: ``hub_processor_ms_each`` for one task, ``hub_core_percent`` of one core, all threads together;
``callers_core_percent`` is this program's own.
``--profile FILE`` names a file that the process id of the hub is written to when the load begins.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from tests.support.postgresql import find_programs, running_cluster

from connected import Fleet, note
from connected_hub import Hub, free_port, seed_elsewhere

# Tasks before those that count: the first of each kind of statement is rendered, caches fill.
WARM_UP_S = 3.0
ANSWER_WITHIN_S = 60.0
# Below the hub's own 8 s: a request over a connection that the other side is just closing would be reset.
IDLE_MAX_S = 4.0


class Caller(asyncio.Protocol):
    """One keep-alive connection, one request at a time, by the little HTTP/1.1 that the hub's answers need."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.transport: Any = None
        self.buffer = b""
        self.due_s = 0.0
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes, *, due_s: float) -> None:
        self.due_s = due_s
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, ended, body = self.buffer.partition(b"\r\n\r\n")
        if not ended:
            return
        size = next(
            int(value)
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
            if name.lower() == b"content-length"
        )
        if len(body) < size:
            return
        self.buffer = b""
        due_s, self.due_s = self.due_s, 0.0
        self.load.answered(self, due_s, status=head[9:12].decode(), body=body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost(self, due_s=self.due_s, why=type(exc).__name__ if exc is not None else "closed")


class Load:
    """The tasks of one run."""

    def __init__(self, url: str, token: str, *, runners: int) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.runners = runners
        self.head = (
            f"POST /api/v1/tasks?wait_s=30 HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\n"
        )
        self.idle: deque[Caller] = deque()
        self.connections = 0
        self.sent = 0
        self.open = 0
        self.latencies_s: list[float] = []
        self.lateness_s: list[float] = []
        self.errors: Counter[str] = Counter()
        self.asking: set[asyncio.Task[None]] = set()
        # Set when no task is without an answer.
        self.settled = asyncio.Event()

    def request(self, number: int) -> bytes:
        body = json.dumps(
            {
                "environment_id": f"host-{random.randrange(self.runners):06}",
                "operation": "bash",
                "args": {"command": "true"},
                "idempotency_key": f"rate-{os.getpid()}-{number}-{random.randrange(1 << 48)}",
            }
        )
        return f"{self.head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    async def run(self, *, rate: float, seconds: float) -> None:
        """Send what is due when it is due, then wait for the last answers."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(int(rate * seconds)):
            due_s = began_s + number / rate
            if (ahead_s := due_s - loop.time()) > 0:
                await asyncio.sleep(ahead_s)
            self.lateness_s.append(loop.time() - due_s)
            self.sent += 1
            self.open += 1
            self.settled.clear()
            request = self.request(self.sent)
            if (caller := self.take_idle()) is not None:
                caller.send(request, due_s=due_s)
            else:
                asking = asyncio.create_task(self.send_anew(request, due_s=due_s))
                self.asking.add(asking)
                asking.add_done_callback(self.asking.discard)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self.settled.wait()
        except TimeoutError:
            self.errors["no answer"] += self.open

    def take_idle(self) -> Caller | None:
        """Return the connection used last, unless that has been idle for too long: then all have, and are closed."""
        now_s = asyncio.get_running_loop().time()
        while self.idle:
            caller = self.idle.pop()
            if now_s - caller.idle_since_s < IDLE_MAX_S and not caller.transport.is_closing():
                return caller
            caller.transport.close()
        return None

    async def send_anew(self, request: bytes, *, due_s: float) -> None:
        try:
            _, caller = await asyncio.get_running_loop().create_connection(lambda: Caller(self), self.host, self.port)
        except OSError as error:
            self.close_one()
            self.errors[f"no connection: {type(error).__name__}"] += 1
            return
        self.connections += 1
        caller.send(request, due_s=due_s)

    def close_one(self) -> None:
        self.open -= 1
        if not self.open:
            self.settled.set()

    def answered(self, caller: Caller, due_s: float, *, status: str, body: bytes) -> None:
        self.close_one()
        caller.idle_since_s = asyncio.get_running_loop().time()
        self.idle.append(caller)
        state = json.loads(body).get("state") if status == "200" else status
        if state != "succeeded":
            self.errors[str(state)] += 1
        self.latencies_s.append(caller.idle_since_s - due_s)

    def lost(self, caller: Caller, *, due_s: float, why: str) -> None:
        if due_s:
            self.close_one()
            self.errors[f"connection lost: {why}"] += 1
        elif caller in self.idle:
            self.idle.remove(caller)

    def forget(self) -> None:
        """Let what follows count alone."""
        self.latencies_s.clear()
        self.lateness_s.clear()
        self.errors.clear()


def milliseconds(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=1000)
    found = {"p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998], "slowest": max(seconds)}
    return {name: round(value * 1000, 1) for name, value in found.items()}


async def measure(options: argparse.Namespace, hub: Hub, token: str, fleet: Fleet) -> dict[str, Any]:
    began_s = time.perf_counter()
    while (connected := (await asyncio.to_thread(fleet.ask, "?"))[0]["connected"]) < options.runners:
        if time.perf_counter() - began_s > ANSWER_WITHIN_S:
            raise SystemExit(f"only {connected} of {options.runners} runners are connected")
        await asyncio.sleep(0.1)
    load = Load(hub.url, token, runners=options.runners)
    await load.run(rate=options.rate, seconds=WARM_UP_S)
    load.forget()
    note(f"{options.runners} runners are connected, the load begins")
    if options.profile is not None:
        options.profile.write_text(str(hub.process.pid))
    before_s, own_before_s, began_s = hub.processor_s(), time.process_time(), time.perf_counter()
    await load.run(rate=options.rate, seconds=options.seconds)
    took_s, processor_s = time.perf_counter() - began_s, hub.processor_s() - before_s
    own_s = time.process_time() - own_before_s
    starts = (await asyncio.to_thread(fleet.ask, "record"))[0]
    count = int(options.rate * options.seconds)
    return {
        "rate": options.rate,
        "seconds": options.seconds,
        "runners": options.runners,
        "store": options.store,
        "tasks": count,
        "reached": round(len(load.latencies_s) / took_s, 1),
        "errors": dict(load.errors),
        "started_twice": sum(times > 1 for times in starts.values()),
        "never_started": load.sent - len(starts),
        "latency_ms": milliseconds(load.latencies_s),
        "late_ms": milliseconds(load.lateness_s),
        "connections": load.connections,
        "hub_processor_ms_each": round(processor_s * 1000 / count, 2),
        "hub_core_percent": round(processor_s / took_s * 100, 1),
        "callers_core_percent": round(own_s / took_s * 100, 1),
        "hub_peak_kib": hub.memory_kib("VmHWM"),
    }


@contextmanager
def new_database(store: str) -> Iterator[str | None]:
    """Give the address of an empty database on a PostgreSQL server that waits for its disk; of SQLite none."""
    if store == "sqlite":
        yield None
        return
    programs = find_programs()
    if programs is None:
        raise SystemExit("no PostgreSQL server is installed here: initdb and postgres (Debian: postgresql)")
    with running_cluster(programs) as cluster:
        cluster.stop()
        cluster.start(durable=True)
        yield cluster.new_database(is_empty=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=300, help="tasks a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runners", type=int, default=200)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite", help="a new one of its own")
    parser.add_argument("--profile", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as directory, new_database(options.store) as database:
        state_dir = Path(directory) / "state"
        tokens = seed_elsewhere(state_dir, options.runners, database=database)
        hub = Hub(state_dir, port=free_port(), tls=None, database=database)
        fleet = None
        try:
            fleet = Fleet(hub.url, tokens, authority=None, spread_s=1, processes=1)
            token = (state_dir / "owner.token").read_text().strip()
            found = asyncio.run(measure(options, hub, token, fleet))
        finally:
            if fleet is not None:
                fleet.end()
            hub.end()
    found |= {"load_before": load_before, "load_after": os.getloadavg()[0]}
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
