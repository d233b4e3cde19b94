"""The parser worker behind the shipped `parser_worker` profile: it answers, and what it is fed breaks only it."""

import os
import signal

import pytest
import trio

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.client import LauncherClient, LaunchError, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.limits import SHELL_PARSER_TIMEOUT_S
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile
from guardhouse.worker.parser_client import ParserClient
from tests.launcher.bundles import TRUSTED_PATH, identity
from tests.launcher.test_workers import workers_of

HANGS = "a'${'"


@pytest.fixture
async def launcher(workspace):
    directory = shipped_directory("sandbox")
    bundle = compile_bundle(
        [load_profile(name, directory=directory) for name in ("isolate", "parser_worker")],
        identity=identity(),
        workspace=str(workspace),
        features=probe_host(),
        trusted_path=TRUSTED_PATH,
    )
    async with LauncherClient(start_launcher(bundle)) as found:
        yield found


def make_client(launcher, **options) -> ParserClient:
    return ParserClient(lambda: trio.from_thread.run(launcher.start_worker, "parser"), timeout_s=60, **options)


async def read(parser, text):
    with trio.fail_after(90):
        return await trio.to_thread.run_sync(parser.read, text)


async def test_it_answers(launcher):
    """Behind its profile the worker answers about short and long texts."""
    parser = make_client(launcher, bashlex=True)
    assert (await read(parser, "ls 'a' | grep \"$x\"")).is_understood
    assert (await read(parser, "ls 'a'\n" * 2_000)).is_understood
    assert parser.restarts == 0


async def test_it_is_confined(launcher):
    """The worker holds no capability, has a filter, sees nothing of the host and no network but its own."""
    parser = make_client(launcher)
    await read(parser, "ls 'a'")
    ((pid, fields),) = workers_of(launcher).items()
    assert fields["CapPrm"] == fields["CapBnd"] == "0" * 16
    assert fields["Uid"].split() == [str(identity().uid)] * 4
    if os.geteuid() != 0:
        # Undumpable, so that its own account may not look into it either.
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/{pid}/root")
        return
    assert os.listdir(f"/proc/{pid}/root") == []
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    devices = (await trio.Path(f"/proc/{pid}/net/dev").read_text()).split("\n")[2:-1]
    assert {line.split(":")[0].strip() for line in devices} <= {"lo"}


async def test_hang(launcher):
    """A text on which bashlex loops ends by the kernel's alarm within the limit; the next text gets its answer."""
    parser = make_client(launcher, bashlex=True)
    await read(parser, "ls 'a'")
    began_s = trio.current_time()
    reading = await read(parser, HANGS)
    assert "gave no answer" in reading.undecided[-1].because
    assert trio.current_time() - began_s < SHELL_PARSER_TIMEOUT_S + 20
    assert (await read(parser, "id 'a'")).is_understood
    assert parser.restarts == 1


async def test_killed_over_a_question(launcher):
    """Kill -9 in the middle of a question: a fresh process answers it."""
    parser = make_client(launcher)
    await read(parser, "ls 'a'")
    (pid,) = workers_of(launcher)
    os.kill(pid, signal.SIGSTOP)
    found = []
    async with trio.open_nursery() as nursery:

        async def ask():
            found.append(await read(parser, "id 'a'"))

        nursery.start_soon(ask)
        await trio.lowlevel.checkpoint()
        os.kill(pid, signal.SIGKILL)
    assert found[0].is_understood
    assert pid not in workers_of(launcher)


@pytest.mark.parametrize(
    "text",
    ["$(" * 4_000, "cat <<E\n$(" * 1_500, "`" * 15_000, "a[" * 8_000, "{a," * 5_000, "x=(" * 5_000, "((" * 8_000,
     "\x01é'" * 5_000, "case a in " * 1_500, "'" + "a" * 131_000 + "'"],
    ids=["substitutions", "heredocs", "backquotes", "subscripts", "braces", "arrays", "arithmetic", "bytes", "cases",
         "long"],
)  # fmt: skip
async def test_bombs(launcher, text):
    """A text made to eat memory or time is answered or breaks only the worker; the text behind it is read."""
    parser = make_client(launcher)
    # The first reader is asked about these as well, and most end there: here they go to the parser itself.
    with trio.fail_after(90):
        await trio.to_thread.run_sync(parser._second, text, await read(parser, "ls 'a'"))
    assert (await read(parser, "id 'a'")).is_understood


async def test_no_command_runs_in_it(launcher):
    """The parser's profile is not a command's: a launch that names it is refused, its twin runs."""
    with pytest.raises(LaunchError):
        await launcher.launch(LaunchRequest("parser_worker", ("true",)), stdout_fd=2, stderr_fd=2)
    running = await launcher.launch(LaunchRequest("isolate", ("true",)), stdout_fd=2, stderr_fd=2)
    assert (await running.wait()).exit_code == 0
