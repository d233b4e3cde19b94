"""How long a `bash` task of `true` takes from the hub's API to its result, beside `bash -c true` bare, in one run.

    python bench/roundtrip.py [--tasks N] [--json]

The two are interleaved, one of each in turn, so that a machine whose speed drifts treats both alike. Goal to grow to
(design figures): p50 under 10 ms, and at most 15 ms for a no-op command through everything.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.local_system import LocalSystem, system_directory

WARM_UP = 20


def bare() -> float:
    """Return the milliseconds that plain `bash -c true` takes."""
    started = time.perf_counter()
    subprocess.run(["/bin/bash", "-c", "true"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return (time.perf_counter() - started) * 1000


def percentile(values: list[float], percent: int) -> float:
    """Return the value below which ``percent`` per cent of ``values`` lie."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def measure(tasks: int) -> dict[str, dict[str, float]]:
    """Run both ``tasks`` times in turn; return p50, p90 and p99 in milliseconds of each."""
    with system_directory() as directory:
        policy = directory / "policy.yaml"
        policy.write_text('permission:\n  bash:\n    "*": allow\n')
        with LocalSystem(directory, policy=str(policy), profile="isolate") as system:
            system.make_certificates()
            system.start_hub()
            system.create_environment("bench")
            system.start_runner()
            body = {"environment_id": system.environment_id, "operation": "bash", "args": {"command": "true"}}
            times: dict[str, list[float]] = {"bash -c true, bare": [], "through hub and runner": []}
            with system.client() as client:
                for number in range(tasks + WARM_UP):
                    started = time.perf_counter()
                    answer = client.post("/api/v1/tasks", params={"wait_s": 30}, json=body).json()
                    through = (time.perf_counter() - started) * 1000
                    if answer["state"] != "succeeded":
                        raise SystemExit(f"the task did not succeed: {answer}")
                    alone = bare()
                    if number >= WARM_UP:
                        times["through hub and runner"].append(through)
                        times["bash -c true, bare"].append(alone)
    return {
        name: {"p50_ms": statistics.median(values), "p90_ms": percentile(values, 90), "p99_ms": percentile(values, 99)}
        for name, values in times.items()
    }


def main() -> None:
    """Measure and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.tasks)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{'':24} {'p50':>9} {'p90':>9} {'p99':>9}   ({arguments.tasks} of each, in turn)")
    for name, row in figures.items():
        print(f"{name:24} {row['p50_ms']:6.2f} ms {row['p90_ms']:6.2f} ms {row['p99_ms']:6.2f} ms")
    first, second = figures.values()
    print(f"{'ratio':24} {second['p50_ms'] / first['p50_ms']:8.2f}x")


if __name__ == "__main__":
    main()
