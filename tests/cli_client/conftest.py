"""The command line in a process of its own against a real hub; the hub's fixtures are those of tests/hub."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.hub.conftest import authority, hub, sqlite_template, start_hub, store_url, tools_made_once

__all__ = ["authority", "hub", "sqlite_template", "start_hub", "store_url", "tools_made_once"]

COMMAND = [sys.executable, "-c", "from guardhouse.cli.main import main; main()"]


@dataclass
class Cli:
    """Runs `guardhouse` with a hub and a token known."""

    environ: dict[str, str]
    directory: Path

    async def run(self, *words: str, stdin: bytes = b"", **environ: str) -> "subprocess.CompletedProcess[bytes]":
        with trio.fail_after(30):
            return await trio.run_process(
                [*COMMAND, *words],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environ | environ,
                cwd=self.directory,
            )


@pytest.fixture
def make_cli(tmp_path: Path) -> Any:
    """Return a function that makes a command line for a hub."""

    def make(hub: Any, **environ: str) -> Cli:
        base = {name: os.environ[name] for name in ("PATH", "LANG", "COVERAGE_PROCESS_START") if name in os.environ}
        return Cli(
            {
                **base,
                "HOME": str(tmp_path),
                "GUARDHOUSE_HUB_URL": hub.url,
                "GUARDHOUSE_API_TOKEN_FILE": str(hub.state_dir / "owner.token"),
                **environ,
            },
            tmp_path,
        )

    return make


@pytest.fixture
def cli(hub: Any, make_cli: Any) -> Cli:
    return make_cli(hub)
