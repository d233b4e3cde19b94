"""The runner's trio client against a real launcher."""

import os

import psutil
import pytest
import trio

from guardhouse.errors import PeerError
from guardhouse.launcher.client import LauncherClient, LauncherDiedError, LaunchError, LaunchRequest, StopReason
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle


@pytest.fixture
async def client(workspace):
    handle = start_launcher(bundle(workspace))
    async with LauncherClient(handle) as found:
        yield found


def shell(text, **changes):
    return LaunchRequest("isolate", ("bash", "-c", text), **changes)


async def output_of(client, request):
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    command = await client.launch(request, stdout_fd=write_fd, stderr_fd=write_fd)
    os.close(write_fd)
    text = b""
    async with trio.lowlevel.FdStream(read_fd) as stream:
        async for chunk in stream:
            text += chunk
    return text, await command.wait()


async def test_output_and_status(client):
    """Output comes through the caller's descriptors and the status through the outcome."""
    text, outcome = await output_of(client, shell("echo out; echo err >&2; exit 7"))
    assert (text, outcome.exit_code, outcome.signal) == (b"out\nerr\n", 7, None)


async def test_many_at_once(client):
    """Eight callers at a time each get their own command's output."""
    seen = {}

    async def one(number):
        text, outcome = await output_of(client, shell(f"sleep 0.1; echo {number}"))
        seen[number] = (text, outcome.exit_code)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, number)
    assert seen == {number: (f"{number}\n".encode(), 0) for number in range(8)}


async def test_stop(client):
    """A stop ends the tree; the outcome says cancelled."""
    command = await client.launch(shell("sleep 60 & sleep 60", grace_s=1), stdout_fd=2, stderr_fd=2)
    await command.stop(StopReason.CANCEL)
    with trio.fail_after(30):
        outcome = await command.wait()
    assert outcome.cancelled
    assert not outcome.timed_out
    assert await command.wait() is outcome


async def test_cancelled_wait_keeps_the_command(client):
    """Cancelling the wait is not cancelling the command."""
    command = await client.launch(shell("sleep 0.4; exit 5"), stdout_fd=2, stderr_fd=2)
    with trio.move_on_after(0.1):
        await command.wait()
    assert (await command.wait()).exit_code == 5


async def test_cancelled_launch_leaves_nothing(client):
    """A launch that is cancelled before it is known to run ends its command; the client goes on."""
    with trio.move_on_after(0.0):
        await client.launch(shell("sleep 60", grace_s=0), stdout_fd=2, stderr_fd=2)
    text, _ = await output_of(client, shell("echo still here"))
    assert text == b"still here\n"


async def test_unknown_profile(client):
    """A profile that is not in the bundle is refused by name."""
    with pytest.raises(LaunchError, match="unknown profile 'root'") as caught:
        await client.launch(LaunchRequest("root", ("true",)), stdout_fd=2, stderr_fd=2)
    assert caught.value.layer == "request"


async def test_bad_request_never_leaves(client):
    """What is beyond a limit is refused on this side already."""
    with pytest.raises(PeerError, match="escapes workspace"):
        await client.launch(LaunchRequest("isolate", ("true",), workdir="../x"), stdout_fd=2, stderr_fd=2)


async def test_missing_program(client):
    """A program that is not there is exit status 127 with a word on its stderr, as in a shell."""
    text, outcome = await output_of(client, LaunchRequest("isolate", ("no-such-program",)))
    assert (text, outcome.exit_code) == (b"guardhouse: no-such-program: command not found\n", 127)


async def test_launcher_death(client):
    """When the launcher dies, waiting and launching say so instead of hanging."""
    command = await client.launch(shell("sleep 60"), stdout_fd=2, stderr_fd=2)
    client._handle.process.kill()
    with trio.fail_after(30):
        with pytest.raises(LauncherDiedError):
            await command.wait()
        await client.wait_died()
        with pytest.raises(LauncherDiedError):
            await client.launch(shell("true"), stdout_fd=2, stderr_fd=2)


async def test_abandon(client):
    """A command that nobody waits for any more is ended, and what it answers is dropped."""
    long = f"93.{os.getpid():07}5"
    command = await client.launch(shell(f"sleep {long}"), stdout_fd=2, stderr_fd=2)
    await command.abandon()
    with trio.fail_after(30):
        while is_running(long):  # noqa: ASYNC110 - ended by the launcher
            await trio.sleep(0.02)
    assert (await output_of(client, shell("echo still here")))[0] == b"still here\n"


async def test_abandon_where_the_launcher_is_gone(workspace):
    """There is nothing left to end then, and its closed socket is not written to."""
    long = f"94.{os.getpid():07}5"
    async with LauncherClient(start_launcher(bundle(workspace))) as client:
        command = await client.launch(shell(f"sleep {long}"), stdout_fd=2, stderr_fd=2)
        with trio.fail_after(30):
            while not is_running(long):  # noqa: ASYNC110 - started by the launcher
                await trio.sleep(0.02)
    await command.abandon()
    with pytest.raises(LauncherDiedError):
        await client.launch(shell("true"), stdout_fd=2, stderr_fd=2)
    with trio.fail_after(30):
        while is_running(long):  # noqa: ASYNC110 - ended by the launcher
            await trio.sleep(0.02)


def is_running(word):
    return any(word in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
