"""Launchers for the tests of the exec gate, one for each policy, in a workspace that the commands' user can reach."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardhouse.runner.identity import resolve_account
from tests.gate.gates import ALLOW_ALL, ALLOW_LIST, DENY, Gate, build_tools


@pytest.fixture(scope="session")
def gate_workspace() -> Iterator[Path]:
    """A directory that the commands' user owns."""
    found = Path(tempfile.mkdtemp(prefix="guardhouse-gate-"))
    found.chmod(0o755)
    if os.geteuid() == 0:
        account = resolve_account(None, effective_uid=0)
        os.chown(found, account.uid, account.gid)
    yield found
    # Thousands of directories, many of them repositories: in Python this took minutes on a loaded machine.
    subprocess.run(["rm", "-rf", found], check=False)


@pytest.fixture(scope="session")
def tools(gate_workspace: Path) -> tuple[str, str]:
    """The attack tool, dynamic and static; empty paths where there is no compiler."""
    return build_tools(gate_workspace)


def _gate(workspace: Path, rules: list[tuple[str, str]] | None) -> Iterator[Gate]:
    gate = Gate(workspace, rules)
    yield gate
    gate.close()


@pytest.fixture(scope="session")
def deny_gate(gate_workspace: Path) -> Iterator[Gate]:
    """Everything may run but what the deny rule names."""
    yield from _gate(gate_workspace, DENY)


@pytest.fixture(scope="session")
def list_gate(gate_workspace: Path) -> Iterator[Gate]:
    """Shells and interpreters may run, the marker's program may not."""
    yield from _gate(gate_workspace, ALLOW_LIST)


@pytest.fixture(scope="session")
def open_gate(gate_workspace: Path) -> Iterator[Gate]:
    """Everything may run."""
    yield from _gate(gate_workspace, ALLOW_ALL)


@pytest.fixture(scope="session")
def bare_wall(gate_workspace: Path) -> Iterator[Gate]:
    """The same wall without a gate."""
    yield from _gate(gate_workspace, None)


@pytest.fixture
def own_gate(gate_workspace: Path) -> Iterator[Gate]:
    """A launcher of a test's own, with the deny rule, to be killed."""
    yield from _gate(gate_workspace, DENY)
