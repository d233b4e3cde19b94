"""Many plain-protocol runners on one hub process: memory, processor time, dispatch, and how long until all are back.

    python bench/connected.py [--runners 1000] [--listed 10000] [--idle 30] [--tls] [--json]

A hub process of its own on a new SQLite store; the runners are simulated in other processes (`connected_clients.py`):
real sockets, real frames, a heartbeat every 54 s as the seed's runner sends it, our runner's own rule of when to dial
again. Says on standard error how far it is; prints one JSON object, indented unless ``--json``:

* ``connect``: seconds until all are connected, all having dialled within ``--spread`` seconds, and the hub's processor
  time for each;
* ``idle``: the hub's resident memory (KiB, and KiB for each runner above an empty hub) and share of one core;
* ``dispatch``: one task at a time to runners at random, then 16 at a time;
* ``restart``: ``kill -9`` of the hub under tasks and a new start on the same state: seconds until it answers and until
  all are back, peak memory; tasks asked for meanwhile of a runner at random: of one that is back at once (``returned``,
  with p50, p99 and the slowest), of others the slowest, most of which is the time until that runner is back;
* ``tasks``: every task of the run. ``stored`` in the hub's database, ``acknowledged`` to whoever asked, ``started`` by
  the runners' own record. To be 0: ``started_twice``, ``started_and_not_stored``, ``acknowledged_and_not_stored``,
  ``ended_twice``, ``results_lost`` (started, answered, and ended otherwise than the runner said), and after
  ``--ends-wait`` seconds ``without_an_end``. ``never_started`` had been stored as sent when the hub was killed and
  were not on the wire yet: nobody can know that of a plain runner, so they are not sent again, and end as ``lost``
  about two minutes later;
* ``listed``: one page of 100 of all environments, before anyone connects and with all connected.

``--listed`` is how many environments there are in all; those above ``--runners`` never connect.
"""

import argparse
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import trio
import trustme

sys.path.insert(0, str(Path(__file__).resolve().parent))

from connected_hub import Hub, free_port, seed_elsewhere, stored_tasks

BACK_WITHIN_S = 300.0
# Of simulated runners: each some thousands of sockets, all of one address of the loopback network.
PROCESSES = 2
CALLERS = 16
# In flight when the hub is killed, and what each takes: some end before, some meanwhile, some after.
CALLERS_AT_THE_KILL = 16
TASK_SECONDS = 4.0


class Fleet:
    """The processes of simulated runners, asked by a line each."""

    def __init__(
        self, url: str, tokens: list[str], *, authority: str | None, spread_s: float, processes: int = PROCESSES
    ) -> None:
        self.processes = []
        for index in range(processes):
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("connected_clients.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            given = {"url": url, "tokens": tokens[index::processes], "authority": authority, "spread_s": spread_s}
            given["source"] = f"127.0.0.{index + 2}"
            self.processes.append(process)
            self.say(process, json.dumps(given))

    @staticmethod
    def say(process: "subprocess.Popen[str]", line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def ask(self, question: str) -> list[dict[str, Any]]:
        for process in self.processes:
            self.say(process, question)
        found = []
        for process in self.processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"a process of simulated runners ended with status {process.wait()}")
            found.append(json.loads(line))
        return found

    async def counts(self) -> dict[str, Any]:
        total: dict[str, Any] = {"refusals": Counter()}
        for one in await trio.to_thread.run_sync(self.ask, "?"):
            total["refusals"] += Counter(one.pop("refusals"))
            for name, count in one.items():
                total[name] = total.get(name, 0) + count
        return {**total, "refusals": dict(total["refusals"])}

    async def record(self) -> Counter[str]:
        """Return how often each task was started."""
        total: Counter[str] = Counter()
        for one in await trio.to_thread.run_sync(self.ask, "record"):
            total.update(one)
        return total

    async def until_connected(self, count: int, *, began_s: float) -> float:
        noted_s = time.perf_counter()
        while time.perf_counter() - began_s < BACK_WITHIN_S:
            counts = await self.counts()
            if counts["connected"] >= count:
                return time.perf_counter() - began_s
            if time.perf_counter() - noted_s > 5:
                noted_s = time.perf_counter()
                note(f"{counts['connected']} of {count} are connected; refusals {counts['refusals']}")
            await trio.sleep(0.25)
        raise SystemExit(f"only {counts['connected']} of {count} runners are connected after {BACK_WITHIN_S:.0f} s")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


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


class Measurement:
    """One run: a hub, its runners, and every task that was asked for."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.runners: int = options.runners
        self.state_dir = directory / "state"
        self.tls: tuple[Path, Path] | None = None
        self.authority: str | None = None
        self.verify: Any = True
        if options.tls:
            self._make_certificate(directory)
        self.port = free_port()
        # Idempotency keys of the requests that were sent, and the tasks that were answered.
        self.asked: set[str] = set()
        self.acknowledged: set[str] = set()
        self.found: dict[str, Any] = {"runners": self.runners, "tls": options.tls, "load_before": os.getloadavg()[0]}

    def _make_certificate(self, directory: Path) -> None:
        ca = trustme.CA()
        issued = ca.issue_cert("localhost", "127.0.0.1")
        self.tls, self.authority = (directory / "chain.pem", directory / "key.pem"), str(directory / "ca.pem")
        self.tls[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(self.tls[1]))
        ca.cert_pem.write_to_path(self.authority)
        self.verify = ssl.create_default_context(cafile=self.authority)

    async def start_hub(self) -> Hub:
        return await trio.to_thread.run_sync(partial(Hub, self.state_dir, port=self.port, tls=self.tls))

    def client(self) -> httpx2.AsyncClient:
        owner = (self.state_dir / "owner.token").read_text().strip()
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        return httpx2.AsyncClient(
            base_url=self.hub.url,
            headers={"authorization": f"Bearer {owner}"},
            verify=self.verify,
            timeout=120,
            limits=limits,
        )

    async def run(self) -> dict[str, Any]:
        count = max(self.runners, self.options.listed)
        tokens = await trio.to_thread.run_sync(seed_elsewhere, self.state_dir, count)
        note(f"{count} environments are stored")
        self.hub = await self.start_hub()
        empty_kib = self.hub.memory_kib()
        self.found["empty_hub"] = {"resident_kib": empty_kib, "started_s": round(self.hub.started_s, 1)}
        note(f"the hub answers after {self.hub.started_s:.1f} s")
        fleet: Fleet | None = None
        try:
            async with self.client() as http:
                self.found["listed"] = {"environments": count, "pending": await self.listed(http)}
                before_s, began_s = self.hub.processor_s(), time.perf_counter()
                fleet = Fleet(
                    self.hub.url, tokens[: self.runners], authority=self.authority, spread_s=self.options.spread
                )
                took_s = await fleet.until_connected(self.runners, began_s=began_s)
                each_ms = (self.hub.processor_s() - before_s) * 1000 / self.runners
                self.found["connect"] = {"all_s": round(took_s, 1), "hub_processor_ms_each": round(each_ms, 2)}
                self.found["connect"].update(await fleet.counts())
                note(f"all are connected: {self.found['connect']}")
                await self.idle("idle", empty_kib)
                self.found["listed"]["online"] = await self.listed(http, status="online")
                await self.dispatch(http)
                await self.kill_under_load(http)
            began_s = time.perf_counter()
            self.hub = await self.start_hub()
            await self.come_back(fleet, began_s)
            await self.count_tasks(fleet)
            await self.idle("idle_after_restart", empty_kib)
        finally:
            if fleet is not None:
                fleet.end()
            self.hub.end()
        self.found["load_after"] = os.getloadavg()[0]
        return self.found

    async def listed(self, http: httpx2.AsyncClient, **query: str) -> dict[str, float]:
        async def page() -> None:
            (await http.get("/api/v1/environments", params={"limit": 100, **query})).raise_for_status()

        return await timed(page, 20)

    async def idle(self, name: str, empty_kib: int) -> None:
        before_s, began = self.hub.processor_s(), time.perf_counter()
        await trio.sleep(self.options.idle)
        resident_kib = self.hub.memory_kib()
        self.found[name] = {
            "resident_kib": resident_kib,
            "kib_each": round((resident_kib - empty_kib) / self.runners, 1),
            "peak_kib": self.hub.memory_kib("VmHWM"),
            "core_percent": round((self.hub.processor_s() - before_s) / (time.perf_counter() - began) * 100, 1),
        }
        note(f"{name}: {self.found[name]}")

    async def ask(
        self,
        http: httpx2.AsyncClient,
        *,
        command: str = "true",
        wait_s: float = 60,
        key: str | None = None,
        queue_s: float = 120,
    ) -> str:
        """Ask for one task of a runner at random and return its state; ``away`` where it is, and ``queue_s`` is 0."""
        key = key or f"bench-{len(self.asked)}-{random.randrange(1 << 48)}"
        self.asked.add(key)
        body = {
            "environment_id": f"host-{random.Random(key).randrange(self.runners):06}",
            "operation": "bash",
            # The hub waits so long, and a minute of grace, for a task whose runner never answers.
            "args": {"command": command, "timeout": 1},
            "queue_s": queue_s,
            "idempotency_key": key,
        }
        reply = await http.post("/api/v1/tasks", params={"wait_s": wait_s}, json=body)
        if reply.status_code == 409 and not queue_s:
            return "away"
        reply.raise_for_status()
        task = reply.json()
        self.acknowledged.add(task["id"])
        return str(task["state"])

    async def dispatch(self, http: httpx2.AsyncClient) -> None:
        self.found["dispatch"] = await timed(lambda: self.ask(http), self.options.tasks)
        began, before_s = time.perf_counter(), self.hub.processor_s()
        count = self.options.tasks // CALLERS + 1

        async def many() -> None:
            for _ in range(count):
                await self.ask(http)

        async with trio.open_nursery() as callers:
            for _ in range(CALLERS):
                callers.start_soon(many)
        total = count * CALLERS
        self.found["dispatch"]["tasks_per_s_with_16_callers"] = round(total / (time.perf_counter() - began), 1)
        self.found["dispatch"]["hub_processor_ms_each"] = round((self.hub.processor_s() - before_s) * 1000 / total, 2)
        note(f"dispatch: {self.found['dispatch']}")

    async def kill_under_load(self, http: httpx2.AsyncClient) -> None:
        """Kill the hub in the middle of tasks; what was not answered is asked for again of the next hub."""
        self.unanswered: dict[str, str] = {}

        async def until_cut() -> None:
            while True:
                key = f"kill-{random.randrange(1 << 48)}"
                command = f"sleep {random.uniform(0, TASK_SECONDS):.2f}"
                try:
                    await self.ask(http, command=command, wait_s=0, key=key)
                except httpx2.HTTPError:
                    self.unanswered[key] = command
                    return

        async with trio.open_nursery() as callers:
            for _ in range(CALLERS_AT_THE_KILL):
                callers.start_soon(until_cut)
            await trio.sleep(TASK_SECONDS)
            self.hub.end()
        note("the hub is killed")

    async def come_back(self, fleet: Fleet, began_s: float) -> None:
        note(f"the next hub answers after {self.hub.started_s:.1f} s")
        before = await fleet.counts()
        meanwhile: dict[str, list[float]] = {"returned": [], "away": []}
        async with self.client() as http:
            is_over = trio.Event()

            async def ask_until_answered(command: str, *, key: str, wait_s: float, queue_s: float = 120) -> str:
                # The kernel may reset connections while more come than are accepted: then with the same key again.
                while True:
                    try:
                        return await self.ask(http, command=command, key=key, wait_s=wait_s, queue_s=queue_s)
                    except httpx2.TransportError:
                        await trio.sleep(random.uniform(0, 2))

            async def ask_meanwhile() -> None:
                while not is_over.is_set():
                    key, began = f"meanwhile-{random.randrange(1 << 48)}", time.perf_counter()
                    found, state = "returned", await ask_until_answered("true", key=key, wait_s=60, queue_s=0)
                    if state == "away":
                        found, state = "away", await ask_until_answered("true", key=key, wait_s=60)
                    if state == "succeeded":
                        meanwhile[found].append(time.perf_counter() - began)
                    await trio.sleep(0.2)

            async with trio.open_nursery() as nursery:
                for key, command in self.unanswered.items():
                    nursery.start_soon(partial(ask_until_answered, command, key=key, wait_s=0))
                for _ in range(4):
                    nursery.start_soon(ask_meanwhile)
                took_s = await fleet.until_connected(self.runners, began_s=began_s)
                peak_kib = self.hub.memory_kib("VmHWM")
                is_over.set()
        after = await fleet.counts()
        self.found["restart"] = {
            "answers_after_s": round(self.hub.started_s, 1),
            "all_back_s": round(took_s, 1),
            "hub_processor_s": round(self.hub.processor_s(), 1),
            "peak_kib": peak_kib,
            "tasks_of_returned": len(meanwhile["returned"]),
            "task_of_returned": milliseconds(meanwhile["returned"]) if len(meanwhile["returned"]) > 1 else None,
            "task_of_returned_slowest_s": round(max(meanwhile["returned"], default=0.0), 2),
            "tasks_of_away": len(meanwhile["away"]),
            "task_of_away_slowest_s": round(max(meanwhile["away"], default=0.0), 2),
            "dials_each": round((after["dials"] - before["dials"]) / self.runners, 2),
            "refusals": {
                status: count - before["refusals"].get(status, 0) for status, count in after["refusals"].items()
            },
        }
        note(f"all are back: {self.found['restart']}")

    async def count_tasks(self, fleet: Fleet) -> None:
        """Compare what the store says of every task with what the runners did."""
        deadline_s = time.perf_counter() + self.options.ends_wait
        while True:
            stored = await trio.to_thread.run_sync(stored_tasks, self.state_dir)
            started = await fleet.record()
            unended = [task_id for task_id, _, _, ends in stored if not ends]
            waited_for = unended if self.options.ends == "all" else started.keys() & set(unended)
            if not waited_for or time.perf_counter() > deadline_s:
                break
            await trio.sleep(1)
        ids = {task_id for task_id, *_ in stored}
        keys = Counter(key for _, key, _, _ in stored)
        self.found["tasks"] = {
            "asked": len(self.asked),
            "acknowledged": len(self.acknowledged),
            "stored": len(stored),
            "started": len(started),
            "states": dict(Counter(state for _, _, state, _ in stored)),
            "resent_results": (await fleet.counts())["resent"],
            "started_twice": sum(count > 1 for count in started.values()),
            "started_and_not_stored": len(started.keys() - ids),
            "acknowledged_and_not_stored": len(self.acknowledged - ids),
            "stored_twice_for_one_request": sum(count > 1 for count in keys.values()),
            "ended_twice": sum(ends > 1 for *_, ends in stored),
            "results_lost": sum(state != "succeeded" for task_id, _, state, _ in stored if task_id in started),
            "never_started": sum(task_id not in started for task_id in ids),
            "without_an_end": len(unended),
        }
        note(f"tasks: {self.found['tasks']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", type=int, default=1_000)
    parser.add_argument("--listed", type=int, default=10_000, help="environments in all")
    parser.add_argument("--idle", type=float, default=30, help="seconds of rest to measure")
    parser.add_argument("--spread", type=float, default=2, help="seconds over which the first dials are spread")
    parser.add_argument("--tasks", type=int, default=200, help="tasks of each kind of dispatch")
    parser.add_argument("--ends-wait", type=float, default=150, help="seconds to wait for the last ends")
    parser.add_argument("--ends", choices=("all", "started"), default="all", help="whose ends are waited for")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as directory:
        found = trio.run(Measurement(options, Path(directory)).run)
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
