"""Shared by the tests of the sandbox package: shipped data, and a host that gives everything."""

from dataclasses import dataclass, field

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.sandbox.bundle import Identity
from guardhouse.sandbox.load import read_library
from guardhouse.sandbox.profile import LAYERS

SHIPPED = (
    *("fetch_worker", "files_worker", "isolate", "mcp_server", "mcp_worker"),
    *("observe", "operate", "parser_worker"),
)
DIRECTORY = shipped_directory("sandbox")
IDENTITY = Identity(1000, 1000, (1000,), "worker", "/home/worker")


@dataclass(frozen=True)
class Host:
    architecture: str = "x86_64"
    landlock_abi: int = 7
    privileged: bool = True
    system_links: dict = field(default_factory=lambda: {"/bin": "usr/bin", "/lib": "usr/lib"})
    hostname: str = "web1.example"
    layers: dict = field(default_factory=lambda: dict.fromkeys(LAYERS, ""))


@pytest.fixture(scope="session")
def library():
    return read_library(DIRECTORY)


@pytest.fixture
def write_profile(tmp_path):
    def write(name, text):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
