"""A real PostgreSQL server of one's own: initdb and postgres in a temporary directory, on a Unix socket only.

The server ends with the process that started it, also where that is killed.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _end_with_parent() -> None:
    """Have the kernel send this process SIGQUIT, postgres' immediate shutdown, when the thread that forked it is gone.

    Runs between fork and exec, after the change of account, which would take the setting back.
    """
    if _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0):
        os._exit(126)


def find_programs() -> Path | None:
    """Return the directory with initdb and postgres, which Debian keeps off PATH; None where they are not there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    candidates = [*(path.parent for path in reversed(found)), *([Path(on_path).resolve().parent] if on_path else [])]
    return next((one for one in candidates if (one / "postgres").exists()), None)


class Cluster:
    """A running server. Databases are made from its template, which `keep_as_template` fills."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.directory = directory
        self._programs = programs
        # initdb and postgres refuse to run as root.
        self._account = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._template = "template1"

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        account = self._account
        return subprocess.Popen(
            [str(self._programs / command[0]), *command[1:]],
            cwd=self.directory,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "log").open("ab"),
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def create(self) -> None:
        """Make the cluster."""
        if self._account is not None:
            os.chown(self.directory, self._account.pw_uid, self._account.pw_gid)
        made = self._start(
            *("initdb", "-D", str(self.directory / "data"), "-U", "hub", "-A", "trust", "-E", "UTF8"),
            *("--locale=C", "--no-sync", "--no-instructions"),
        )
        if made.wait(timeout=90):
            raise RuntimeError(f"initdb failed: {(self.directory / 'log').read_text()}")

    def start(self, *, durable: bool = False) -> None:
        """Start the server and wait until it answers; without ``durable`` it never waits for the disk."""
        settings = ["listen_addresses=", f"unix_socket_directories={self.directory}", "max_connections=60"]
        settings += ["shared_buffers=16MB", "autovacuum=off", "max_wal_size=256MB", "min_wal_size=32MB"]
        if not durable:
            settings += ["fsync=off", "full_page_writes=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        self._process = self._start("postgres", "-D", str(self.directory / "data"), *words)
        end_s = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError(f"no server: {(self.directory / 'log').read_text()}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self, *, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server: SIGQUIT at once, SIGINT after cutting its connections (postgresql.org, 'Shutting Down')."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def url(self, name: str) -> str:
        """Return the address of database ``name``."""
        return f"postgresql://hub@/{name}?host={self.directory}"

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement outside of a transaction and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def new_database(self, *, is_empty: bool = False, like: str | None = None) -> str:
        """Make a database and return its address.

        It is a copy of the one at ``like``, which nobody is connected to; without it, it has the hub's tables where a
        template is kept.
        """
        self._count += 1
        name = f"hub_{self._count}"
        template = "template1" if is_empty else self._template if like is None else _name(like)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def keep_as_template(self, url: str) -> None:
        """Let the database at ``url``, which nobody is connected to, be what new ones are made from."""
        self._template = _name(url)

    def drop(self, url: str) -> None:
        """Remove a database, whoever still uses it."""
        self.execute(f"DROP DATABASE {_name(url)} WITH (FORCE)")


def _name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


@contextmanager
def running_cluster(programs: Path) -> Iterator[Cluster]:
    """Run a server until the block ends, then remove everything of it."""
    # Short: a Unix socket's path has room for 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="gh-pg-", dir="/tmp"))
    cluster = Cluster(directory, programs)
    try:
        cluster.create()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
