"""A directory that the commands' user can reach: pytest keeps its own temporary directories to their owner."""

import tempfile
from pathlib import Path

import pytest

from tests.launcher.bundles import make_workspace


@pytest.fixture(scope="module")
def open_directory():
    with tempfile.TemporaryDirectory(prefix="guardhouse-launcher-") as name:
        found = Path(name)
        found.chmod(0o755)
        yield found


@pytest.fixture(scope="module")
def workspace(open_directory):
    return make_workspace(open_directory)
