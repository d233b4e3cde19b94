"""Runs a fuzz target: under atheris (coverage-guided) where it is installed, else by a seeded mutation loop.

A target file says `from driver import main` and ends with `main(fuzz_one, __file__)`; `fuzz_one(data: bytes) -> None`
is a plain function that returns for every input and raises only on a defect. Then:

    python fuzz/fuzz_wire_frames.py                      one minute over fuzz/corpus/wire_frames
    python fuzz/fuzz_wire_frames.py --runs 1000000       so many inputs
    python fuzz/fuzz_wire_frames.py --seconds 600 DIR    so long, with another corpus
    python fuzz/fuzz_wire_frames.py --replay FILE…       each file once: how a found defect is looked at

A defect writes the input to `crash-<sha256>` in the working directory and exits with 1. An answer slower than 1 s is a
defect (FIGURES "Code"); under atheris, whose counting slows code down, one slower than 10 s.
"""

import argparse
import hashlib
import importlib.util
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["SLOW_S", "inputs", "main", "mutate"]

Target = Callable[[bytes], None]

SLOW_S = 1.0
_MAX_BYTES = 1 << 20
_TOKENS = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-1", b"1e999", b"NaN", b"\\ud800",
    b"\\u0000", b"\xff", b"\xed\xa0\x80", b"\x00", b"../", b"$(", b"`", b"'", b"\n", b";", b"&&", b"<<",
    b"18446744073709551616",
)  # fmt: skip


def main(fuzz_one: Target, file: str) -> None:
    """Run ``fuzz_one`` as the command line says; ``file`` is the target's own, its stem names the corpus."""
    parser = argparse.ArgumentParser(description=f"fuzz {Path(file).stem}")
    parser.add_argument("--runs", type=int, default=None, help="stop after this many inputs")
    parser.add_argument("--seconds", type=float, default=None, help="stop after this long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the built-in loop; the same seed, the same inputs")
    parser.add_argument("--no-atheris", action="store_true", help="use the built-in loop even so")
    parser.add_argument("--replay", nargs="+", type=Path, help="run these files once and stop")
    parser.add_argument("corpus", nargs="?", type=Path, help="directory of starting inputs")
    options = parser.parse_args()
    corpus = options.corpus or Path(file).resolve().parent / "corpus" / Path(file).stem.removeprefix("fuzz_")
    if options.replay:
        for path in options.replay:
            _run_one(fuzz_one, path.read_bytes())
        print(f"replayed {len(options.replay)} inputs")
        return
    seconds = 60.0 if options.runs is None and options.seconds is None else options.seconds
    if importlib.util.find_spec("atheris") is not None and not options.no_atheris:
        _run_atheris(fuzz_one, corpus, runs=options.runs, seconds=seconds)
    else:
        _run_loop(fuzz_one, _seeds(corpus), seed=options.seed, runs=options.runs, seconds=seconds)


def _run_atheris(fuzz_one: Target, corpus: Path, *, runs: int | None, seconds: float | None) -> None:
    import atheris

    corpus.mkdir(parents=True, exist_ok=True)
    # Code that counts its branches is some ten times slower than the same code without.
    arguments = [sys.argv[0], f"-timeout={int(10 * SLOW_S)}", f"-max_len={_MAX_BYTES}", str(corpus)]
    if runs is not None:
        arguments.append(f"-runs={runs}")
    if seconds is not None:
        arguments.append(f"-max_total_time={int(seconds)}")
    atheris.instrument_all()
    atheris.Setup(arguments, fuzz_one)
    atheris.Fuzz()


def _run_loop(fuzz_one: Target, seeds: list[bytes], *, seed: int, runs: int | None, seconds: float | None) -> None:
    start = time.monotonic()
    count = 0
    slowest_s = 0.0
    for data in inputs(seeds, seed=seed):
        if (runs is not None and count >= runs) or (seconds is not None and time.monotonic() - start >= seconds):
            break
        slowest_s = max(slowest_s, _run_one(fuzz_one, data))
        count += 1
    took_s = time.monotonic() - start
    print(f"{count} inputs in {took_s:.1f} s ({count / max(took_s, 1e-9):.0f}/s), slowest {slowest_s * 1000:.1f} ms")


def _run_one(fuzz_one: Target, data: bytes) -> float:
    """Run one input and return its seconds; a defect is written down and ends the program."""
    start = time.perf_counter()
    try:
        fuzz_one(data)
    except BaseException as error:  # SystemExit out of a target is a defect too
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()
        _give_up(data, f"{type(error).__name__}")
    took_s = time.perf_counter() - start
    if took_s > SLOW_S:
        _give_up(data, f"slow: {took_s:.2f} s")
    return took_s


def _give_up(data: bytes, why: str) -> None:
    path = Path(f"crash-{hashlib.sha256(data).hexdigest()[:16]}")
    path.write_bytes(data)
    print(f"{why}: input of {len(data)} bytes saved as {path}", file=sys.stderr)
    sys.exit(1)


def _seeds(corpus: Path) -> list[bytes]:
    files = sorted(path for path in corpus.glob("**/*") if path.is_file()) if corpus.is_dir() else []
    return [path.read_bytes() for path in files] or [b""]


def inputs(seeds: list[bytes], *, seed: int) -> Iterator[bytes]:
    """Yield every seed as it is, then mutations of them for ever; the same for the same ``seed``."""
    yield from seeds
    rng = random.Random(seed)
    while True:
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            data = mutate(data, rng, rng.choice(seeds))
        yield data[:_MAX_BYTES]


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Return ``data`` with one change: a bit, a byte, a token, a piece doubled, dropped, moved or from ``other``."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 64)))
    match rng.randrange(9):
        case 0 if data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + rng.randbytes(rng.randrange(1, 5)) + data[at:]
        case 2 | 3:
            return data[:at] + rng.choice(_TOKENS) + data[end if rng.random() < 0.5 else at :]
        case 4:
            return data[:at] + data[end:]
        case 5:
            return data[:at] + data[at:end] * rng.choice((2, 3, 50)) + data[end:]
        case 6:
            return data[:at]
        case 7:
            start = rng.randrange(len(other) + 1)
            return data[:at] + other[start : start + rng.choice((4, 16, 256))] + data[at:]
        case _:
            return data[:at] + rng.choice(_TOKENS) * rng.choice((1, 10, 1000)) + data[at:]
