"""One whole system for every end-to-end test: hub and runner as processes, over TLS, with every command allowed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.local_system import LocalSystem, system_directory
from tests.end_to_end.commands import prepare

ALLOW_EVERYTHING = 'permission:\n  bash:\n    "*": allow\n'


@pytest.fixture(scope="session")
def system() -> Iterator[LocalSystem]:
    """A running system whose policy allows everything, so that the wall alone is between command and host."""
    with system_directory() as directory:
        policy = directory / "policy.yaml"
        policy.write_text(ALLOW_EVERYTHING)
        policy.chmod(0o644)
        with LocalSystem(directory, policy=str(policy)) as running:
            running.make_certificates()
            running.start_hub()
            running.create_environment("end-to-end")
            running.start_runner()
            prepare(running.workspace)
            for path in [running.workspace, *running.workspace.rglob("*")]:
                path.chmod(0o777 if path.is_dir() else 0o666)
            yield running


@pytest.fixture(scope="session")
def workspace(system: LocalSystem) -> Path:
    """The runner's workspace, with the files that the commands read."""
    return system.workspace
