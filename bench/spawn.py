"""What starting one command costs: bare, with namespaces alone, in bubblewrap, and behind the whole wall.

Interleaved in one run, since absolute times drift: every round starts each contender once, in turn. Prints latency
(median and p90), commands a second at 1, 2 and 8 callers, private memory of one running command, and what each
contender had on. ``python bench/spawn.py [--rounds N] [--json]``; peers that are not installed are left out by name.
"""

import argparse
import json
import os
import platform
import pwd
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile

TRUSTED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = {"/bin/true": ("/bin/true",), "bash -c 'ls /usr'": ("/bin/bash", "-c", "ls /usr")}
CALLERS = (1, 2, 8)

# What each had on; a dash is nothing.
PROTECTIONS = {
    "posix_spawn": "-",
    "unshare": "user, mount, pid, net, ipc, uts namespaces; full capabilities inside them",
    "bubblewrap": "user, mount, pid, net, ipc, uts, cgroup namespaces; read-only view; no capabilities",
    "bubblewrap+seccomp": "the same, and our isolate filter",
    "guardhouse isolate": "mount, pid, net, ipc, uts, cgroup namespaces (user where unprivileged); read-only view;"
    " private tmp made anew; rlimits; no capabilities; other uid where root; no_new_privs; Landlock; seccomp with"
    " counted denials; cgroup where there is one; reaping pid 1, time limit, tree kill",
    "guardhouse observe": "the same with the host's network and processes to see; some eighty masks",
}


def identity() -> Identity:
    """Return who commands run as: nobody where root started this."""
    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return Identity(entry.pw_uid, entry.pw_gid, (), entry.pw_name, "/tmp")


def shipped_bundle(workspace: str) -> Bundle:
    """Compile the shipped profiles for this host."""
    directory = shipped_directory("sandbox")
    return compile_bundle(
        [load_profile(name, directory=directory) for name in ("isolate", "observe")],
        identity=identity(),
        workspace=workspace,
        features=probe_host(),
        trusted_path=TRUSTED_PATH,
    )


@dataclass(frozen=True)
class Contender:
    """``once`` starts one program and waits for its end; ``throughput`` returns commands a second at n callers."""

    name: str
    once: Callable[[tuple[str, ...]], None]
    throughput: Callable[[tuple[str, ...], int, int], float]


def spawner(name: str, prefix: Callable[[], tuple[str, ...]], null: int, seccomp: bytes | None = None) -> Contender:
    """A contender that is a command line before the program."""

    def once(program: tuple[str, ...]) -> None:
        words = (*prefix(), *program)
        actions = [(os.POSIX_SPAWN_DUP2, null, 1)]
        memory = -1
        if seccomp is not None:
            memory = os.memfd_create("filter")
            os.write(memory, seccomp)
            os.lseek(memory, 0, os.SEEK_SET)
            actions.append((os.POSIX_SPAWN_DUP2, memory, 9))
        pid = os.posix_spawn(words[0], words, {"PATH": TRUSTED_PATH}, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        if memory >= 0:
            os.close(memory)
        if status != 0:
            raise SystemExit(f"{name}: {' '.join(words)} ended with wait status {status}")

    def throughput(program: tuple[str, ...], callers: int, count: int) -> float:
        def caller() -> None:
            for _ in range(count // callers):
                once(program)

        threads = [threading.Thread(target=caller) for _ in range(callers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (count // callers * callers) / (time.perf_counter() - began)

    return Contender(name, once, throughput)


def ours(profile: str, client: DirectClient, null: int) -> Contender:
    """A contender that is our launcher with one of the shipped profiles."""

    def launch(program: tuple[str, ...]) -> int:
        return client.launch(LaunchRequest(profile, program), stdout_fd=null, stderr_fd=2)

    def check(identifier: int) -> None:
        outcome = client.wait(identifier)
        if outcome.exit_code != 0:
            raise SystemExit(f"guardhouse {profile}: {outcome}")

    def throughput(program: tuple[str, ...], callers: int, count: int) -> float:
        for identifier in [launch(program) for _ in range(callers)]:
            check(identifier)
        began = time.perf_counter()
        running = [launch(program) for _ in range(callers)]
        for _ in range(count - callers):
            check(running.pop(0))
            running.append(launch(program))
        for identifier in running:
            check(identifier)
        return count / (time.perf_counter() - began)

    return Contender(f"guardhouse {profile}", lambda program: check(launch(program)), throughput)


def bubblewrap() -> tuple[str, ...]:
    """Return what its manual recommends for an untrusted command."""
    links = [name for name in ("bin", "sbin", "lib", "lib64") if Path(f"/{name}").is_symlink()]
    words = ["/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in links:
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    return (*words, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")


def contenders(client: DirectClient, bundle: Bundle, null: int) -> list[Contender]:
    """Return everybody who is installed here."""
    found = [spawner("posix_spawn", tuple, null)]
    if shutil.which("unshare"):
        found.append(spawner("unshare", lambda: ("/usr/bin/unshare", "-Urmpniuf"), null))
    if shutil.which("bwrap"):
        program = bundle.profiles["isolate"].seccomp[platform.machine()].programs["errno"]
        found.append(spawner("bubblewrap", bubblewrap, null))
        found.append(spawner("bubblewrap+seccomp", lambda: (*bubblewrap(), "--seccomp", "9"), null, program))
    return [*found, *(ours(profile, client, null) for profile in ("isolate", "observe"))]


def private_memory_kb(client: DirectClient) -> float:
    """Return the private memory that one running ``sleep`` adds, its pid 1 included, in KiB (nan: unreadable)."""
    count = 4
    identifiers = [
        client.launch(LaunchRequest("isolate", ("sleep", "1")), stdout_fd=2, stderr_fd=2) for _ in range(count)
    ]
    pids = [client.wait_started(identifier) for identifier in identifiers]
    try:
        total = sum(private_kb(pid) + private_kb(parent_of(pid)) for pid in pids)
    except PermissionError:
        total = float("nan")  # an ordinary user cannot look into an undumpable process
    for identifier in identifiers:
        client.wait(identifier)
    return total / count


def private_kb(pid: int) -> int:
    """Return the private memory of one process in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def parent_of(pid: int) -> int:
    """Return the pid of the process that started ``pid``."""
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def measure(rounds: int, count: int) -> dict[str, object]:
    """Run everything; return the figures by program and contender."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as workspace:
        os.chmod(workspace, 0o755)
        bundle = shipped_bundle(workspace)
        with DirectClient(start_launcher(bundle, warm=("isolate", "observe"))) as client:
            everybody = contenders(client, bundle, null)
            result: dict[str, object] = {}
            for label, program in PROGRAMS.items():
                times: dict[str, list[float]] = {contender.name: [] for contender in everybody}
                for number in range(rounds + 3):
                    for contender in everybody:
                        began = time.perf_counter()
                        contender.once(program)
                        if number >= 3:
                            times[contender.name].append(time.perf_counter() - began)
                rates = {contender.name: {} for contender in everybody}
                for callers in CALLERS:
                    for contender in everybody:
                        rates[contender.name][callers] = contender.throughput(program, callers, count)
                result[label] = {
                    name: {
                        "median_ms": 1000 * statistics.median(found),
                        "p90_ms": 1000 * statistics.quantiles(found, n=10)[8],
                        "per_second": rates[name],
                    }
                    for name, found in times.items()
                }
            result["private_memory_kb"] = private_memory_kb(client)
    os.close(null)
    return result


def show(result: dict) -> None:
    """Print the tables."""
    for label in PROGRAMS:
        figures = result[label]
        base = figures.get("bubblewrap+seccomp", {}).get("median_ms")
        print(f"\n{label}\n\n| | median ms | p90 ms | per s at 1, 2, 8 callers | of bubblewrap+seccomp |")
        print("|---|---|---|---|---|")
        for name, row in figures.items():
            rate = ", ".join(f"{row['per_second'][callers]:.0f}" for callers in CALLERS)
            share = f"{row['median_ms'] / base:.2f}" if base else "-"
            print(f"| {name} | {row['median_ms']:.2f} | {row['p90_ms']:.2f} | {rate} | {share} |")
    print(f"\nprivate memory of one running command, its pid 1 included: {result['private_memory_kb']:.0f} KiB")
    print("\n| | what it had on |\n|---|---|")
    for name, protections in PROTECTIONS.items():
        if name in result["/bin/true"]:
            print(f"| {name} | {protections} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="interleaved rounds for latency")
    parser.add_argument("--count", type=int, default=400, help="commands for each figure of throughput")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    result = measure(options.rounds, options.count)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
