"""What the files worker costs: its operations beside plain Python, find, cat and ripgrep, in one run on one tree.

    python bench/files.py [--files 100000] [--grep-mb 1024] [--directory DIR] [--json]

Measured is the worker alone, asked as the runner asks it: every figure crosses its socket and has its answer decoded;
no hub, connection, policy or redaction is in it. Beside the bare tool stands what does the same as a request does:
plain Python in a process of its own behind a socket, `cat` into a pipe that somebody reads, ripgrep with one thread.
Memory is the worker's peak resident set after each step, which must not follow the size of what it reads. Ripgrep is
left out where it is not installed.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.files import FilesWorker

MB = 1 << 20
STREAM_PART = 8 * MB
RIPGREPS = {"ripgrep": ("-n",), "ripgrep_1": ("-n", "-j1")}


def timed(act: Callable[[], object], *, repeat: int = 1) -> float:
    """Return the seconds of the fastest of three runs of ``repeat`` calls, per call."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(repeat):
            act()
        best = min(best, (time.perf_counter() - began) / repeat)
    return best


def quiet(*command: str, cwd: Path) -> Callable[[], object]:
    """Return the act of running ``command`` with its output read."""
    # Through a pipe: grep stops at its first match when it sees that its output is /dev/null.
    return lambda: subprocess.run(command, cwd=cwd, capture_output=True, check=False)


def peak_mb(pid: int) -> int:
    """Return the peak resident set of ``pid`` in megabytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def make_tree(root: Path, files: int) -> None:
    """Fill ``root`` with ``files`` small files, a hundred a directory."""
    for number in range(files):
        directory = root / f"d{number // 10_000:03}" / f"d{number // 100:05}"
        if not number % 100:
            directory.mkdir(parents=True)
        (directory / f"f{number}.txt").write_bytes(b"some text in a small file\nneedle %d\n" % number)


def make_big(path: Path, size_mb: int) -> None:
    """Write a text file of ``size_mb`` megabytes with one line in a hundred thousand that has the needle."""
    block = b"".join(b"line %07d of a log with nothing in it to find at all\n" % n for n in range(MB // 53))
    block += b"x" * (MB - len(block) - 8) + b" needle\n"
    with path.open("wb") as big:
        for _ in range(size_mb):
            big.write(block)


def stream(files: FilesWorker, path: str) -> int:
    """Read a whole file in parts, as the hub streams it."""
    offset = 0
    while part := files.read(path, offset=offset, limit=STREAM_PART).content:
        offset += len(part)
    return offset


@contextlib.contextmanager
def python_behind_a_socket(path: Path) -> Iterator[Callable[[], object]]:
    """Give the act of asking another process, over a socket, for all of ``path``: one round trip, nothing checked."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            while theirs.recv(1):
                content = path.read_bytes()
                theirs.sendall(struct.pack(">Q", len(content)) + content)
        finally:
            os._exit(0)
    theirs.close()

    def ask() -> None:
        ours.sendall(b"?")
        (size,) = struct.unpack(">Q", ours.recv(8, socket.MSG_WAITALL))
        while size:
            size -= len(ours.recv(min(size, MB)))

    try:
        yield ask
    finally:
        ours.close()
        os.waitpid(pid, 0)


def plain_stream(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(STREAM_PART):
            pass


def plain_walk(root: Path) -> list[str]:
    paths = [os.path.join(place, name) for place, _, names in os.walk(root) for name in names]
    return [path for path in paths if os.lstat(path)]


def plain_grep(root: Path) -> int:
    needle = re.compile(rb"needle 99")
    count = 0
    for place, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                count += len(needle.findall(file.read()))
    return count


def plain_grep_lines(path: Path) -> int:
    needle = re.compile(rb"needle")
    with path.open("rb") as file:
        return sum(1 for line in file if needle.search(line))


def plain_write(path: Path, content: bytes) -> None:
    """Write as the worker promises to: beside, synced, renamed, synced."""
    beside = path.with_name(".beside")
    with beside.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    beside.rename(path)
    fd = os.open(path.parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def measure(root: Path, files: int, grep_mb: int) -> list[dict[str, object]]:
    """Return a row for each operation: seconds of the worker, of the others, ratios, the worker's peak memory."""
    tree, big = root / "tree", root / "big"
    tree.mkdir()
    big.mkdir()
    make_tree(tree, files)
    (root / "kb").write_bytes(b"x" * 1024)
    (root / "mb").write_bytes(b"x" * MB)
    make_big(big / "log", grep_mb)
    ripgrep = shutil.which("rg")
    rows: list[dict[str, object]] = []
    with FilesWorker(root, timeout_s=600.0) as worker:

        def row(name: str, act: Callable[[], object], others: dict[str, Callable[[], object]], repeat: int = 1) -> None:
            ours_s = timed(act, repeat=repeat)
            line: dict[str, object] = {"operation": name, "worker_ms": round(ours_s * 1000, 3)}
            for other, run in others.items():
                other_s = timed(run, repeat=repeat)
                line[f"{other}_ms"] = round(other_s * 1000, 3)
                line[f"to_{other}"] = round(ours_s / other_s, 2)
            line["peak_mb"] = peak_mb(worker.pid)
            rows.append(line)

        def with_ripgrep(others: dict[str, Callable[[], object]], *command: str) -> dict[str, Callable[[], object]]:
            if ripgrep is None:
                return others
            both = {name: quiet(ripgrep, "-uuS", *more, *command, cwd=root) for name, more in RIPGREPS.items()}
            return {**others, **both}

        for name, path, repeat in (("read 1 KB", root / "kb", 500), ("read 1 MB", root / "mb", 50)):
            with python_behind_a_socket(path) as ask:
                row(
                    name, lambda path=path: worker.read(path.name), {"python": path.read_bytes, "python_socket": ask},
                    repeat,
                )  # fmt: skip
        row(
            f"read {grep_mb} MB streamed", lambda: stream(worker, "big/log"),
            {"python": lambda: plain_stream(big / "log"), "cat": quiet("sh", "-c", "cat big/log >/dev/null", cwd=root),
             "cat_pipe": quiet("sh", "-c", "cat big/log | cat >/dev/null", cwd=root)},
        )  # fmt: skip
        kb, mb = b"y" * 1024, b"y" * MB
        row("write 1 KB", lambda: worker.write("w", kb), {"python": lambda: plain_write(root / "p", kb)}, 50)
        row("write 1 MB", lambda: worker.write("w", mb), {"python": lambda: plain_write(root / "p", mb)}, 20)
        row(
            f"list {files} files", lambda: worker.list("tree", recursive=True),
            {"python": lambda: plain_walk(tree), "find": quiet("find", "tree", "-printf", "%p %s\\n", cwd=root)},
        )  # fmt: skip
        row(
            f"glob {files} files", lambda: worker.glob("tree/**/f99*.txt"),
            {
                "python": lambda: list(tree.glob("**/f99*.txt")),
                "find": quiet("find", "tree", "-name", "f99*.txt", cwd=root),
            },
        )  # fmt: skip
        row(
            f"grep {files} files", lambda: worker.grep("needle 99", path="tree"),
            with_ripgrep(
                {"python": lambda: plain_grep(tree), "grep": quiet("grep", "-rnE", "needle 99", "tree", cwd=root)},
                "needle 99", "tree",
            ),
        )  # fmt: skip
        row(
            f"grep {grep_mb} MB", lambda: worker.grep("needle", path="big"),
            with_ripgrep(
                {
                    "python": lambda: plain_grep_lines(big / "log"),
                    "grep": quiet("grep", "-rnE", "needle", "big", cwd=root),
                },
                "needle", "big",
            ),
        )  # fmt: skip
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="bench the files worker")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--grep-mb", type=int, default=1024)
    parser.add_argument("--directory", type=Path, default=None, help="where the tree is made; removed afterwards")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="guardhouse-bench-", dir=options.directory)
        rows = measure(Path(stack.enter_context(made)), options.files, options.grep_mb)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for line in rows:
        rest = "  ".join(f"{key} {value}" for key, value in line.items() if key != "operation")
        print(f"{line['operation']:<24} {rest}")


if __name__ == "__main__":
    main()
