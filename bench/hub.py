"""How long the hub itself takes: a task through API, store, gateway and back, with a runner that answers at once.

    python bench/hub.py [--tasks 500] [--environments 10000]

Starts a hub in a process of its own on a new state directory; client and scripted runner are in this one. Prints one
JSON object: milliseconds at p50 and p99, tasks a second with 16 at a time, and the time of a page of many environments.
What a sandboxed command costs on top is bench/roundtrip's subject.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.runner_stub import connect_v1


def percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 2), "p99_ms": round(cuts[98] * 1000, 2)}


async def timed(call: Callable[[], Awaitable[Any]], count: int) -> dict[str, float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return percentiles(seconds)


async def measure(url: str, token: str, *, tasks: int, environments: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
        created = (await http.post("/api/v1/environments", json={"name": "bench"})).json()

        async def ask() -> None:
            body = {"environment_id": created["environment"]["id"], "operation": "bash", "args": {"command": "true"}}
            reply = await http.post("/api/v1/tasks", params={"wait_s": 30}, json=body)
            if reply.json()["state"] != "succeeded":
                raise SystemExit(f"a task failed: {reply.text}")

        async with connect_v1(url, created["token"]) as runner, trio.open_nursery() as nursery:
            nursery.start_soon(runner.serve)
            await timed(ask, 20)
            found["self"] = await timed(lambda: http.get("/api/v1/self"), tasks)
            found["task"] = await timed(ask, tasks)

            async def many(count: int) -> None:
                for _ in range(count):
                    await ask()

            began = time.perf_counter()
            async with trio.open_nursery() as callers:
                for _ in range(16):
                    callers.start_soon(many, tasks // 16 + 1)
            found["tasks_per_s_with_16_callers"] = round((tasks // 16 + 1) * 16 / (time.perf_counter() - began), 1)
            nursery.cancel_scope.cancel()
        for number in range(environments):
            await http.post("/api/v1/environments", json={"name": f"host-{number:06}", "tags": ["bench"]})
        found["environments"] = environments + 1
        found["list_100"] = await timed(lambda: http.get("/api/v1/environments", params={"tag": "bench"}), 50)
        found["list_by_status"] = await timed(lambda: http.get("/api/v1/environments", params={"status": "online"}), 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--environments", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        program = "from guardhouse.cli.main import main; main()"
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                program,
                "hub",
                "--listen",
                "127.0.0.1:0",
                "--state-dir",
                str(state),
                "--log-level",
                "warning",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            url = next(line.split()[-1] for line in process.stderr if "listening on" in line)
            token = (state / "owner.token").read_text().strip()
            found = trio.run(lambda: measure(url, token, tasks=options.tasks, environments=options.environments))
            peak = next(
                line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line
            )
            found["hub_peak_memory_kb"] = int(peak.split()[1])
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
