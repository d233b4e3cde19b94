"""A command that floods both streams costs hub and runner a bounded amount of memory, and its neighbours nothing.

The short form always runs; ``GUARDHOUSE_FLOOD_BYTES=1073741824`` sends 1 GiB down each stream.
"""

import os
import threading
from pathlib import Path

from demo.local_system import Answer, LocalSystem

from guardhouse.limits import CAPTURE_LIMIT_BYTES

FLOOD_BYTES = int(os.environ.get("GUARDHOUSE_FLOOD_BYTES", str(96 << 20)))
# What is kept of both streams may be there in several forms at once: as bytes, in a frame, in a row being written.
GROWTH_MAX_BYTES = 64 << 20
LIMIT_S = 600


def flood(each_bytes: int) -> str:
    return f"yes | head -c {each_bytes} & yes | head -c {each_bytes} >&2; wait"


def peak_bytes(system: LocalSystem, name: str) -> int:
    """Return the most memory that a process has ever had resident."""
    status = Path(f"/proc/{system.process(name).pid}/status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def test_flood_is_bounded_and_a_neighbour_is_served(system: LocalSystem) -> None:
    """What is beyond the limit is counted, nothing of it is held anywhere, and another command runs meanwhile."""
    system.run(flood(1 << 20), timeout=LIMIT_S)
    before = {name: peak_bytes(system, name) for name in ("hub", "runner")}
    answers: list[Answer] = []
    flooding = threading.Thread(target=lambda: answers.append(system.run(flood(FLOOD_BYTES), timeout=LIMIT_S)))
    flooding.start()
    neighbour = system.run("echo alive")
    flooding.join(LIMIT_S)
    assert (neighbour.exit_code, neighbour.stdout) == (0, b"alive\n")
    result = answers[0].task["result"]
    kept = {stream: FLOOD_BYTES - result[f"{stream}_dropped"] for stream in ("stdout", "stderr")}
    assert kept == dict.fromkeys(kept, CAPTURE_LIMIT_BYTES)
    grown = {name: peak_bytes(system, name) - before[name] for name in before}
    print({name: f"{size / 2**20:.1f} MiB more at the peak" for name, size in grown.items()})
    assert max(grown.values()) < GROWTH_MAX_BYTES < FLOOD_BYTES, grown
