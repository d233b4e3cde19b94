"""What there is of ours on this host, by kind and counted: taken before and after, to show that nothing is left over.

A test makes itself a subreaper, so that whatever is orphaned becomes its own child and cannot hide; everything below
it is ours, whoever else works on this machine. What has no process is attributed by the launcher's number (control
groups), by the account that commands run as (files, IPC objects, network sockets) and by our own directories (mounts,
unix sockets).
"""

import ctypes
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HOARD_KEYS", "Census", "Process", "below", "subreaper"]

# The first of the System V keys that a command of `leftovers` takes, all with the same upper bits.
HOARD_KEYS = 0x67680000
_PR_SET_CHILD_SUBREAPER = 36
_PUBLIC_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/run/lock")
_SOCKET_TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "icmp", "udplite")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_NSFS = re.compile(r"^(\w+:\[\d+\])$")


@dataclass(frozen=True)
class Process:
    """One process. ``role`` is its title with every number taken out, so that two of a kind have the same."""

    pid: int
    parent: int
    state: str
    role: str


@contextmanager
def subreaper() -> Iterator[None]:
    """Let every orphan below this process become its child for the duration."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _process(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    words = rest.split()
    # What follows the fourth word is a program's text, or paths.
    title = " ".join(word.rpartition("/")[2] for word in line.split("\0")[:4] if "\n" not in word) or name
    return Process(pid, int(words[1]), words[0], re.sub(r"\d+", "N", title))


def below(pid: int) -> dict[int, Process]:
    """Return every process below ``pid``, itself not included."""
    found = [process for name in os.listdir("/proc") if name.isdecimal() and (process := _process(int(name)))]
    known = {pid}
    grew = True
    while grew:
        more = {process.pid for process in found if process.parent in known} - known
        known |= more
        grew = bool(more)
    return {process.pid: process for process in found if process.pid in known and process.pid != pid}


@dataclass
class Census:
    """Counts for one test.

    Attributes:
        places: our own directories; their files are counted.
        uid: the account of the commands.
        mark: in the names of whatever the commands make in public places: other files there, and the account's network
            sockets, are not counted, since somebody else may use the account, too. Empty where nobody does: then
            everything of the account counts.
        launchers: numbers of every launcher that ever was, whose control groups must be gone.
    """

    places: tuple[Path, ...]
    uid: int
    mark: str = ""
    launchers: set[int] = field(default_factory=set)

    def note_launchers(self) -> None:
        """Remember the launchers that run now."""
        self.launchers |= {p.pid for p in below(os.getpid()).values() if "launcher" in p.role or "__main__" in p.role}

    def reap(self, *known: int) -> None:
        """Wait for orphans that came to us, but for the children in ``known``, whom somebody else waits for."""
        for process in below(os.getpid()).values():
            if process.state == "Z" and process.parent == os.getpid() and process.pid not in known:
                os.waitpid(process.pid, os.WNOHANG)

    def take(self) -> dict[str, object]:
        """Return every count; two are equal when nothing was left over between them."""
        self.note_launchers()
        running = below(os.getpid())
        return {
            "processes": dict(sorted(Counter(process.role for process in running.values()).items())),
            "descriptors": self._descriptors(running),
            "own descriptors": len(os.listdir("/proc/self/fd")),
            "namespaces": self._namespaces(running),
            "cgroups": self._groups(running),
            "mounts": self._mounts(),
            "files": self._files(),
            "ipc": self._ipc(running),
            "unix sockets": self._unix_sockets(),
            "network sockets": self._network_sockets(),
        }

    def _descriptors(self, running: dict[int, Process]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for process in running.values():
            try:
                found[process.role] += len(os.listdir(f"/proc/{process.pid}/fd"))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # gone, or undumpable and not ours to look into
        return dict(sorted(found.items()))

    def _namespaces(self, running: dict[int, Process]) -> dict[str, int]:
        """Count by kind: those that a process or thread below us lives in or holds open, ours not among them."""
        found: set[str] = set()
        for pid in running:
            links: list[str] = []
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    links += [f"/proc/{pid}/task/{task}/ns/{kind}" for kind in _NAMESPACES]
                links += [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
            for link in links:
                try:
                    name = os.readlink(link)
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                if _NSFS.match(name) and not name.startswith(("socket:", "pipe:", "anon_inode:")):
                    found.add(name)
        ours = {os.readlink(f"/proc/self/ns/{kind}") for kind in _NAMESPACES}
        return dict(sorted(Counter(name.partition(":")[0] for name in found - ours).items()))

    def _groups(self, running: dict[int, Process]) -> dict[str, int]:
        """Count groups of launchers that are gone, which must be none, and those of the ones that run."""
        found = {"of the living": 0, "of the dead": 0}
        for top, names, _ in os.walk("/sys/fs/cgroup"):
            for name in names:
                if name.startswith("guardhouse."):
                    pid = int(name.split(".")[1])
                    if pid in self.launchers:
                        inside = sum(len(below_it) for _, below_it, _ in os.walk(f"{top}/{name}"))
                        found["of the living" if pid in running else "of the dead"] += 1 + inside
        return found

    def _mounts(self) -> int:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        words = ("guardhouse-init", "nsfs", *(str(place) for place in self.places))
        return sum(any(word in line for word in words) for line in lines)

    def _files(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for place in self.places:
            for path, directories, files in os.walk(place):
                found[_name(place, path)] = len(directories) + len(files)
        for place in _PUBLIC_PLACES:
            if os.path.isdir(place):
                mine = [
                    entry.path for entry in os.scandir(place) if self.mark in entry.name and _owner(entry) == self.uid
                ]
                found[place] = sorted(path for path in mine if Path(path) not in self.places)
        return found

    def _ipc(self, running: dict[int, Process]) -> dict[str, int]:
        """Count the account's, of an account that is shared those that `leftovers` makes: a database that another test
        has killed leaves its memory; not shared memory whose maker lives and is none of ours (another test's database).
        """
        found = {}
        for kind, column in (("shm", 7), ("msg", 7), ("sem", 4)):
            lines = Path(f"/proc/sysvipc/{kind}").read_text(encoding="ascii").splitlines()[1:]
            rows = [[int(word) for word in line.split()] for line in lines]
            found[kind] = sum(
                row[column] == self.uid
                and (not self.mark or row[0] >> 8 == HOARD_KEYS >> 8)
                and (kind != "shm" or row[4] in running or not Path(f"/proc/{row[4]}").exists())
                for row in rows
            )
        return found

    def _unix_sockets(self) -> int:
        lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
        words = ("census-left", *(str(place) for place in self.places))
        return sum(any(word in line for word in words) for line in lines)

    def _network_sockets(self) -> int | None:
        if self.mark:
            # The kernel's table names no process, and an account that is shared has other people's sockets, too.
            return None
        found = 0
        for table in _SOCKET_TABLES:
            path = Path(f"/proc/net/{table}")
            if path.exists():
                rows = [row.split() for row in path.read_text(encoding="ascii").splitlines()[1:]]
                # 06 is TIME_WAIT: a connection that both sides have closed.
                found += sum(int(row[7]) == self.uid and row[3] != "06" for row in rows)
        return found


def _name(place: Path, path: str) -> str:
    return re.sub(r"guardhouse-test-\w+?(-workspace)?(?=/|$)", r"place\1", path.removeprefix(str(place.parent)))


def _owner(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except FileNotFoundError:
        return -1
