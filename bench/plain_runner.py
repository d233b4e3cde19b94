"""What our runner adds to a command, beside an unsandboxed runner in Go, both behind the same stub of a platform.

    python bench/plain_runner.py [--tasks N] [--go COMMAND] [--json]

A `bash` task of ``true`` and one of ``ls /usr``, from the platform's ``task.request`` to its ``task.result``, by the
plain protocol over TLS: our runner as it is run in production (policy, gate, profile ``isolate``, journal), the peer
``bench/go_runner`` that runs `bash -c` with nothing around it, and `bash -c` bare; one of each in turn, so that a
machine whose speed drifts treats all alike. Go builds the peer; without Go it is left out by name.
"""

import argparse
import json
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio
import trustme

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.roundtrip import percentile
from tests.support.platform_stub import Peer, PlatformStub, open_stub
from tests.support.runner_process import start_runner

TOKEN = "wnt_bench"
COMMANDS = ("true", "ls /usr")
WARM_UP = 20
OURS = "guardhouse, isolate"
PEER = "unsandboxed, Go"
BARE = "bash -c, bare"


def build_peer(go: str | None, directory: Path) -> Path | None:
    """Build ``bench/go_runner`` with the Go command ``go``; None where there is no Go."""
    if go is None:
        return None
    program = directory / "go_runner"
    subprocess.run([go, "build", "-o", program, "."], cwd=Path(__file__).resolve().parent / "go_runner", check=True)
    return program


@asynccontextmanager
async def open_peer(program: Path, stub: PlatformStub, ca_file: Path) -> AsyncIterator[Peer]:
    """Run the Go runner towards ``stub`` until the block ends."""
    arguments = [str(program), "-url", stub.url, "-token", TOKEN, "-ca", str(ca_file), "-dir", str(ca_file.parent)]
    process = await trio.lowlevel.open_process(arguments)
    try:
        yield await stub.peer()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def take(peer: Peer, command: str) -> float:
    """Return the milliseconds from the request to the result of one task."""
    started = time.perf_counter()
    result = await peer.run(command)
    took_ms = (time.perf_counter() - started) * 1000
    if not result["success"]:
        raise SystemExit(f"the task did not succeed: {result}")
    peer.heard.clear()
    return took_ms


def bare(command: str) -> float:
    """Return the milliseconds that plain `bash -c` takes."""
    started = time.perf_counter()
    subprocess.run(["/bin/bash", "-c", command], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return (time.perf_counter() - started) * 1000


def measure(tasks: int, go: str | None) -> dict[str, dict[str, dict[str, float]]]:
    """Run each command ``tasks`` times through every contender; return p50, p90, p99 in milliseconds by command."""
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        program = build_peer(go, directory)
        times = trio.run(take_turns, tasks, server_context(authority), directory / "ca.pem", program)
    return {command: {name: row(values) for name, values in named.items()} for command, named in times.items()}


async def take_turns(
    tasks: int, context: ssl.SSLContext, ca_file: Path, program: Path | None
) -> dict[str, dict[str, list[float]]]:
    """One of each in turn, ``tasks`` times after the warm-up; return the milliseconds by command and contender."""
    times: dict[str, dict[str, list[float]]] = {command: {} for command in COMMANDS}
    arguments = ("--ca-file", str(ca_file), "--profile", "isolate", "--log-level", "info")
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(open_stub(TOKEN, ssl_context=context))
        theirs = await stack.enter_async_context(open_stub(TOKEN, ssl_context=context))
        await stack.enter_async_context(start_runner(ours.url, token=TOKEN, arguments=arguments))
        contenders = {OURS: await ours.peer()}
        if program is not None:
            contenders[PEER] = await stack.enter_async_context(open_peer(program, theirs, ca_file))
        await measure_turns(contenders, times, tasks)
    return times


async def measure_turns(contenders: dict[str, Peer], times: dict[str, dict[str, list[float]]], tasks: int) -> None:
    """Add one time of each command by each contender, ``tasks`` times after the warm-up, to ``times``."""
    for number in range(tasks + WARM_UP):
        for command in COMMANDS:
            taken = {BARE: bare(command)} | {name: await take(peer, command) for name, peer in contenders.items()}
            if number >= WARM_UP:
                for name, value in taken.items():
                    times[command].setdefault(name, []).append(value)


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """Return the stub's side of TLS, for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def row(values: list[float]) -> dict[str, float]:
    """Return what is said of one contender."""
    return {"p50_ms": statistics.median(values), "p90_ms": percentile(values, 90), "p99_ms": percentile(values, 99)}


def main() -> None:
    """Measure and print a table for each command, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument(
        "--go", default=shutil.which("go"), help="the Go command; by default the one on PATH, '' for none"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.tasks, arguments.go or None)
    if arguments.json:
        print(json.dumps(figures))
        return
    for command, rows in figures.items():
        print(f"{command:24} {'p50':>9} {'p90':>9} {'p99':>9}   ({arguments.tasks} of each, in turn)")
        for name, figure in rows.items():
            print(f"  {name:22} {figure['p50_ms']:6.2f} ms {figure['p90_ms']:6.2f} ms {figure['p99_ms']:6.2f} ms")
    if not arguments.go:
        print("left out: the unsandboxed runner in Go: no go command (--go)")


if __name__ == "__main__":
    main()
