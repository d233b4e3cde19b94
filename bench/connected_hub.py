"""The hub that `connected.py` measures: its store filled beforehand, its process, and what its store says afterwards.

`python bench/connected_hub.py DIRECTORY COUNT [DATABASE]` fills a new state directory and prints the
runners' tokens as JSON.
"""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio


def seed(state_dir: Path, count: int, *, database_url: str | None = None) -> list[str]:
    """Make the store with ``count`` environments in it and return their tokens."""
    from guardhouse.hub import schema
    from guardhouse.hub.bootstrap import initialise, open_database
    from guardhouse.hub.config import HubConfig
    from guardhouse.hub.credentials import RUNNER_TOKEN_PREFIX, Sealer, mint_id, mint_token, token_digest, token_hint
    from guardhouse.hub.schema import ACCOUNT_ID
    from guardhouse.hub.state_dir import StateDir

    config = HubConfig(state_dir=state_dir, database=database_url)
    initialise(config).close()
    state = StateDir.open(state_dir)
    sealer = Sealer(state.sealing_key(is_in_use=True))
    made = [mint_token(RUNNER_TOKEN_PREFIX) for _ in range(count)]

    at_ms, rows = int(time.time() * 1000), list[tuple[dict[str, Any], dict[str, Any]]]()
    for number, token in enumerate(made):
        environment_id, token_id = mint_id("env"), mint_id("rtk")
        common = {"created_ms": at_ms, "created_by": "hub"}
        environment = {"id": environment_id, "name": f"host-{number:06}", "kind": "byoc", "account_id": ACCOUNT_ID}
        environment |= {"tags": json.dumps(["bench", f"rack-{number % 40}"]), **common}
        sealed = sealer.seal(token, owner=f"{environment_id}/{token_id}")
        its_token = {"id": token_id, "environment_id": environment_id, "digest": token_digest(token), "sealed": sealed}
        rows.append((environment, {**its_token, "hint": token_hint(token), **common}))

    def insert(connection: Any) -> None:
        # All at once: by the store's own functions, one by one, ten thousand take half a minute.
        connection.execute(schema.environments.insert(), [environment for environment, _ in rows])
        tags = [{"environment_id": row["id"], "tag": tag} for row, _ in rows for tag in json.loads(row["tags"])]
        connection.execute(schema.environment_tags.insert(), tags)
        connection.execute(schema.runner_tokens.insert(), [token for _, token in rows])

    async def write() -> None:
        database = open_database(config, state)
        async with trio.open_nursery() as nursery:
            await nursery.start(database.run)
            await database.write(insert)
            database.close()

    trio.run(write)
    state.close()
    return made


def seed_elsewhere(state_dir: Path, count: int, *, database: str | None = None) -> list[str]:
    """Run `seed` in a process of its own: it has an event loop of its own."""
    words = [sys.executable, __file__, str(state_dir), str(count), *([database] if database is not None else [])]
    found: list[str] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


class Hub:
    """The hub's process."""

    def __init__(
        self, state_dir: Path, *, port: int, tls: tuple[Path, Path] | None, database: str | None = None
    ) -> None:
        words = ["hub", "--listen", f"127.0.0.1:{port}", "--state-dir", str(state_dir), "--log-level", "error"]
        if database is not None:
            words += ["--database", database]
        if tls is not None:
            words += ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])]
        began = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, "-m", "guardhouse", *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said: list[str] = []
        for line in self.process.stderr:
            said.append(line)
            if "listening on" in line:
                break
        else:
            raise SystemExit("the hub did not start: " + "".join(said))
        self.url = said[-1].split()[-1]
        self.started_s = time.perf_counter() - began

    def memory_kib(self, field: str = "VmRSS") -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    def processor_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait()


def free_port() -> int:
    """Return a port that no client is given as its own: one that dials a dead hub could connect to itself otherwise."""
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def stored_tasks(state_dir: Path) -> list[tuple[str, str | None, str, int]]:
    """Return id, idempotency key and state of every stored task, and how many ends the audit log has of it."""
    # Read beside the hub: the store is the last word, and a request for each of thousands would be a load of its own.
    store = sqlite3.connect(f"file:{state_dir / 'hub.db'}?mode=ro", uri=True)
    try:
        found: list[tuple[str, str | None, str, int]] = store.execute(
            "SELECT id, idempotency_key, state,"
            " (SELECT count(*) FROM audit_events WHERE task = tasks.id AND action = 'task.end') FROM tasks"
        ).fetchall()
    finally:
        store.close()
    return found


if __name__ == "__main__":
    given_url = sys.argv[3] if len(sys.argv) > 3 else None
    print(json.dumps(seed(Path(sys.argv[1]), int(sys.argv[2]), database_url=given_url)))
