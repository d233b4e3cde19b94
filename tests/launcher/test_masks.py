"""A masked place stays masked while the host replaces it or makes it, though every command has its view prepared."""

import os
from dataclasses import replace

import pytest

from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle, make_workspace, step


def write(path, text):
    path.write_text(text)
    path.chmod(0o644)


@pytest.fixture
def host(open_directory):
    """A directory of the host's with a secret that its permissions would let everybody read, and a plain file."""
    found = open_directory / f"host-{len(list(open_directory.iterdir()))}"
    found.mkdir(mode=0o755)
    write(found / "secret", "one")
    write(found / "plain", "one")
    return found


@pytest.fixture
def client(host):
    """A launcher whose profile masks what is there, and what may come."""
    found = bundle(make_workspace(host))
    plan = found.profiles["observe"]
    masks = [step("mask", "", str(host / name), optional=True) for name in ("secret", "later", "directory", "no/way")]
    # A grant stands on a mask: it is not to be undone.
    write(host / "granted", "granted")
    masks.append(step("mask", "", str(host / "granted")))
    masks.append(step("bind_readonly", str(host / "granted"), str(host / "granted")))
    kept = [s for s in plan.mounts if s.target not in ("/tmp", "/dev/shm")]
    plan = replace(plan, mounts=(*kept, *masks))
    with DirectClient(start_launcher(replace(found, profiles={"observe": plan}))) as made:
        yield made


def read(client, *paths):
    """Return what a command reads of ``paths``, an errno's name for what it cannot."""
    reading, writing = os.pipe()
    script = 'for p; do cat "$p" 2>/dev/null || echo "refused"; done'
    request = LaunchRequest("observe", ("bash", "-c", script, "x", *map(str, paths)))
    identifier = client.launch(request, stdout_fd=writing, stderr_fd=2)
    os.close(writing)
    client.wait(identifier)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def test_file_that_is_replaced(client, host):
    """After a rename over the masked file, as passwd does, the next command is refused it; a plain one it reads."""
    assert read(client, host / "secret", host / "plain") == "refused\none"
    for text in ("two", "three"):
        for name in ("secret", "plain"):
            write(host / "new", text)
            os.replace(host / "new", host / name)
        assert read(client, host / "secret", host / "plain") == f"refused\n{text}"


def test_file_that_is_removed_and_made(client, host):
    """A socket or file that a daemon makes anew at its start is covered again."""
    assert read(client, host / "secret") == "refused\n"
    (host / "secret").unlink()
    assert read(client, host / "plain") == "one"
    write(host / "secret", "two")
    assert read(client, host / "secret", host / "plain") == "refused\none"


def test_file_that_comes_later(client, host):
    """What was not there when the view was built is covered once it is."""
    assert read(client, host / "later", host / "plain") == "refused\none"
    write(host / "later", "secret")
    (host / "no").mkdir(mode=0o755)
    write(host / "no" / "way", "secret")
    assert read(client, host / "later", host / "no" / "way", host / "plain") == "refused\nrefused\none"


def test_directory_that_comes_later(client, host):
    """A directory is covered by an empty one that cannot be entered."""
    (host / "directory").mkdir(mode=0o755)
    write(host / "directory" / "key", "secret")
    assert read(client, host / "plain", host / "directory" / "key") == "onerefused\n"


def test_nothing_changes_without_a_change(client, host):
    """Commands over an unchanged host are served by one slot; only the first one pays for it."""
    for _ in range(5):
        assert read(client, host / "secret", host / "plain") == "refused\none"


def test_grant_stays_granted(client, host):
    """What a later step shows in spite of a mask is shown after the host changed something as well."""
    assert read(client, host / "granted", host / "secret") == "grantedrefused\n"
    write(host / "new", "two")
    os.replace(host / "new", host / "secret")
    assert read(client, host / "granted", host / "secret") == "grantedrefused\n"
