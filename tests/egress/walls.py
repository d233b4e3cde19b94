"""A command service whose commands run behind the real wall in network mode `domains`, and servers that they may reach.

Started as root or as an ordinary user. The name service is a table, so that names can lead anywhere.
"""

import contextlib
import http.server
import os
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import trio
import trustme

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.client import LauncherClient
from guardhouse.launcher.start import start_launcher
from guardhouse.policy import load_policy
from guardhouse.policy.shell import read_command
from guardhouse.runner.command_parts import StopSignal
from guardhouse.runner.command_run import CommandRequest, CommandRun
from guardhouse.runner.commands import CommandService
from guardhouse.runner.egress import EgressService, rules_of_bundle
from guardhouse.runner.rules import make_judge
from guardhouse.sandbox.bundle import Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile
from tests.escapes.conftest import ACCOUNT, TRUSTED_PATH, features_as_user, is_root
from tests.support.reachable import reachable_sources

BIG = bytes(range(256)) * 40_960  # 10 MiB
NAMES = {
    "web.test": ["127.0.0.1"], "evil.test": ["127.0.0.1"], "a.wild.test": ["127.0.0.1"],
    "a.b.wild.test": ["127.0.0.1"], "wild.test": ["127.0.0.1"], "awild.test": ["127.0.0.1"],
    "localhost": ["127.0.0.1"], "meta.test": ["169.254.169.254"], "loop.test": ["127.0.0.1"],
    "ten.test": ["10.0.0.1"], "mixed.test": ["93.184.216.34", "10.0.0.1"], "mapped.test": ["::ffff:127.0.0.1"],
}  # fmt: skip
PROFILE = """
profile: web
summary: isolate, and a few names
extends: isolate
network:
  mode: domains
  why: tests of the egress proxy
  domains:
    - {{domain: web.test, ports: [{http}, {https}], why: the server}}
    - {{domain: "*.wild.test", ports: [{http}], why: a wildcard}}
    - {{domain: loop.test, ports: [{closed}], why: leads to the loopback}}
    - {{domain: meta.test, why: leads to metadata}}
    - {{domain: ten.test, why: leads to a private network}}
    - {{domain: mixed.test, why: leads to both}}
    - {{domain: mapped.test, why: leads to a disguise}}
  addresses:
    - {{address: 127.0.0.1/32, ports: [{http}, {https}], why: where the server is}}
  ports:
    - {{connect: 9996, why: a server of the command's own}}
"""
POLICY = """
permission:
  bash: {"*": allow}
  egress:
    "*": allow
    "https://web.test:*/forbidden": allow
    "http://web.test:*/forbidden": deny
"""
# Without the rule for a path, for tunnels to web.test: a deny in clear would close them.
POLICY_OF_TUNNELS = 'permission: {bash: {"*": allow}}\n'


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        to = {
            "/to-metadata": "http://169.254.169.254/latest/",
            "/to-evil": f"http://evil.test:{port}/hello",
            "/to-hello": "/hello",
        }.get(self.path)
        if to is not None:
            self._answer(b"", status=302, location=to)
        else:
            self._answer(BIG if self.path == "/big" else b"hello from " + self.path.encode())

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(f"{len(body)} {sha256(body).hexdigest()}\n".encode())

    def do_PUT(self) -> None:
        self.do_POST()

    def _answer(self, body: bytes, *, status: int = 200, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


@dataclass
class Servers:
    """What there is on the host: ports by the placeholder's name, and the authority that signed web.test."""

    ports: dict[str, str]
    authority: bytes

    def fill(self, text: str) -> str:
        for name, value in self.ports.items():
            text = text.replace(f"{{{name}}}", value)
        return text


@contextmanager
def servers() -> Iterator[Servers]:
    authority = trustme.CA()
    with contextlib.ExitStack() as stack:
        plain, secure = (stack.enter_context(_Server(("127.0.0.1", 0), _Handler)) for _ in range(2))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("web.test").configure_cert(context)
        secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
        for server in (plain, secure):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        closed = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = f"guardhouse-egress-{os.getpid()}"
        abstract.bind("\0" + name)
        abstract.listen()
        ports = {
            "http": str(plain.server_address[1]),
            "https": str(secure.server_address[1]),
            "closed": str(closed.getsockname()[1]),
            "abstract": name,
        }
        yield Servers(ports, authority.cert_pem.bytes())


@dataclass
class Walled:
    """Runs command texts in the workspace ``place`` behind the wall of profile ``web``."""

    commands: CommandService
    place: Path

    async def run(self, text: str, *, timeout_s: float = 60, stop: StopSignal | None = None) -> CommandRun:
        admitted = await self.commands.admit(CommandRequest(text=text, timeout_s=timeout_s))
        return await self.commands.run(admitted, _drop, stop=stop or StopSignal())


async def _drop(_stream: object, _data: bytes) -> None:
    await trio.lowlevel.checkpoint()


async def _resolve(host: str, _port: int, _limiter: trio.CapacityLimiter) -> list[str]:
    await trio.lowlevel.checkpoint()
    if host not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return NAMES[host]


@asynccontextmanager
async def walled(at: Servers, start: str, *, policy: str = POLICY) -> AsyncIterator[Walled]:
    """Start a launcher as ``root`` or as ``user`` and serve its commands' proxies."""
    as_user = start == "user" and is_root()
    with tempfile.TemporaryDirectory(prefix="guardhouse-egress-", dir="/var/tmp") as made:
        directory, place = Path(made), Path(made) / "workspace"
        identity = _make_files(directory, place, at)
        bundle = compile_bundle(
            [load_profile(str(directory / "web.yaml"), directory=shipped_directory("sandbox"))],
            identity=identity,
            workspace=str(place),
            features=features_as_user() if as_user else probe_host(),
            trusted_path=TRUSTED_PATH,
        )
        interpreter = _as_account(directory) if as_user else sys.executable
        rules = load_policy(policy, name="policy.yaml")
        async with LauncherClient(start_launcher(bundle, interpreter=interpreter)) as launcher:
            commands = CommandService(
                judge=make_judge(rules, reader=read_command),
                launcher=launcher,
                profile="web",
                profiles=frozenset({"web"}),
                has_gate=False,
                egress=EgressService(rules_of_bundle(bundle), policy=rules, resolve=_resolve, log=None),
            )
            yield Walled(commands, place)


def _make_files(directory: Path, place: Path, at: Servers) -> Identity:
    directory.chmod(0o755)
    place.mkdir(mode=0o700)
    (place / "ca.pem").write_bytes(at.authority)
    (directory / "web.yaml").write_text(PROFILE.format(**at.ports))
    if not is_root():
        return Identity(os.getuid(), os.getgid(), tuple(os.getgroups()), "tester", "/nonexistent")
    for path in (place, *place.iterdir()):
        os.chown(path, ACCOUNT, ACCOUNT)
    return Identity(ACCOUNT, ACCOUNT, (), "tester", "/nonexistent")


def _as_account(directory: Path) -> str:
    """Return an interpreter that gives up root before it runs the launcher."""
    wrapper = directory / "as-user"
    main = reachable_sources(directory) / "guardhouse" / "launcher" / "__main__.py"
    # The first three words are -I, -S and the launcher's main, which may lie where this user cannot read.
    wrapper.write_text(
        "#!/bin/sh\nshift 3\n"
        f"exec /usr/bin/setpriv --reuid={ACCOUNT} --regid={ACCOUNT} --clear-groups"
        f' "{Path(sys.executable).resolve()}" -I -S "{main}" "$@"\n'
    )
    wrapper.chmod(0o755)
    return str(wrapper)
