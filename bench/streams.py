"""What a large file costs through everything: `guardhouse cp` both ways, hub, runner, files worker, over TLS.

    python bench/streams.py [--mb 1024] [--json]

Memory is the peak resident set of each process after the small file and after the large one: it must not follow the
size. Beside it, in the same run, what `cp` and SHA-256 of the same file cost.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.local_system import LocalSystem, system_directory

MB = 1 << 20
SMALL_MB = 8


def make_file(path: Path, size_mb: int) -> str:
    """Write a file that no two megabytes of are alike; return its SHA-256."""
    digest = hashlib.sha256()
    block = os.urandom(MB - 64)
    with path.open("wb") as file:
        for number in range(size_mb):
            part = block + b"%063d\n" % number
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_mb(pid: int) -> int:
    """Return the peak resident set of ``pid`` in megabytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def descendants(pid: int) -> list[int]:
    """Return every process below ``pid``."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def memory(system: LocalSystem) -> dict[str, int]:
    """Return the peak of the hub, of the runner, and of the largest process that the runner started."""
    runner = system.process("runner").pid
    return {
        "hub": peak_mb(system.process("hub").pid),
        "runner": peak_mb(runner),
        "worker": max(peak_mb(pid) for pid in descendants(runner)),
    }


def copy(system: LocalSystem, source: str, target: str) -> float:
    """Run `guardhouse cp` and return its seconds."""
    began = time.perf_counter()
    subprocess.run(
        [
            sys.executable, "-m", "guardhouse", "cp", "--quiet", "--hub", system.url, "--ca-file", str(system.ca_file),
            "--token-file", str(system.api_token_file), source, target,
        ],
        check=True,
    )  # fmt: skip
    return time.perf_counter() - began


def measure(size_mb: int) -> dict[str, object]:
    """Copy a small file and a large one up and down; return seconds, speeds and peaks."""
    with system_directory() as directory:
        policy = directory / "policy.yaml"
        policy.write_text('permission:\n  bash:\n    "*": allow\n')
        with LocalSystem(directory, policy=str(policy), profile="isolate") as system:
            system.make_certificates()
            system.start_hub()
            system.create_environment("bench")
            system.start_runner()
            told: dict[str, object] = {"mb": size_mb}
            for name, size in (("small", SMALL_MB), ("large", size_mb)):
                local, back = directory / f"{name}.bin", directory / f"{name}.back"
                checksum = make_file(local, size)
                up_s = copy(system, str(local), f"bench:{name}.bin")
                down_s = copy(system, f"bench:{name}.bin", str(back))
                if sha256(back) != checksum or sha256(system.workspace / f"{name}.bin") != checksum:
                    raise SystemExit(f"the {name} file did not arrive as it was sent")
                told[name] = {
                    "up_s": round(up_s, 2), "up_mb_per_s": round(size / up_s, 1),
                    "down_s": round(down_s, 2), "down_mb_per_s": round(size / down_s, 1),
                    "peak_mb": memory(system),
                }  # fmt: skip
            began = time.perf_counter()
            subprocess.run(["cp", str(directory / "large.bin"), str(directory / "copied")], check=True)
            told["cp_s"] = round(time.perf_counter() - began, 2)
            began = time.perf_counter()
            sha256(directory / "large.bin")
            told["sha256_s"] = round(time.perf_counter() - began, 2)
            return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    told = measure(arguments.mb)
    if arguments.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:10} {value}")


if __name__ == "__main__":
    main()
