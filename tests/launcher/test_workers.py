"""The files worker behind the shipped `files_worker` profile, driven by the runner's own client."""

import os
import signal

import pytest
import trio

from guardhouse.data_files import shipped_directory
from guardhouse.errors import Refusal
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.client import LauncherClient, LaunchError, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile
from guardhouse.wire import operations as wire
from guardhouse.worker.client import FilesClient, WorkerDied
from tests.launcher.bundles import TRUSTED_PATH, identity
from tests.launcher.test_left_over import descendants_of


@pytest.fixture
async def client(workspace):
    directory = shipped_directory("sandbox")
    bundle = compile_bundle(
        [load_profile(name, directory=directory) for name in ("isolate", "files_worker")],
        identity=identity(),
        workspace=str(workspace),
        features=probe_host(),
        trusted_path=TRUSTED_PATH,
    )
    async with LauncherClient(start_launcher(bundle)) as found:
        yield found


def workers_of(client):
    """Return {pid: fields of its status} of the launcher's workers: filtered, and pid 2 of their namespaces."""
    found = {}
    for pid in descendants_of(client._handle.pid):
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        if fields["Seccomp"] == "2" and fields["NSpid"].split()[-1] == "2":
            found[pid] = fields
    return found


async def keep_asking(files):
    while True:
        await files.request("list", wire.ListArgs(path="."))


async def test_files_worker(client, workspace):
    """A write through the worker lands in the workspace as the commands' user; a path out of it is refused."""
    async with FilesClient(await client.start_worker("files")) as files:
        await files.request("write", wire.WriteArgs(path="a.txt", content=b"hello"))
        assert (workspace / "a.txt").read_bytes() == b"hello"
        assert (workspace / "a.txt").stat().st_uid == identity().uid
        result = await files.request("read", wire.ReadArgs(path="a.txt"))
        assert result.content == b"hello"
        with pytest.raises(Refusal, match="path escapes workspace"):
            await files.request("read", wire.ReadArgs(path="../../etc/passwd"))


async def test_worker_is_confined(client):
    """The worker holds no capability, has a filter, and is a child of its own pid 1."""
    async with FilesClient(await client.start_worker("files")) as files:
        await files.request("list", wire.ListArgs(path="."))
        found = list(workers_of(client).values())
        assert len(found) == 1
        assert found[0]["CapPrm"] == found[0]["CapBnd"] == "0" * 16
        assert found[0]["Uid"].split() == [str(identity().uid)] * 4


async def test_worker_death_is_told(client):
    """A worker that was killed shows as dead, and another one can be started."""
    async with FilesClient(await client.start_worker("files")) as files:
        await files.request("list", wire.ListArgs(path="."))
        for pid in workers_of(client):
            os.kill(pid, signal.SIGKILL)
        with trio.fail_after(30), pytest.raises(WorkerDied):
            await keep_asking(files)
    async with FilesClient(await client.start_worker("files")) as files:
        await files.request("list", wire.ListArgs(path="."))


async def test_worker_profile_starts_no_command(client):
    """The worker's profile cannot be named for a command, nor another worker for the runner's asking."""
    with pytest.raises(LaunchError, match="unknown profile"):
        await client.launch(LaunchRequest("files_worker", ("true",)), stdout_fd=2, stderr_fd=2)
    with pytest.raises(LaunchError, match="unknown worker"):
        await client.start_worker("shell")
