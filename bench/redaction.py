"""How fast redaction lets output pass, as a ratio to a plain copy of the same bytes in the same run.

    python bench/redaction.py [--mebibytes N] [--runs N] [--values N] [--json]

Chunks are 64 KiB, as the runner reads them. Processor time, best of the runs, redaction and copy in turn. Goal: output
without secrets at 100 MB/s and more.
"""

import argparse
import base64
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.redaction.conftest import load_text

from guardhouse.data_files import shipped_directory
from guardhouse.limits import OUTPUT_CHUNK_MAX_BYTES
from guardhouse.redaction import Redactor, literals_of


def texts(size: int) -> dict[str, bytes]:
    """Return what is measured, by name, ``size`` bytes each."""
    rng = random.Random(6)
    log = b"2026-10-12T12:00:%02d web nginx[%d]: 10.0.0.1 GET http://example.com:8080/a?x=%d 200 session for user\n"
    lines = b"".join(log % (n % 60, n, n) for n in range(size // 90))
    plain = b"some ordinary line of a build, with words and numbers 12345\n" * 1_500
    return {
        "log lines": lines[:size],
        "base64": base64.b64encode(rng.randbytes(size * 3 // 4)),
        "random bytes": rng.randbytes(size),
        "one secret in 90 kB": ((plain + b"key AKIAIOSFODNN7EXAMPLE\n") * (size // len(plain) + 1))[:size],
        "a secret on every line": (b"x password=hunter2xyz AKIAIOSFODNN7EXAMPLE y\n" * (size // 40))[: size // 8],
    }


def seconds(act: Callable[[], object]) -> float:
    """Return how much processor time ``act`` takes."""
    start = time.process_time()
    act()
    return time.process_time() - start


def measure(size: int, runs: int, named: int) -> dict[str, dict[str, float]]:
    """Return MB/s of redaction and of a copy, and the ratio of their times, with ``named`` values of 32 characters."""
    text = (Path(shipped_directory("redaction")) / "patterns.yaml").read_text(encoding="utf-8")
    rng = random.Random(7)
    values = {f"VALUE_{n}": base64.b64encode(rng.randbytes(24)) for n in range(named)}
    redactor = Redactor((*load_text(text).patterns, *literals_of(values, name="bench")))
    results = {}
    around = b"an ordinary line of some log, and then another word\n" * 40
    shown = b"".join(around + value + b"\n" for value in values.values())
    all_texts = texts(size)
    if shown:
        all_texts["a value every 2 kB"] = (shown * (size // len(shown) + 1))[:size]
    for name, data in all_texts.items():
        chunks = [data[at : at + OUTPUT_CHUNK_MAX_BYTES] for at in range(0, len(data), OUTPUT_CHUNK_MAX_BYTES)]

        def redact(chunks: list[bytes] = chunks) -> list[bytes]:
            stream = redactor.stream()
            return [*(stream.feed(chunk) for chunk in chunks), stream.flush()]

        def copy(chunks: list[bytes] = chunks) -> list[bytes]:
            return [bytes(bytearray(chunk)) for chunk in chunks]

        times = [(seconds(redact), seconds(copy)) for _ in range(runs)]
        best, best_copy = min(one for one, _ in times), min(one for _, one in times)
        megabytes = len(data) / 1e6
        results[name] = {
            "redact_mb_s": megabytes / best,
            "copy_mb_s": megabytes / best_copy,
            "times_a_copy": best / best_copy,
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="measure redaction against a plain copy")
    parser.add_argument("--mebibytes", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--values", type=int, default=10, help="values that the operator named, up to 500")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = measure(options.mebibytes * 1024 * 1024, options.runs, options.values)
    if options.json:
        print(json.dumps(results))
        return
    for name, row in results.items():
        print(
            f"{name:24} {row['redact_mb_s']:8.1f} MB/s  copy {row['copy_mb_s']:8.0f} MB/s  {row['times_a_copy']:7.0f}x"
        )


if __name__ == "__main__":
    main()
