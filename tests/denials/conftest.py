"""Plans of the shipped profiles, and of some that a site could have, for this host."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile, read_library

DIRECTORY = shipped_directory("sandbox")
TRUSTED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PORTS = """profile: ports
summary: the host's network, one port
extends: observe
drop: [{syscalls: sockets_udp, why: cannot be bounded}]
landlock: {minimum_abi: 4, why: ports}
requires: [{layer: landlock, why: ports}]
network: {mode: ports, ports: [{connect: 443, why: the hub}], why: one port}
"""
SMALL = """profile: small
summary: isolate with little of everything
extends: isolate
tmp: {size: 64 KiB, why: little}
limits:
  - {limit: data, soft: 64 MiB, hard: 64 MiB, why: little}
  - {limit: fsize, soft: 1 MiB, hard: 1 MiB, why: little}
  - {limit: nofile, soft: 32, hard: 32, why: little}
  - {limit: nproc, soft: 40, hard: 40, why: where no pids controller is to be had}
cgroup:
  - {limit: pids, value: 8, why: little}
  - {limit: memory_bytes, value: 64 MiB, why: little}
"""


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="guardhouse-denials-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture(scope="session")
def bundle(place: Path) -> Bundle:
    workspace = place / "workspace"
    workspace.mkdir()
    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(workspace, entry.pw_uid, entry.pw_gid)
    library = read_library(DIRECTORY)
    names = ["isolate", "observe", "operate"]
    features = probe_host()
    for name, text in (("ports", PORTS), ("small", SMALL)):
        if name == "ports" and features.landlock_abi < 4:
            continue
        (place / f"{name}.yaml").write_text(text)
        names.append(str(place / f"{name}.yaml"))
    return compile_bundle(
        [load_profile(name, directory=DIRECTORY, library=library) for name in names],
        identity=Identity(entry.pw_uid, entry.pw_gid, (entry.pw_gid,), entry.pw_name, "/tmp"),
        workspace=str(workspace),
        features=features,
        trusted_path=TRUSTED_PATH,
    )


Explain = Callable[..., list[tuple[str, str, bool]]]
