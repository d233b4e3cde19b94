"""What the confined parser process adds to gate one, beside the same second reader in this process.

Run: python bench/parser.py [--count 400] [--json]. As root it runs as nobody. Plain words are asked of nobody; that is
the first line. Times are wall-clock, since two processes take turns: compare only inside one run, and note the load.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from guardhouse.launcher.client import LauncherClient
from guardhouse.policy import policy_from_pairs
from guardhouse.policy.shell import ShellReading, read_command
from guardhouse.policy.shell.read import _read
from guardhouse.runner.identity import resolve_account
from guardhouse.runner.wall import Wall, put_up_wall
from guardhouse.worker.parser_client import ParserClient


def plain_words() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"kubectl get pods -n web{number}"


def pipelines() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"ls -l 'a{number}' | grep \"$x\" && echo done"


def median_us(read: Callable[[str], object], texts: Iterator[str], count: int) -> float:
    taken = []
    for _ in range(count):
        text = next(texts)
        start = time.perf_counter()
        read(text)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


async def measure(wall: Wall, count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    async with LauncherClient(wall.launcher) as launcher:

        def start_client(*, bashlex: bool) -> ParserClient:
            return ParserClient(lambda: trio.from_thread.run(launcher.start_worker, "parser"), bashlex=bashlex)

        def run() -> None:
            parser, third = start_client(bashlex=False), start_client(bashlex=True)
            start = time.perf_counter()
            parser.warm()
            found["start_ms"] = (time.perf_counter() - start) * 1e3
            third.warm()
            words, texts = plain_words(), pipelines()
            readers: dict[str, Callable[[str], ShellReading]] = {
                "first_reader_alone_us": lambda text: _read(text)[0],
                "tree_sitter_in_process_us": read_command,
                "parser_process_us": parser.read,
                "parser_process_and_bashlex_us": third.read,
            }
            found["plain_words_us"] = median_us(parser.read, words, count)
            for name, read in readers.items():
                found[name] = median_us(read, texts, count)

        await trio.to_thread.run_sync(run)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workspace = Path(place)
        account = resolve_account("nobody" if os.geteuid() == 0 else None, effective_uid=os.geteuid())
        if os.geteuid() == 0:
            os.chown(workspace, account.uid, account.gid)
        wall = put_up_wall(
            profile="isolate",
            policy=policy_from_pairs([]),
            account=account,
            workspace=workspace,
            protected_paths=(),
            with_workers=False,
        )
        found = trio.run(measure, wall, options.count)
    found["load"] = os.getloadavg()[0]
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("  ".join(f"{name}={value:,.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
