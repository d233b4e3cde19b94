"""A real launcher with the exec gate in front of a workspace, and the same wall without the gate beside it."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.launcher.start import gate_settings, start_launcher
from guardhouse.policy import Policy, dump_policy, policy_from_pairs
from guardhouse.policy.model import DEFAULT_TRUSTED_PATH
from guardhouse.runner.identity import resolve_account
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile, read_library
from guardhouse.sandbox.profile import Profile
from tests.gate.attacks import ON_THE_LIST_OF_SHELLS

DENY = [("*", "allow"), ("touch *PWNED*", "deny")]
ALLOW_LIST = [("*", "deny"), *((f"{name} *", "allow") for name in ON_THE_LIST_OF_SHELLS)]
ALLOW_ALL = [("*", "allow")]
TOOL_SOURCE = Path(__file__).parent / "attack_tool.c"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Done:
    """How a text ended: its outcome, and what it wrote to stdout and stderr together."""

    outcome: CommandOutcome
    output: str

    @property
    def ran(self) -> list[str]:
        """The paths of the programs that ran, in order."""
        return [entry["path"] for entry in (self.outcome.execs or {}).get("ran", [])]

    @property
    def refused(self) -> list[dict[str, object]]:
        """The records of what was refused."""
        return list((self.outcome.execs or {}).get("refused", []))


class Gate:
    """One launcher. ``rules`` is None for none."""

    profile = "observe"
    follows = True
    interpreter = sys.executable

    def __init__(
        self, directory: Path, rules: list[tuple[str, str]] | Policy | None, *, tags: frozenset[str] | None = None
    ) -> None:
        self.directory = directory
        self.account = resolve_account(None, effective_uid=os.geteuid())
        given = rules if rules is None or isinstance(rules, Policy) else policy_from_pairs(rules)
        policy = b"" if given is None else gate_settings(dump_policy(given), environment=tags, follows=self.follows)
        self.handle = start_launcher(
            self._bundle(), warm=(self.profile,), gate_policy=policy, interpreter=self.interpreter
        )
        self.client = DirectClient(self.handle)

    def _profile(self) -> Profile:
        shipped = shipped_directory("sandbox")
        return load_profile("observe", directory=shipped, library=read_library(shipped))

    def _trusted_path(self) -> tuple[str, ...]:
        return DEFAULT_TRUSTED_PATH

    def _bundle(self) -> Bundle:
        account = self.account
        return compile_bundle(
            [self._profile()],
            identity=Identity(
                uid=account.uid, gid=account.gid, groups=account.groups, user_name=account.name, home=account.home
            ),
            workspace=str(self.directory),
            features=probe_host(),
            trusted_path=":".join(self._trusted_path()),
        )

    def fresh_directory(self) -> Path:
        """Return a new directory of the workspace that the command's user owns."""
        # One count for all gates of the process: an object's id is given out again once the object is gone.
        made = self.directory / f"{os.getpid()}-{next(_numbers)}"
        made.mkdir()
        if os.geteuid() == 0:
            os.chown(made, self.account.uid, self.account.gid)
        return made

    def start(
        self,
        text: str,
        stdout_fd: int,
        *,
        where: Path | None = None,
        timeout_s: float = 30,
        grace_s: float = 1,
        **more: Any,
    ) -> int:
        """Start a text of bash in ``where`` (by default a new directory); return the command's id."""
        workdir = (self.fresh_directory() if where is None else where).name
        request = LaunchRequest(
            self.profile, ("bash", "-c", text), workdir=workdir, timeout_s=timeout_s, grace_s=grace_s, **more
        )
        return self.client.launch(request, stdout_fd=stdout_fd, stderr_fd=stdout_fd)

    def run(self, text: str, *, where: Path | None = None, timeout_s: float = 30) -> Done:
        """Run a text of bash to its end."""
        read_fd, write_fd = os.pipe()
        identifier = self.start(text, write_fd, where=where, timeout_s=timeout_s)
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as pipe:
            output = pipe.read()
        return Done(self.client.wait(identifier), output.decode("utf-8", "replace"))

    def children(self) -> list[int]:
        """Return the pids of the launcher's children: init processes and their monitors."""
        return children_of(self.handle.pid)

    def monitor(self) -> int:
        """Return the pid of the one monitor."""
        (found,) = [pid for pid in self.children() if is_monitor(pid)]
        return found

    def close(self) -> None:
        """End the launcher and everything it started."""
        self.handle.close()


I386_PROFILE = """
profile: with_i386
summary: observe, and programs of 32 bits
extends: observe
architectures:
  - {architecture: i386, why: a tool of these tests has 32 bits}
"""


class GateWithI386(Gate):
    """The same, behind a profile that permits i386."""

    profile = "with_i386"

    def _profile(self) -> Profile:
        shipped = shipped_directory("sandbox")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "with_i386.yaml"
            path.write_text(I386_PROFILE, encoding="utf-8")
            return load_profile(str(path), directory=shipped, library=read_library(shipped))


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status_of(pid: int, name: str) -> str:
    """Return one value of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def is_monitor(pid: int) -> bool:
    """Whether a child of the launcher is a monitor: it has no pid namespace of its own, and blocks SIGCHLD."""
    blocked = int(status_of(pid, "SigBlk"), 16)
    return len(status_of(pid, "NSpid").split()) == 1 and bool(blocked & 1 << (signal.SIGCHLD - 1))


def build_tools(directory: Path) -> tuple[str, str]:
    """Build attack_tool.c there, dynamic and static; return the paths, the first twice where no static libc is."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return "", ""
    dynamic, static = directory / "attack_tool", directory / "attack_static"
    subprocess.run([compiler, "-O1", "-pthread", "-o", dynamic, TOOL_SOURCE], check=True)
    done = subprocess.run([compiler, "-static", "-O1", "-pthread", "-o", static, TOOL_SOURCE], capture_output=True)
    return str(dynamic), str(static if done.returncode == 0 else dynamic)


def without_numbers(output: str) -> str:
    """Return what bash said of a job without its process number: each launcher keeps a row of numbers of its own."""
    return re.sub(r"(line \d+:) +\d+ ", r"\1 NUMBER ", output)
