"""What the attacks need: a launcher by profile and start, targets on the host, and the outside for twins."""

import contextlib
import ctypes
import json
import os
import pickle
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.errors import GuardhouseError
from guardhouse.kernel.probe import HostFeatures, probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.facts import Surroundings
from guardhouse.sandbox.load import load_profile
from tests.support.reachable import reachable_sources

from .every import ATTACKS

HERE = Path(__file__).resolve().parent
ATTACKER = (HERE / "attacker.py").read_text(encoding="utf-8")
DRIVER = ATTACKER + (HERE / "driver.py").read_text(encoding="utf-8")
PYTHON = "/usr/bin/python3"
# Of the start "root small": enough for Python, little enough to be filled in no time.
SMALL_MEMORY_BYTES = 128 << 20
# An account of nobody's, so that no other program of this machine counts towards its limits.
ACCOUNT = 61184
TRUSTED_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def is_root() -> bool:
    return os.geteuid() == 0


def features_as_user() -> HostFeatures:
    """Probe as the ordinary account would, in a child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(ACCOUNT, ACCOUNT, ACCOUNT)
        os.setresuid(ACCOUNT, ACCOUNT, ACCOUNT)
        found = probe_host()
        os.write(writing, pickle.dumps({**found.__dict__}) if hasattr(found, "__dict__") else pickle.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(pid, 0)
    found = pickle.loads(raw)
    return found if isinstance(found, HostFeatures) else HostFeatures(**found)


@dataclass
class Arena:
    """The host's side: targets, and a launcher for each profile and start.

    Attributes:
        profiles: paths of profiles that are not shipped, by name.
    """

    directory: Path
    targets: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, str] = field(default_factory=dict)
    clients: dict[tuple[str, str], DirectClient] = field(default_factory=dict)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def client(self, profile: str, start: str) -> DirectClient:
        key = (profile, start)
        if key not in self.clients:
            bundle, interpreter = self._bundle(profile, start)
            handle = start_launcher(bundle, interpreter=interpreter)
            self.clients[key] = self.stack.enter_context(DirectClient(handle))
        return self.clients[key]

    def _bundle(self, profile: str, start: str) -> tuple[Bundle, str]:
        workspace = Path(tempfile.mkdtemp(prefix=f"guardhouse-{profile}-", dir="/var/tmp"))
        self.stack.callback(shutil.rmtree, workspace, ignore_errors=True)
        if is_root():
            os.chown(workspace, ACCOUNT, ACCOUNT)
            identity = Identity(ACCOUNT, ACCOUNT, (), "tester", "/nonexistent")
        else:
            identity = Identity(os.getuid(), os.getgid(), tuple(os.getgroups()), "tester", "/nonexistent")
        features = features_as_user() if is_root() and start.startswith("user") else probe_host()
        bundle = compile_bundle(
            [load_profile(self.profiles.get(profile, profile), directory=shipped_directory("sandbox"))],
            identity=identity,
            workspace=str(workspace),
            features=features,
            trusted_path=TRUSTED_PATH,
            around=Surroundings(parameters={"memory_bytes": SMALL_MEMORY_BYTES} if "small" in start else {}),
        )
        if not (is_root() and start.startswith("user")):
            return bundle, sys.executable
        wrapper = self.directory / "as-user"
        main = reachable_sources(self.directory) / "guardhouse" / "launcher" / "__main__.py"
        # The first three words are -I, -S and the launcher's main, which may lie where this user cannot read.
        wrapper.write_text(
            "#!/bin/sh\nshift 3\n"
            f"exec /usr/bin/setpriv --reuid={ACCOUNT} --regid={ACCOUNT} --clear-groups"
            f' "{Path(sys.executable).resolve()}" -I -S "{main}" "$@"\n'
        )
        wrapper.chmod(0o755)
        return bundle, str(wrapper)

    def run(
        self, profile: str, start: str, argv: tuple[str, ...], *, stdin: bytes = b"", timeout_s: float = 100
    ) -> tuple[str, CommandOutcome]:
        """Run one command behind the wall; return what it printed (at most 10 MB) and how it ended."""
        client = self.client(profile, start)
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            reading, writing = os.pipe()
            chunks: list[bytes] = []
            reader = threading.Thread(target=_drain, args=(reading, chunks))
            identifier = client.launch(
                LaunchRequest(profile=profile, argv=argv, timeout_s=timeout_s, grace_s=1),
                stdin_fd=given.fileno(),
                stdout_fd=writing,
                stderr_fd=writing,
            )
            os.close(writing)
            reader.start()
            outcome = client.wait(identifier)
            reader.join(10)
        return b"".join(chunks).decode("utf-8", "replace"), outcome

    def fill(self, body: str) -> str:
        for name, value in self.targets.items():
            body = body.replace(f"{{{name}}}", value)
        return body


def _drain(descriptor: int, chunks: list[bytes]) -> None:
    kept = 0
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while data := pipe.read(65536):
            if kept < 10_000_000:
                chunks.append(data)
                kept += len(data)


@pytest.fixture(scope="session")
def arena() -> Iterator[Arena]:
    if not Path(PYTHON).exists():
        pytest.skip("needs the system's python3, which the sandbox shows")
    directory = Path(tempfile.mkdtemp(prefix="guardhouse-escapes-", dir="/var/tmp"))
    directory.chmod(0o755)
    made = Arena(directory)
    with made.stack:
        _make_targets(made)
        made.stack.callback(shutil.rmtree, directory, ignore_errors=True)
        yield made


def _make_targets(arena: Arena) -> None:
    account = ACCOUNT if is_root() else os.getuid()
    victim = subprocess.Popen(
        ["sleep", "86400"],
        env={"GUARDHOUSE_TEST_SECRET": "1"},
        **({"user": account, "group": account} if is_root() else {}),
    )
    arena.stack.callback(victim.wait)
    arena.stack.callback(victim.kill)
    arena.targets["victim"] = str(victim.pid)
    listener = arena.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    arena.targets["port"] = str(listener.getsockname()[1])
    abstract = arena.stack.enter_context(socket.socket(socket.AF_UNIX))
    arena.targets["abstract"] = f"guardhouse-escapes-{os.getpid()}"
    abstract.bind("\0" + arena.targets["abstract"])
    abstract.listen()
    datagram = arena.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    arena.targets["abstract_datagram"] = f"guardhouse-escapes-datagram-{os.getpid()}"
    datagram.bind("\0" + arena.targets["abstract_datagram"])
    host_socket = arena.stack.enter_context(socket.socket(socket.AF_UNIX))
    place = Path("/run" if is_root() else arena.directory) / f"guardhouse-escapes-{os.getpid()}.sock"
    host_socket.bind(str(place))
    place.chmod(0o666)
    host_socket.listen()
    arena.stack.callback(place.unlink, missing_ok=True)
    arena.targets["host_socket"] = str(place)
    secret = Path(tempfile.mkdtemp(prefix="guardhouse-escapes-", dir="/tmp"))
    beside = Path(tempfile.mkdtemp(prefix="guardhouse-escapes-", dir="/var/lib" if is_root() else arena.directory))
    for folder in (secret, beside):
        arena.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        file = folder / "secret"
        file.write_text("secret of the host\n")
        if is_root():
            os.chown(folder, account, account)
            os.chown(file, account, account)
    _make_shared_memory(arena)
    arena.targets["secret"] = str(secret / "secret")
    arena.targets["host_file"] = str(beside / "secret")
    arena.targets["marker"] = str(beside / "marker")
    os.mkfifo(beside / "pipe")
    (beside / "pipe").chmod(0o666)
    arena.targets["host_fifo"] = str(beside / "pipe")


def _make_shared_memory(arena: Arena) -> None:
    """A file in the host's /dev/shm and a System V segment, open to everybody."""
    file = Path(f"/dev/shm/guardhouse-escapes-{os.getpid()}")
    file.write_text("shared memory of the host\n")
    file.chmod(0o666)
    arena.stack.callback(file.unlink, missing_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x67000000 | os.getpid()
    segment = libc.shmget(key, 4096, 0o1666)
    assert segment >= 0, os.strerror(ctypes.get_errno())
    arena.stack.callback(libc.shmctl, segment, 0, None)
    arena.targets["shm_file"], arena.targets["shm_key"] = str(file), str(key)


@pytest.fixture(scope="session")
def verdicts(arena: Arena) -> Callable[[str, str], dict[str, str]]:
    """Every attack and every twin of a profile, run in one sandbox, once: name -> line."""
    known: dict[tuple[str, str], dict[str, str]] = {}
    failed: dict[tuple[str, str], str] = {}

    def get(profile: str, start: str) -> dict[str, str]:
        key = (profile, start)
        if key not in known and key not in failed:
            try:
                known[key] = _run_all(arena, profile, start)
            except (AssertionError, ValueError, GuardhouseError) as error:
                failed[key] = f"{type(error).__name__}: {error}"
        if key in failed:
            pytest.fail(f"the attacks behind {profile} started as {start} did not run: {failed[key]}")
        return known[key]

    return get


def _run_all(arena: Arena, profile: str, start: str) -> dict[str, str]:
    rows = [a for a in ATTACKS if profile in a.profiles and platform.machine() in a.machines]
    batch = [[a.name, arena.fill(a.body), False] for a in rows if not a.alone]
    batch += [[f"twin of {a.name}", arena.fill(a.twin or a.body), False] for a in rows if a.where == "inside"]
    argv = (PYTHON, "-I", "-c", DRIVER)
    text, outcome = arena.run(profile, start, argv, stdin=json.dumps(batch).encode(), timeout_s=280)
    lines = text.strip().splitlines()
    assert lines, f"no output: {outcome}"
    results: dict[str, str] = json.loads(lines[-1])
    for attack in (row for row in rows if row.alone):
        given = json.dumps([[attack.name, arena.fill(attack.body), False]]).encode()
        text, outcome = arena.run(profile, start, argv, stdin=given)
        results[attack.name] = text.strip().splitlines()[-1] if text.strip() else f"EXIT {outcome.exit_code}"
    return results


@pytest.fixture(scope="session")
def outside(arena: Arena) -> dict[str, str]:
    """Every twin that succeeds outside, run as this test's own user; harmless by its arguments."""
    rows = [a for a in ATTACKS if a.where != "inside" and platform.machine() in a.machines]
    batch = [[a.name, arena.fill(a.twin or a.body), a.where == "outside_private"] for a in rows]
    done = subprocess.run(
        [PYTHON, "-I", "-c", DRIVER], input=json.dumps(batch), capture_output=True, text=True, check=True, timeout=280
    )
    return json.loads(done.stdout)
