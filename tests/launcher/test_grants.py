"""What a profile grants is there and works for the clients that people use: a container daemon's socket, a kubeconfig.

Beside each the same command behind `observe` as it ships, where the same thing is not there. The clients are the real
ones (docker and kubectl; curl where they are not installed); who answers them is a small server of this test's.
"""

import http.server
import json
import os
import shutil
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile
from tests.launcher.bundles import TRUSTED_PATH, identity

CONTAINERS = [
    {
        "Id": "c0ffee" * 10,
        "Names": ["/the-web-server"],
        "Image": "web",
        "Command": "serve",
        "Created": 1,
        "State": "running",
        "Status": "Up 3 days",
        "Ports": [],
    }
]
PODS = {
    "kind": "Table",
    "apiVersion": "meta.k8s.io/v1",
    "metadata": {},
    "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
    "rows": [{"cells": ["the-web-pod"], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}}],
}
RESOURCES = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [{"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}],
}
ANSWERS = {
    "/containers/json": CONTAINERS,
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": RESOURCES,
    "/pods": PODS,
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0", "ApiVersion": "1.47"},
}


class Answers(http.server.BaseHTTPRequestHandler):
    """As much of both interfaces as `docker ps` and `kubectl get pods` ask for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known = next((answer for end, answer in ANSWERS.items() if path.endswith(end)), None)
        body = b"OK" if path.endswith("/_ping") else json.dumps(known).encode()
        self.send_response(200 if known is not None or body == b"OK" else 404)
        for name, value in (("Content-Type", "application/json"), ("Api-Version", "1.47"), ("Ostype", "linux")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_arguments: object) -> None:
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Answer until the block ends."""
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@dataclass
class Granted:
    """A launcher with `observe` and a profile that grants more, and where what it grants is."""

    client: DirectClient
    socket: Path
    kubeconfig: Path

    def run(self, profile: str, text: str) -> tuple[str, CommandOutcome]:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            request = LaunchRequest(profile=profile, argv=("bash", "-c", text), timeout_s=60)
            identifier = self.client.launch(request, stdout_fd=writing, stderr_fd=writing)
            os.close(writing)
            outcome = self.client.wait(identifier)
            return pipe.read().decode("utf-8", "replace"), outcome


@pytest.fixture(scope="module")
def granted(open_directory: Path, workspace: Path) -> Iterator[Granted]:
    # Both stand where `observe` covers or masks: else the twin would find them too.
    covered = Path("/var/tmp") / f"guardhouse-grants-{os.getpid()}"
    covered.mkdir()
    covered.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, covered)
        api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        stack.enter_context(serving(api))
        daemon = UnixServer(str(covered / "daemon.sock"), Answers)
        (covered / "daemon.sock").chmod(0o666)
        stack.enter_context(serving(daemon))
        kubeconfig = covered / "config"
        kubeconfig.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            f"clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{api.server_port}'}}}}]\n"
            "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\n"
        )
        kubeconfig.chmod(0o644)
        if os.geteuid() == 0:
            os.chown(kubeconfig, identity().uid, identity().gid)
        profile = open_directory / "granting.yaml"
        profile.write_text(
            "profile: granting\nsummary: observe, one daemon and one cluster\nextends: observe\ngrant:\n"
            f"  - {{socket: {covered}/daemon.sock, why: containers are listed}}\n"
            f"  - {{kubeconfig: {kubeconfig}, why: the cluster is read}}\n"
        )
        bundle = compile_bundle(
            [load_profile(name, directory=shipped_directory("sandbox")) for name in ("observe", str(profile))],
            identity=identity(),
            workspace=str(workspace),
            features=probe_host(),
            trusted_path=TRUSTED_PATH,
        )
        client = stack.enter_context(DirectClient(start_launcher(bundle)))
        yield Granted(client, covered / "daemon.sock", kubeconfig)


def test_containers_are_listed_over_a_granted_socket(granted: Granted) -> None:
    """`docker ps` over the socket that the profile grants says what the daemon says, and nothing of it was denied."""
    text = f"curl -sS --unix-socket {granted.socket} http://localhost/v1.47/containers/json"
    if shutil.which("docker"):
        text = f"docker -H unix://{granted.socket} ps"
    said, outcome = granted.run("granting", text)
    assert "the-web-server" in said
    assert (outcome.exit_code, outcome.denied_syscalls) == (0, {})
    said, outcome = granted.run("observe", text)
    assert "the-web-server" not in said
    assert outcome.exit_code != 0


def test_cluster_is_read_with_a_granted_kubeconfig(granted: Granted) -> None:
    """`kubectl get pods` finds the cluster by KUBECONFIG; without the grant there is no such file."""
    text = 'curl -sS "$(grep -o "http://[0-9.:]*" "$KUBECONFIG")/api/v1/namespaces/default/pods"'
    if shutil.which("kubectl"):
        text = "kubectl get pods"
    said, outcome = granted.run("granting", text)
    assert "the-web-pod" in said
    assert (outcome.exit_code, outcome.denied_syscalls) == (0, {})
    said, outcome = granted.run("observe", f"KUBECONFIG={granted.kubeconfig}; export KUBECONFIG; {text}")
    assert "the-web-pod" not in said
    assert outcome.exit_code != 0


def test_what_is_granted_for_reading_cannot_be_changed(granted: Granted) -> None:
    """A kubeconfig is there to be read: its account may write it, the command may not."""
    _, outcome = granted.run("granting", f"cat {granted.kubeconfig} && ! echo x >> {granted.kubeconfig}")
    assert outcome.exit_code == 0
    assert "token: t" in granted.kubeconfig.read_text()
