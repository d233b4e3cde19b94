"""Real commands against the real wall: the refusal that a person sees names the layer that refused."""

# ruff: noqa: E501 - one case a line
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.bundle import Bundle
from guardhouse.sandbox.explain_denial import Denial, End, explain_denials

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[DirectClient]:
    with DirectClient(start_launcher(bundle)) as found:
        yield found


def run(client: DirectClient, profile: str, text: str) -> tuple[CommandOutcome, str]:
    reading, writing = os.pipe()
    chunks: list[bytes] = []

    def collect() -> None:
        while chunk := os.read(reading, 65536):
            chunks.append(chunk)

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        with open(os.devnull, "wb") as null:
            request = LaunchRequest(profile=profile, argv=("bash", "-c", text), timeout_s=TIMEOUT_S)
            identifier = client.launch(request, stdout_fd=null.fileno(), stderr_fd=writing)
            outcome = client.wait(identifier)
    finally:
        os.close(writing)
        reader.join()
        os.close(reading)
    return outcome, b"".join(chunks).decode("utf-8", "replace")


def explain(client: DirectClient, bundle: Bundle, profile: str, text: str) -> tuple[tuple[Denial, ...], str]:
    outcome, stderr = run(client, profile, text)
    end = End(
        exit_code=outcome.exit_code,
        signal_number=outcome.signal,
        oom_killed=outcome.oom_killed,
        denied_syscalls=outcome.denied_syscalls,
        stderr=stderr,
    )
    return explain_denials(bundle, profile, end), f"{outcome}\n{stderr}"


COMMANDS = [
    pytest.param("observe", "touch /etc/guardhouse-was-here", {("mount_view", "/etc/guardhouse-was-here")}, id="write outside"),
    pytest.param("observe", "echo x > /usr/guardhouse", {("mount_view", "/usr/guardhouse")}, id="redirection"),
    pytest.param("observe", "cat /etc/shadow", {("mount_view", "/etc/shadow")}, id="masked file"),
    pytest.param("observe", "ls /root", {("mount_view", "/root")}, id="masked directory"),
    pytest.param("observe", "cat /proc/1/environ", {("landlock", "/proc/1/environ"), ("namespaces", "/proc/1/environ")}, id="another process"),
    pytest.param("observe", "kill 1", {("namespaces", "process 1")}, id="kill 1"),
    pytest.param("observe", "mount -t tmpfs none /mnt", {("seccomp", "mount")}, id="mount"),
    pytest.param("observe", "unshare -r true", {("seccomp", "unshare")}, id="namespaces of its own"),
    pytest.param("observe", "python3 -c 'import os; os.chroot(\"/\")'", {("seccomp", "chroot")}, id="chroot"),
    pytest.param("isolate", "ls /home", {("mount_view", "/home")}, id="what the view leaves out"),
    pytest.param("isolate", "cat </dev/tcp/203.0.113.9/443", {("namespaces", "network"), ("seccomp", "socket")}, id="no network"),
    pytest.param("ports", "cat </dev/tcp/127.0.0.1/9", {("landlock", "network"), ("landlock", "TCP port 9")}, id="another port"),
    pytest.param("small", "for i in {1..64}; do sleep 5 & done; wait", {("cgroup_pids", "pids"), ("rlimits", "nproc")}, id="processes"),
    pytest.param("small", "python3 -c 'x = bytearray(200 << 20)'", {("rlimits", "data"), ("cgroup_memory", "memory_bytes")}, id="memory"),
    pytest.param("small", "dd if=/dev/zero of=big bs=64k count=64 status=none", {("rlimits", "fsize")}, id="file size"),
    pytest.param("small", "dd if=/dev/zero of=/tmp/big bs=64k count=64 status=none", {("mount_view", "/tmp/big"), ("rlimits", "fsize")}, id="full /tmp"),
    pytest.param("small", "python3 -c 'f = [open(\"/dev/null\") for _ in range(99)]'", {("rlimits", "nofile")}, id="descriptors"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "text", "wanted"), COMMANDS)
def test_refusal_names_its_layer(
    client: DirectClient, bundle: Bundle, profile: str, text: str, wanted: set[tuple[str, str]]
) -> None:
    """One of the lines is about the layer that refused, by the name that a profile uses for it."""
    if profile not in bundle.profiles:
        pytest.skip("needs Landlock ABI 4 (Linux 6.7)")
    denials, said = explain(client, bundle, profile, text)
    assert {(one.layer, one.subject) for one in denials} & wanted, f"{denials}\n{said}"


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ("observe", "touch /tmp/x x; cat /etc/passwd"),
        ("observe", "cat /nonexistent-anywhere"),
        ("isolate", "true"),
        ("operate", "cat notes-that-are-not-there"),
        ("observe", "exit 3"),
    ],
)
def test_what_the_wall_lets_through_is_not_blamed_on_it(
    client: DirectClient, bundle: Bundle, profile: str, text: str
) -> None:
    """The twin: commands that succeed, or fail by themselves, get no line."""
    denials, said = explain(client, bundle, profile, text)
    assert denials == (), said


def guardhouse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardhouse", *arguments],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_sandbox_try_says_it_in_words_and_as_json() -> None:
    """The command's own error stays what it was; our line follows it, and --json carries layer and grant."""
    done = guardhouse("sandbox", "try", "observe", "--", "touch", "/etc/guardhouse-was-here")
    assert "cannot touch" in done.stderr
    assert "guardhouse: likely mount_view: /etc/guardhouse-was-here is not writable in profile 'observe'" in done.stderr
    as_json = guardhouse("sandbox", "try", "observe", "--json", "--", "touch", "/etc/guardhouse-was-here")
    (denial,) = json.loads(as_json.stderr.splitlines()[-1])["denials"]
    assert (denial["layer"], denial["certain"]) == ("mount_view", False)
    assert "writable: true" in denial["grant"]


def test_try_says_it() -> None:
    """`guardhouse try` shows the same lines as the runner's result, and carries them in its JSON."""
    done = guardhouse("try", "--policy", "trusted_machine", "--json", "--", "cat /etc/shadow || ls /root")
    found = json.loads(done.stdout)
    assert [one["subject"] for one in found["denials"]] == ["/etc/shadow", "/root"], done
    words = guardhouse("try", "--policy", "trusted_machine", "--", "cat /etc/shadow")
    assert "guardhouse: likely mount_view: /etc/shadow is masked in profile 'observe'" in words.stderr
