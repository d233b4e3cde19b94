"""Start a hub and a runner on this machine as an operator would: certificates, processes, an environment, over TLS.

Everything is started through the `guardhouse` command and talked to through the REST API; nothing is imported from the
hub or the runner, so what works here works for a user.
"""

import base64
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import httpx2
import trustme

__all__ = ["Answer", "LocalSystem", "SystemFailedError", "system_directory"]

GUARDHOUSE: Final = (sys.executable, "-m", "guardhouse")
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 45.0


class SystemFailedError(Exception):
    """A process did not start, did not stop, or ended when it should not have. The text holds the end of its log."""


@dataclass(frozen=True)
class Answer:
    """What one command did: its streams to the byte, and the ended task as the API shows it."""

    stdout: bytes
    stderr: bytes
    task: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """The command's exit status, 128 + n when signal n ended it."""
        return int(self.task["result"]["exit_code"])


class LocalSystem:
    """One hub and one runner, in a directory of their own. Use it as a context manager."""

    def __init__(self, directory: Path, *, policy: str, profile: str = "observe") -> None:
        self.directory = directory
        self.policy = policy
        self.profile = profile
        self.port = _free_port()
        self.url = f"https://localhost:{self.port}"
        self.ca_file = directory / "ca.pem"
        self.api_token_file = directory / "hub" / "owner.token"
        self.workspace = directory / "workspace"
        self.environment_id = ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}

    # -- starting and stopping ------------------------------------------------------------------------------------

    def __enter__(self) -> "LocalSystem":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def make_certificates(self) -> None:
        """Make a certificate authority and the hub's certificate for localhost; the key stays with the hub."""
        authority = trustme.CA(organization_name="Guardhouse local authority")
        authority.cert_pem.write_to_path(str(self.ca_file))
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(str(self.directory / "hub-cert.pem"))
        key = self.directory / "hub-key.pem"
        key.touch(mode=0o600)
        key.write_bytes(certificate.private_key_pem.bytes())

    def start_hub(self) -> None:
        """Start the hub and wait until it says that it is ready."""
        self._start(
            "hub",
            "hub",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--public-url",
            self.url,
            "--state-dir",
            str(self.directory / "hub"),
            "--tls-cert",
            str(self.directory / "hub-cert.pem"),
            "--tls-key",
            str(self.directory / "hub-key.pem"),
        )
        self._wait_for("hub", self._hub_is_ready, "answer /readyz")

    def create_environment(self, name: str) -> str:
        """Create an environment, keep its runner token in a file that only its owner can read, return its id."""
        answer = self.api("POST", "/api/v1/environments", json={"name": name, "tags": ["local"]})
        self.environment_id = str(answer["environment"]["id"])
        token_file = self.directory / "runner.token"
        token_file.touch(mode=0o600)
        token_file.write_text(str(answer["token"]))
        return self.environment_id

    def start_runner(self) -> None:
        """Start the runner and wait until the hub shows the environment as online."""
        self.make_workspace()
        self._start(
            "runner",
            "run",
            "--url",
            f"wss://localhost:{self.port}/api/v1/runner/ws",
            "--token-file",
            str(self.directory / "runner.token"),
            "--ca-file",
            str(self.ca_file),
            "--workspace",
            str(self.workspace),
            "--state-dir",
            str(self.directory / "runner"),
            "--policy",
            self.policy,
            "--profile",
            self.profile,
        )
        self._wait_for("runner", self._runner_is_online, "come online")

    def make_workspace(self) -> None:
        """Make the workspace; as root it belongs to the user that commands will run as."""
        self.workspace.mkdir(mode=0o755, exist_ok=True)
        if os.geteuid() == 0:
            self.directory.chmod(0o755)
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = "guardhouse" if "guardhouse" in names else "nobody"
            shutil.chown(self.workspace, user)

    def make_writable_directory_outside(self) -> Path:
        """Make a directory beside the workspace that everybody may write to; only the wall is in the way then."""
        outside = self.directory / "outside"
        outside.mkdir(exist_ok=True)
        outside.chmod(0o777)
        return outside

    def stop(self) -> None:
        """Stop the runner, then the hub, as SIGTERM asks them to.

        Raises:
            SystemFailedError: one of them had to be killed.
        """
        stuck = []
        for name in reversed(list(self._processes)):
            process = self._processes.pop(name)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                stuck.append(f"the {name} did not end {STOP_TIMEOUT_S:g} s after SIGTERM\n{self.log_tail(name)}")
        for log in self._logs.values():
            log.close()
        if stuck:
            raise SystemFailedError("\n".join(stuck))

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return the process called ``hub`` or ``runner``."""
        return self._processes[name]

    # -- talking to it --------------------------------------------------------------------------------------------

    @property
    def api_token(self) -> str:
        """The owner's API token, which the hub wrote at its first start."""
        return self.api_token_file.read_text().strip()

    def client(self) -> httpx2.Client:
        """Return an HTTP client that trusts only our authority and carries the owner's token."""
        return httpx2.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
            headers={"Authorization": f"Bearer {self.api_token}"},
            timeout=httpx2.Timeout(120.0),
        )

    def api(self, method: str, path: str, **arguments: Any) -> Any:
        """Make one API request and return its JSON.

        Raises:
            SystemFailedError: the hub answered with an error; the text holds its body.
        """
        with self.client() as client:
            response = _checked(client.request(method, path, **arguments))
        return response.json() if response.content else None

    def run(self, command: str, *, client: httpx2.Client | None = None, **args: Any) -> Answer:
        """Run one command text as a `bash` task and return its output, to the byte, with the ended task.

        Args:
            command: the text.
            client: one made by `client`, to use its connection again.
            args: further arguments of the operation, such as ``timeout``.
        """
        with contextlib.ExitStack() as stack:
            used = client or stack.enter_context(self.client())
            body = {"environment_id": self.environment_id, "operation": "bash", "args": {"command": command, **args}}
            task = _checked(used.post("/api/v1/tasks", json=body)).json()
            output = {"stdout": bytearray(), "stderr": bytearray()}
            path = f"/api/v1/tasks/{task['id']}"
            with used.stream("GET", f"{path}/output", params={"follow": "true"}) as stream:
                _checked(stream)
                for line in filter(None, stream.iter_lines()):
                    chunk = json.loads(line)
                    if "data_b64" in chunk:
                        output[chunk["stream"]] += base64.b64decode(chunk["data_b64"])
                    elif "data" in chunk:
                        output[chunk["stream"]] += chunk["data"].encode()
            ended = _checked(used.get(f"{path}/result", params={"wait_s": 60})).json()
        return Answer(bytes(output["stdout"]), bytes(output["stderr"]), ended)

    def cli(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        """Run the `guardhouse` command against this hub, as a person at a terminal would."""
        return subprocess.run(
            [*GUARDHOUSE, *arguments],
            env=self.cli_environment(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def cli_environment(self) -> dict[str, str]:
        """The environment variables with which the `guardhouse` command finds this hub."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.directory),
            "GUARDHOUSE_HUB_URL": self.url,
            "GUARDHOUSE_API_TOKEN_FILE": str(self.api_token_file),
            "GUARDHOUSE_CA_FILE": str(self.ca_file),
        }

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines that a process logged."""
        path = self.directory / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(f"  {name}: {line}" for line in text.splitlines()[-lines:])

    # -- inside ---------------------------------------------------------------------------------------------------

    def _start(self, name: str, *arguments: str) -> None:
        log = (self.directory / f"{name}.log").open("ab")
        self._logs[name] = log
        self._processes[name] = subprocess.Popen(
            [*GUARDHOUSE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": os.environ.get("HOME", "/")},
            start_new_session=True,  # a Ctrl-C is for whoever waits; we then stop both in order
        )

    def _wait_for(self, name: str, is_there: Any, what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._processes[name].poll() is not None:
                status = self._processes[name].returncode
                raise SystemFailedError(f"the {name} ended with status {status}\n{self.log_tail(name)}")
            if is_there():
                return
            time.sleep(0.1)
        raise SystemFailedError(f"the {name} did not {what} in {START_TIMEOUT_S:g} s\n{self.log_tail(name)}")

    def _hub_is_ready(self) -> bool:
        try:
            with httpx2.Client(verify=ssl.create_default_context(cafile=str(self.ca_file)), timeout=5) as client:
                return client.get(f"{self.url}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def _runner_is_online(self) -> bool:
        answer = self.api("GET", f"/api/v1/environments/{self.environment_id}")
        return bool(answer["status"] == "online")


def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.status_code >= 400:
        response.read()
        request = response.request
        raise SystemFailedError(f"{request.method} {request.url.path}: {response.status_code} {response.text}")
    return response


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def system_directory() -> Iterator[Path]:
    """A directory for one local system, gone afterwards.

    As root it lies where the unprivileged user of the commands can reach its workspace: a home directory, or a checkout
    below one, often is closed to others. An ordinary user's lies in the home directory where that can be written,
    since commands have a /tmp of their own.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - a user without a home directory is no error here
    base = "/var/lib" if os.geteuid() == 0 else home if os.access(home, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="guardhouse-", dir=base) as name:
        yield Path(name)
