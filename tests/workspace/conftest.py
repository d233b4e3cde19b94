"""A workspace over a temporary directory, once for each way to resolve paths."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardhouse.workspace import Method, Workspace, open_workspace


@pytest.fixture(params=list(Method), ids=lambda method: method.value)
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield open_workspace(fd, root_path=str(tmp_path), method=request.param)
    os.close(fd)
