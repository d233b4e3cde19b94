"""Other people's sandboxes, as `spawn.py` starts them: what is installed here, each with what its manual recommends.

Debian's are looked for on PATH (bubblewrap, firejail, crun, runc, runsc, systemd-container). Those of PyPI and npm are
looked for in a directory that `install` fills: ``python bench/spawn.py --install DIRECTORY``. Who is missing is named.
nsjail and minijail are in neither Debian 12 nor PyPI nor npm.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEBIAN", "Peer", "find_peers", "install", "serve_crun"]

# From PyPI and npm; the versions that were measured are in bench/README.md.
PYTHON_PACKAGES = ("sandlock",)
NODE_PACKAGES = ("@anthropic-ai/sandbox-runtime",)
DEBIAN = ("bubblewrap", "firejail", "crun", "runc", "runsc", "systemd-container")
LINKS = tuple(name for name in ("bin", "sbin", "lib", "lib64") if Path(f"/{name}").is_symlink())

_CLONE_NEWNS = 0x00020000

_SANDLOCK = """
import json, sys, sandlock
box = sandlock.Sandbox(fs_readable=["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev"],
                       fs_writable=["/tmp", "/dev/null"], max_memory="2G", max_processes=512)
for line in sys.stdin:
    result = box.run(json.loads(line))
    text = (getattr(result, "stdout" if result.exit_code == 0 else "stderr", b"") or b"").decode("utf-8", "replace")
    print(json.dumps([result.exit_code, text]), flush=True)
"""


@dataclass(frozen=True)
class Peer:
    """One of them. ``words`` makes the command line for a program; ``protections`` says what that turns on.

    Attributes:
        seccomp: a filter to hand over as descriptor 9.
        serve: instead of a command line, a program that takes argument lists as JSON lines and answers each.
    """

    name: str
    protections: str
    words: Callable[[tuple[str, ...]], tuple[str, ...]]
    seccomp: bytes | None = None
    serve: tuple[str, ...] = ()


def install(directory: Path) -> None:
    """Put what PyPI and npm have into ``directory``."""
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    subprocess.run([directory / "venv/bin/pip", "install", "-q", *PYTHON_PACKAGES], check=True)
    subprocess.run(["npm", "install", "--silent", "--prefix", directory, *NODE_PACKAGES], check=True)


def find_peers(place: Path, directory: Path | None, seccomp: bytes) -> tuple[list[Peer], list[str]]:
    """Return who can be started here, and a line for each who cannot. ``place`` is for what they need."""
    found: list[Peer] = []
    missing: list[str] = []
    for make in (_unshare, _bubblewrap, _firejail, _crun, _runc, _runsc, _nspawn, _sandbox_runtime, _sandlock):
        peer = make(place, directory)
        if isinstance(peer, Peer):
            found.append(peer)
        else:
            missing.append(peer)
    plain = next((peer for peer in found if peer.name == "bubblewrap"), None)
    if plain is not None:
        with_filter = Peer(
            "bubblewrap+seccomp",
            "the same, and our isolate filter",
            lambda program: (*_bubblewrap_words(), "--seccomp", "9", *program),
            seccomp,
        )
        found.insert(found.index(plain) + 1, with_filter)
    return found, missing


def _unshare(_place: Path, _directory: Path | None) -> Peer | str:
    program = shutil.which("unshare")
    if program is None:
        return "unshare: not installed (util-linux)"
    return Peer(
        "unshare",
        "user, mount, pid, net, ipc, uts namespaces; full capabilities inside them",
        lambda words: (program, "-Urmpniuf", *words),
    )


def _bubblewrap_words() -> tuple[str, ...]:
    """Return what its manual recommends for an untrusted command."""
    words = ["/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in LINKS:
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    return (*words, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")


def _bubblewrap(_place: Path, _directory: Path | None) -> Peer | str:
    if not Path("/usr/bin/bwrap").exists():
        return "bubblewrap: not installed"
    return Peer(
        "bubblewrap",
        "user, mount, pid, net, ipc, uts, cgroup namespaces; read-only view; no_new_privs; started by root, root's"
        " capabilities inside them",
        lambda words: (*_bubblewrap_words(), *words),
    )


def _firejail(_place: Path, _directory: Path | None) -> Peer | str:
    program = shutil.which("firejail")
    if program is None:
        return "firejail: not installed"
    words = (
        *(program, "--quiet", "--noprofile", "--private", "--private-dev", "--private-tmp", "--net=none"),
        *("--caps.drop=all", "--nonewprivs", "--noroot", "--seccomp", "--ipc-namespace", "--rlimit-nproc=512"),
    )
    return Peer(
        "firejail",
        "user, mount, pid, net, ipc namespaces; private home, /dev, /tmp over the host's root; no capabilities;"
        " no_new_privs; a list of denied calls",
        lambda program: (*words, *program),
    )


def _oci(place: Path, name: str, program: tuple[str, ...]) -> Path:
    """Make the bundle of one program for an OCI runtime; return its directory."""
    bundle = place / f"oci-{abs(hash((name, program)))}"
    if bundle.exists():
        return bundle
    root = _root(bundle / "rootfs")
    namespaces = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    if name == "runsc":
        namespaces = namespaces[:-1]
    config = {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False, "user": {"uid": 65534, "gid": 65534}, "args": list(program), "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"], "capabilities": {}, "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ],
        "linux": {"namespaces": namespaces},
    }  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _root(root: Path) -> Path:
    for name in ("usr", "proc", "dev", "tmp", "sys", "etc", "run", "var", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/os-release").touch()
    for name in LINKS:
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    return root


class _Names:
    """A name for each container: a runtime keeps them in one directory."""

    def __init__(self) -> None:
        self._next = 0
        self._lock = threading.Lock()

    def fresh(self) -> str:
        with self._lock:
            self._next += 1
            return f"bench-{os.getpid()}-{self._next}"


_NAMES = _Names()
_OCI_PROTECTIONS = (
    "mount, pid, net, ipc, uts, cgroup namespaces; read-only view; no capabilities; no_new_privs; other uid"
)


def _crun(place: Path, _directory: Path | None) -> Peer | str:
    program = shutil.which("crun")
    if program is None or os.geteuid() != 0:
        return "crun: not installed" if program is None else "crun: measured as root only"
    words = (program, "--cgroup-manager=disabled", "--root", str(place / "crun"), "run", "--bundle")
    if not Path("/sys/fs/cgroup/unified").is_dir():
        return Peer("crun", _OCI_PROTECTIONS, lambda p: (*words, str(_oci(place, "crun", p)), _NAMES.fresh()))
    text = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import spawn_peers; "
    return Peer(
        "crun",
        f"{_OCI_PROTECTIONS}; started where /sys/fs/cgroup is cgroup v2 alone",
        tuple,
        serve=(sys.executable, "-c", f"{text}spawn_peers.serve_crun({str(place)!r}, {words!r})"),
    )


def serve_crun(place: str, words: tuple[str, ...]) -> None:
    """Run what comes as JSON lines by crun, in a mount namespace whose /sys/fs/cgroup is cgroup v2.

    crun 1.8 starts nothing where it finds hybrid control groups, although it is told to leave them alone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for arguments in (("--make-rprivate", "/"), ("-t", "cgroup2", "none", "/sys/fs/cgroup")):
        subprocess.run(["mount", *arguments], check=True)
    for line in sys.stdin:
        bundle = _oci(Path(place), f"crun-{os.getpid()}", tuple(json.loads(line)))
        done = subprocess.run([*words, bundle, _NAMES.fresh()], capture_output=True, text=True, check=False)
        print(json.dumps([done.returncode, done.stdout if done.returncode == 0 else done.stderr]), flush=True)


def _runc(place: Path, _directory: Path | None) -> Peer | str:
    program = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        return "runc: not installed" if program is None else "runc: measured as root only"
    words = (program, "--root", str(place / "runc"), "run", "--bundle")
    return Peer(
        "runc",
        f"{_OCI_PROTECTIONS}; a group of its own in every hierarchy",
        lambda p: (*words, str(_oci(place, "runc", p)), _NAMES.fresh()),
    )


def _runsc(place: Path, _directory: Path | None) -> Peer | str:
    program = shutil.which("runsc")
    if program is None or os.geteuid() != 0:
        return "runsc (gVisor): not installed" if program is None else "runsc: measured as root only"
    words = (
        *(program, "--ignore-cgroups", "--network=none", "--platform=ptrace", "--root", str(place / "runsc")),
        *("run", "--bundle"),
    )
    return Peer(
        "gVisor (runsc)",
        "a kernel of its own in user space, in namespaces and behind a filter; read-only view; no capabilities",
        lambda p: (*words, str(_oci(place, "runsc", p)), _NAMES.fresh()),
    )


def _nspawn(place: Path, _directory: Path | None) -> Peer | str:
    program = shutil.which("systemd-nspawn")
    if program is None or os.geteuid() != 0:
        return "systemd-nspawn: not installed" if program is None else "systemd-nspawn: needs root"

    # One root directory for each running container: it is locked.
    def words(p: tuple[str, ...]) -> tuple[str, ...]:
        return (
            *(program, "-q", "--read-only", "-D", str(_root(place / _NAMES.fresh())), "--timezone=off"),
            *("--register=no", "--keep-unit", "--private-network", "--bind-ro=/usr", "--console=pipe"),
            *("--no-new-privileges=yes", "--drop-capability=all", *p),
        )

    return Peer(
        "systemd-nspawn",
        "mount, pid, net, ipc, uts, cgroup namespaces; read-only view; no capabilities; a list of allowed calls",
        words,
    )


def _sandbox_runtime(place: Path, directory: Path | None) -> Peer | str:
    program = None if directory is None else directory / "node_modules/.bin/srt"
    if program is None or not program.exists():
        return "sandbox-runtime (npm): not installed; --install DIRECTORY"
    settings = place / "srt.json"
    nothing: list[str] = []
    network = {"allowedDomains": nothing, "deniedDomains": nothing}
    files = {"denyRead": nothing, "allowWrite": ["/tmp"], "denyWrite": nothing}
    settings.write_text(json.dumps({"network": network, "filesystem": files}))
    return Peer(
        "sandbox-runtime",
        "bubblewrap inside: mount, pid, net namespaces, proxies for names; three denied calls; root read-only",
        lambda words: (str(program), "--settings", str(settings), *words),
    )


def _sandlock(_place: Path, directory: Path | None) -> Peer | str:
    program = None if directory is None else directory / "venv/bin/python"
    if program is None or not program.exists():
        return "sandlock (PyPI): not installed; --install DIRECTORY"
    return Peer(
        "sandlock",
        "Landlock and a list of denied calls with a supervisor, in a process that is kept; no namespaces",
        tuple,
        serve=(str(program), "-c", _SANDLOCK),
    )
