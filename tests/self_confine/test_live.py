"""The processes of a running runner, as the kernel shows them: each is behind the wall that its profile describes."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from guardhouse.kernel.credentials import capability_mask
from guardhouse.sandbox.load import load_process
from tests.support.platform_stub import Peer, open_stub
from tests.support.runner_process import RunnerProcess, start_runner

from .test_attacks import IS_ROOT, read_status, shipped_directory

TOKEN = "wnt_canary_51f2"
TITLES = {"guardhouse-keep": "keeper", "guardhouse-init": "init", "guardhouse-moni": "monitor"}


@pytest.fixture
async def runner() -> AsyncIterator[tuple[RunnerProcess, Peer]]:
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as process:
        # A start on a busy machine takes its time: compiling, probing, a launcher, the first connection.
        yield process, await stub.peer(timeout_s=120)


def family_of(pid: int) -> dict[int, list[int]]:
    """Every process below ``pid``, zombies left out, by its parent."""
    parents: dict[int, list[int]] = {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields and fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(entry))
    return parents


def our_processes(pid: int) -> dict[str, int]:
    """The runner's own processes by name; only those that are there now."""
    parents = family_of(pid)
    found = {"runner": pid}
    for child in parents.get(pid, []):
        name = Path(f"/proc/{child}/comm").read_text().strip()
        found[TITLES.get(name, "launcher")] = child
    for child in parents.get(found.get("launcher", -1), []):
        name = Path(f"/proc/{child}/comm").read_text().strip()
        if name in TITLES:
            found[TITLES[name]] = child
    return found


async def test_every_process_is_confined(runner: tuple[RunnerProcess, Peer]) -> None:
    """Filter, no_new_privs and capabilities of runner, keeper, launcher, monitor and init, and each thread of them."""
    process, peer = runner
    await peer.run("true")
    with trio.fail_after(60):
        while len(found := our_processes(process.process.pid)) < 5:  # noqa: ASYNC110 - other processes
            await trio.sleep(0.05)
        # The keeper and the slot confine themselves on their own time.
        while any(read_status(pid)["Seccomp"] != "2" for pid in found.values()):  # noqa: ASYNC110 - other processes
            await trio.sleep(0.05)
    directory = shipped_directory("sandbox")
    for name, pid in found.items():
        profile = load_process(name, directory=directory)
        said = read_status(pid)
        assert said["NoNewPrivs"] == "1", name
        kept = capability_mask(profile.capabilities) if IS_ROOT else 0
        if name != "init" or IS_ROOT:
            assert int(said["CapPrm"], 16) & ~kept == 0, name
        if IS_ROOT:
            assert int(said["CapBnd"], 16) & ~(kept if profile.bounding_kept else 0) == 0, name
        for thread in os.listdir(f"/proc/{pid}/task"):
            assert read_status(int(thread))["Seccomp"] == "2", (name, thread)
    runner_said = read_status(found["runner"])
    assert int(runner_said["CapEff"], 16) == 0
    if IS_ROOT:
        assert "0" not in runner_said["Uid"].split()
        assert set(read_status(found["monitor"])["Uid"].split()) == {"65534"}
