"""What the view's builder makes by itself is for the command's account too, whatever umask anybody has."""

import os
from dataclasses import replace

import pytest

from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle, make_workspace, step


@pytest.fixture
def strict_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def run(found, text, capfd):
    with DirectClient(start_launcher(found)) as client:
        request = LaunchRequest("isolate", ("bash", "-c", text))
        outcome = client.wait(client.launch(request, stdout_fd=1, stderr_fd=1))
    return outcome.exit_code, capfd.readouterr().out


@pytest.mark.parametrize("depth", [1, 3])
def test_workspace_below_a_private_file_system(open_directory, strict_umask, capfd, depth):
    """A workspace levels below /tmp, which is covered for each command, is reached by a command of another account."""
    directory = open_directory
    for level in range(depth):
        directory = directory / f"level{level}-{depth}"
        directory.mkdir()
        directory.chmod(0o755)
    workspace = make_workspace(directory)
    found = bundle(workspace, umask=0o077)
    # Twice: the parents are made in the template and again for each command.
    code, said = run(found, f"touch made && stat -c %a {directory}; stat -c %a made", capfd)
    assert (code, said.split()) == (0, ["755", "600"])


def test_planned_file_is_readable(workspace, strict_umask, capfd):
    """A file that the plan writes into the view (names of accounts) can be read, and not written."""
    found = bundle(workspace)
    plan = found.profiles["isolate"]
    mounts = (*plan.mounts[:1], step("file", "hello\n", "/note"), *plan.mounts[1:])
    found = replace(found, profiles={"isolate": replace(plan, mounts=mounts)})
    code, said = run(found, "cat /note && stat -c %a /note", capfd)
    assert (code, said.split()) == (0, ["hello", "444"])
