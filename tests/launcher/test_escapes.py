"""Ways out of a command, each with the twin that must succeed. More stand in tests/escapes, on shipped profiles."""

import os
from pathlib import Path

import pytest

from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle
from tests.launcher.test_commands import run, shell


@pytest.fixture(scope="module")
def client(workspace):
    os.environ["GUARDHOUSE_TEST_CANARY"] = "canary-of-the-runner"
    try:
        with DirectClient(start_launcher(bundle(workspace))) as found:
            yield found
    finally:
        del os.environ["GUARDHOUSE_TEST_CANARY"]


BOTH = pytest.mark.parametrize("profile", ["isolate", "observe"])


@BOTH
@pytest.mark.parametrize(
    ("allowed", "refused", "says"),
    [
        pytest.param("touch ./x", "touch /usr/x", "", id="write outside the workspace"),
        pytest.param("touch /tmp/x", "touch /etc/x", "", id="write to etc"),
        pytest.param("cat /proc/self/environ", "cat /proc/1/environ", "Permission denied", id="environment of pid 1"),
        pytest.param("cat /proc/self/maps", "cat /proc/1/maps", "", id="memory map of pid 1"),
        pytest.param("ls /proc/self/fd", "ls /proc/1/fd", "Permission denied", id="descriptors of pid 1"),
        pytest.param("ls /proc/self/root/", "ls /proc/1/root/", "Permission denied", id="root of pid 1"),
        pytest.param("readlink /proc/self/cwd", "readlink /proc/1/cwd", "", id="directory of pid 1"),
        pytest.param("cat /proc/self/oom_score_adj", "echo 0 > /proc/1/oom_score_adj", "", id="knobs of pid 1"),
        pytest.param("cat /etc/passwd", "cat /etc/shadow", "Permission denied", id="a masked file"),
        pytest.param("cat /proc/sys/kernel/hostname", "echo x > /proc/sys/kernel/hostname", "", id="sysctl"),
        pytest.param("hostname", "hostname evil; test $(hostname) = evil", "", id="host name"),
        pytest.param("mount | head -1", "mount -t tmpfs none /tmp", "", id="mount"),
        pytest.param("true", "umount /etc/shadow", "", id="unmount a mask"),
        pytest.param("true", "chroot / true", "", id="chroot"),
        pytest.param("true", "mknod ./null c 1 3", "", id="device nodes"),
        pytest.param("true", "mknod /tmp/null c 1 3", "", id="device nodes in tmp"),
        pytest.param("nice -n 5 true", "nice -n -5 true 2>&1 | grep -q cannot && false", "", id="priority"),
        pytest.param("chown $(id -u) ./x", "chown 12345 ./x", "", id="give files away"),
        pytest.param("setsid true", "setpriv --reuid=12345 true", "", id="another uid"),
        pytest.param("sleep 9 & kill $!", "kill -9 1; kill -0 1", "", id="signals to pid 1"),
        pytest.param("sleep 9 & renice 5 $!", "renice 5 1", "", id="priority of pid 1"),
        pytest.param("sleep 9 & taskset -p 1 $!", "taskset -p 1 1", "", id="processors of pid 1"),
    ],
)
def test_refused(client, profile, allowed, refused, says):
    """The one is possible, the other is not."""
    first = run(client, shell(allowed, profile=profile))
    assert first.outcome.exit_code == 0, first.text
    second = run(client, shell(refused, profile=profile))
    assert second.outcome.exit_code != 0, second.text
    assert says in second.text
    # Whatever was tried, the launcher and the next command are as before.
    assert run(client, shell("exit 7", profile=profile)).outcome.exit_code == 7


@BOTH
def test_limits_of_pid_1_stay(client, profile):
    """Even where pid 1 has the command's own uid; the command's own limits are its to lower, for itself alone."""
    text = "prlimit --nofile=64:64 -p 1 2>&1; awk '/Max open files/ {print $4}' /proc/1/limits 2>&1"
    said = run(client, shell(text, profile=profile)).text
    assert not said.strip().endswith("64"), said
    assert run(client, shell("prlimit --nofile=64:64 && ulimit -n", profile=profile)).text != ""
    assert run(client, shell("ulimit -n 64; ulimit -n", profile=profile)).text == "64\n"
    assert run(client, shell("ulimit -n", profile=profile)).text == "1024\n"


@BOTH
def test_runner_environment_is_nowhere(client, profile):
    """No readable /proc entry holds the environment of the runner or the launcher."""
    text = "grep -l canary-of-the-runne[r] /proc/[0-9]*/environ 2>/dev/null; echo done"
    assert run(client, shell(text, profile=profile)).text == "done\n"


@BOTH
def test_nothing_is_gained(client, profile):
    """No capability in any set, no new privileges, a filter only where the profile has one, one thread of control."""
    status = run(client, shell("cat /proc/self/status", profile=profile)).text
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert "0" not in fields["Uid"].split()
    assert "0" not in fields["Gid"].split()


def test_no_network(client):
    """Without network there is a loopback that leads to nobody, and no other interface."""
    text = "tail -n +3 /proc/net/dev | cut -d: -f1; exec 3<>/dev/tcp/127.0.0.1/1"
    ran = run(client, shell(text))
    assert ran.text.split()[0] == "lo"
    assert "Connection refused" in ran.text
    assert run(client, shell("exec 3<>/dev/tcp/192.0.2.1/80")).text.count("Network is unreachable") >= 1


def test_processes_of_the_host_are_not_there(client):
    """An own /proc shows pid 1 and the command, and tells nothing of where the launcher lives."""
    ran = run(client, shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
    assert "guardhouse-init" in ran.text
    assert "python" not in ran.text


def test_host_processes_cannot_be_signalled(client):
    """In the view with the host's /proc a host pid is visible and cannot be signalled: it is another namespace's."""
    ran = run(client, shell(f"test -d /proc/{os.getpid()} && kill -0 {os.getpid()}", profile="observe"))
    assert ran.outcome.exit_code == 1
    assert "No such process" in ran.text


def test_host_process_secrets_cannot_be_read(client):
    """Landlock keeps a command from reading another process of the same user through the host's /proc."""
    own = run(client, shell("cat /proc/self/environ >/dev/null", profile="observe"))
    assert own.outcome.exit_code == 0
    for entry in ("environ", "maps", "fd/0"):
        ran = run(client, shell(f"cat /proc/{os.getpid()}/{entry} > /dev/null", profile="observe"))
        assert ran.outcome.exit_code == 1
        assert "denied" in ran.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a setuid file")
def test_setuid_gains_nothing(client, workspace):
    """A setuid root program runs as the command's user."""
    target = workspace / "id"
    target.write_bytes(Path("/usr/bin/id").read_bytes())
    target.chmod(0o4755)
    assert run(client, shell("./id -u")).text.strip() != "0"
    target.unlink()
