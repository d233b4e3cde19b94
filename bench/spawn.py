"""What starting one command costs: bare, with namespaces alone, in bubblewrap, and behind the whole wall.

Interleaved in one run, since absolute times drift: every round starts each contender once, in turn. Prints latency
(median and p90), commands a second at 1, 2 and 8 callers, private memory of one running command, and what each
contender has on, as it says and as a command sees it. ``python bench/spawn.py [--rounds N] [--json] [--peers DIR]``;
peers (`spawn_peers.py`) that are not installed are left out by name, ``--install DIR`` installs those of PyPI and npm.
"""

import argparse
import json
import os
import platform
import pwd
import statistics
import subprocess
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
from spawn_peers import DEBIAN, Peer, find_peers, install

TRUSTED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = {"/bin/true": ("/bin/true",), "bash -c 'ls /usr'": ("/bin/bash", "-c", "ls /usr")}
CALLERS = (1, 2, 8)

# What ours have on; peers say it themselves, and `seen_inside` looks.
PROTECTIONS = {
    "posix_spawn": "-",
    "guardhouse isolate": "mount, pid, net, ipc, uts, cgroup namespaces (user where unprivileged); read-only view;"
    " private tmp made anew; rlimits; no capabilities; other uid where root; no_new_privs; Landlock; seccomp with"
    " counted denials; cgroup where there is one; reaping pid 1, time limit, tree kill",
    "guardhouse observe": "the same with the host's network and processes to see; some eighty masks",
}
# Of posix_spawn's time. Beyond it a contender is started in every tenth round only.
SLOW = 40
THROUGHPUT_S = 4.0
COMPLAINT_BYTES = 4096
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
LOOK_SCRIPT = """
for kind in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$kind; done
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
echo nofile $(ulimit -n)
"""
LOOK = ("/bin/sh", "-c", LOOK_SCRIPT)


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
    """``once`` starts one program and waits for its end; ``throughput`` returns commands a second at n callers;
    ``printed`` returns what a program prints.
    """

    name: str
    once: Callable[[tuple[str, ...]], None]
    throughput: Callable[[tuple[str, ...], int, int], float]
    printed: Callable[[tuple[str, ...]], str]


class FailedError(Exception):
    """A contender could not run its program."""


STARTED: list[subprocess.Popen[str]] = []


def spawner(name: str, words: Callable[[tuple[str, ...]], tuple[str, ...]], null: int, peer: Peer | None) -> Contender:
    """A contender that is a command line around the program."""
    seccomp = None if peer is None else peer.seccomp
    # Some chatter there at every start; why one could not start its program is read from here.
    complaints = os.memfd_create("complaints")

    def run(program: tuple[str, ...], stdout: int) -> None:
        line = words(program)
        actions = [(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, complaints, 2)]
        memory = -1
        if seccomp is not None:
            memory = os.memfd_create("filter")
            os.write(memory, seccomp)
            os.lseek(memory, 0, os.SEEK_SET)
            actions.append((os.POSIX_SPAWN_DUP2, memory, 9))
        pid = os.posix_spawn(line[0], line, {"PATH": TRUSTED_PATH, "HOME": "/tmp"}, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        if memory >= 0:
            os.close(memory)
        if status != 0:
            said = os.pread(complaints, COMPLAINT_BYTES, max(0, os.fstat(complaints).st_size - COMPLAINT_BYTES))
            raise FailedError(failure(program, os.waitstatus_to_exitcode(status), said.decode("utf-8", "replace")))

    return threaded(name, lambda program: run(program, null), lambda program: caught(run, program))


def server(peer: Peer) -> Contender:
    """A contender that is a program of the peer's own, one for each caller, which is asked to run things."""
    idle: list[subprocess.Popen[str]] = []

    def ask(program: tuple[str, ...]) -> str:
        try:
            process = idle.pop()
        except IndexError:
            process = subprocess.Popen(peer.serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            STARTED.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(program) + "\n")
        process.stdin.flush()
        code, text = json.loads(process.stdout.readline())
        idle.append(process)
        if code != 0:
            raise FailedError(failure(program, code, text))
        return str(text)

    def once(program: tuple[str, ...]) -> None:
        ask(program)

    return threaded(peer.name, once, ask)


def failure(program: tuple[str, ...], code: int, said: str) -> str:
    """Say how a program that had to succeed ended, with the last line of what was said about it."""
    lines = said.strip().splitlines()
    return f"{' '.join(program)} ended with {code}: {lines[-1] if lines else 'nothing on stderr'}"


def caught(run: Callable[[tuple[str, ...], int], None], program: tuple[str, ...]) -> str:
    """Return what a program prints."""
    with tempfile.TemporaryFile() as file:
        run(program, file.fileno())
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def threaded(
    name: str, once: Callable[[tuple[str, ...]], None], printed: Callable[[tuple[str, ...]], str]
) -> Contender:
    """A contender whose callers are threads that each wait for their own."""

    def throughput(program: tuple[str, ...], callers: int, count: int) -> float:
        failed: list[FailedError] = []

        def caller() -> None:
            try:
                for _ in range(count // callers):
                    once(program)
            except FailedError as error:
                failed.append(error)

        threads = [threading.Thread(target=caller) for _ in range(callers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            return float("nan")  # it cannot be started several times at once
        return (count // callers * callers) / (time.perf_counter() - began)

    return Contender(name, once, throughput, printed)


def ours(profile: str, client: DirectClient, null: int) -> Contender:
    """A contender that is our launcher with one of the shipped profiles."""

    def launch(program: tuple[str, ...], stdout: int = null) -> int:
        return client.launch(LaunchRequest(profile, program), stdout_fd=stdout, stderr_fd=2)

    def check(identifier: int) -> None:
        outcome = client.wait(identifier)
        if outcome.exit_code != 0:
            raise FailedError(str(outcome))

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

    return Contender(
        f"guardhouse {profile}",
        lambda program: check(launch(program)),
        throughput,
        lambda program: caught(lambda words, stdout: check(launch(words, stdout)), program),
    )


def contenders(
    client: DirectClient, bundle: Bundle, null: int, place: Path, peers: Path | None
) -> tuple[list[Contender], dict[str, str], list[str]]:
    """Return everybody who is installed and works here, what they have on, and a line for each who does not."""
    program = bundle.profiles["isolate"].seccomp[platform.machine()].programs["errno"]
    known, left_out = find_peers(place, peers, program)
    found = [spawner("posix_spawn", lambda words: words, null, None)]
    protections = dict(PROTECTIONS)
    for peer in known:
        contender = server(peer) if peer.serve else spawner(peer.name, peer.words, null, peer)
        found.append(contender)
        protections[peer.name] = peer.protections
    return [*found, *(ours(profile, client, null) for profile in ("isolate", "observe"))], protections, left_out


def seen_inside(contender: Contender) -> dict[str, str]:
    """Return what a command sees of its own confinement: namespaces that are not ours, privileges, filter; empty for
    one that cannot run a shell that looks.
    """
    try:
        lines = contender.printed(LOOK).splitlines()
    except (FailedError, OSError, ValueError):
        return {}
    outside = {os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    own = [line.partition(":")[0] for line in lines if ":[" in line and line not in outside]
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {
        "own namespaces": " ".join(own) or "-",
        "uid": facts.get("Uid", "?").split()[0],
        "capabilities": "none" if int(facts.get("CapEff", "0"), 16) == 0 else facts["CapEff"],
        "bounding set": "none" if int(facts.get("CapBnd", "0"), 16) == 0 else "some",
        "no_new_privs": facts.get("NoNewPrivs", "?"),
        "filter": {"0": "-", "2": "yes"}.get(facts.get("Seccomp", "?"), "?"),
        "open files": next((line.split()[1] for line in lines if line.startswith("nofile")), "?"),
    }


def private_memory_kb(client: DirectClient) -> dict[str, float]:
    """Return private memory in KiB (nan: unreadable): what one running ``sleep`` adds, its pid 1 included, and what
    there is once for all commands, launcher and template.
    """
    count = 4
    identifiers = [
        client.launch(LaunchRequest("isolate", ("sleep", "1")), stdout_fd=2, stderr_fd=2) for _ in range(count)
    ]
    pids = [client.wait_started(identifier) for identifier in identifiers]
    try:
        total = sum(private_kb(pid) + private_kb(parent_of(pid)) for pid in pids)
        launcher = parent_of(parent_of(pids[0]))
        once = private_kb(launcher) + sum(private_kb(pid) for pid in children_of(launcher) if is_template(pid))
    except PermissionError:
        total = once = float("nan")  # an ordinary user cannot look into an undumpable process
    for identifier in identifiers:
        client.wait(identifier)
    return {"each": total / count, "once": once}


def private_kb(pid: int) -> int:
    """Return the private memory of one process in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def parent_of(pid: int) -> int:
    """Return the pid of the process that started ``pid``."""
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_template(pid: int) -> bool:
    """Whether it is the launcher's child that clones its init processes."""
    return "guardhouse-temp" in Path(f"/proc/{pid}/comm").read_text()


def measure(rounds: int, count: int, peers: Path | None) -> dict[str, object]:
    """Run everything; return the figures by program and contender."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as workspace:
        os.chmod(workspace, 0o755)
        place = Path(workspace) / "peers"
        place.mkdir()
        bundle = shipped_bundle(workspace)
        with DirectClient(start_launcher(bundle, warm=("isolate", "observe"))) as client:
            everybody, protections, left_out = contenders(client, bundle, null, place, peers)
            result: dict[str, object] = {"protections": protections, "left out": left_out}
            for label, program in PROGRAMS.items():
                able = [contender for contender in everybody if can_run(contender, program, left_out)]
                result[label] = measure_program(able, program, rounds, count)
            looks = {contender.name: seen_inside(contender) for contender in everybody}
            result["seen inside"] = {name: look for name, look in looks.items() if look}
            result["private_memory_kb"] = private_memory_kb(client)
        for process in STARTED:
            process.kill()
            process.wait()
    os.close(null)
    return result


def can_run(contender: Contender, program: tuple[str, ...], left_out: list[str]) -> bool:
    """Whether the program runs in it at all; if not, ``left_out`` gets a line."""
    try:
        contender.once(program)
    except (FailedError, OSError, ValueError) as error:
        left_out.append(f"{contender.name}: {error}")
        return False
    return True


def measure_program(
    everybody: list[Contender], program: tuple[str, ...], rounds: int, count: int
) -> dict[str, dict[str, object]]:
    """Return latency and throughput of every contender with one program, interleaved."""
    times: dict[str, list[float]] = {contender.name: [] for contender in everybody}
    slow: set[str] = set()
    first_s = 0.0
    for number in range(rounds + 3):
        for contender in everybody:
            if contender.name in slow and number % 10:
                continue
            began = time.perf_counter()
            contender.once(program)
            took = time.perf_counter() - began
            if number >= 3 or contender.name in slow:
                times[contender.name].append(took)
            elif number == 2 and took > SLOW * first_s:
                slow.add(contender.name)
                times[contender.name].append(took)
            if contender is everybody[0]:
                first_s = took
    rates: dict[str, dict[int, float]] = {contender.name: {} for contender in everybody}
    for callers in CALLERS:
        for contender in everybody:
            fitting = int(THROUGHPUT_S / statistics.median(times[contender.name]))
            rates[contender.name][callers] = contender.throughput(program, callers, max(8, min(count, fitting)))
    return {
        name: {
            "median_ms": 1000 * statistics.median(found),
            "p90_ms": 1000 * statistics.quantiles(found, n=10)[8] if len(found) > 1 else 1000 * found[0],
            "per_second": rates[name],
        }
        for name, found in times.items()
    }


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
    memory = result["private_memory_kb"]
    print(f"\nprivate memory of one running command, its pid 1 included: {memory['each']:.0f} KiB;")
    print(f"of launcher and template together, whatever runs: {memory['once']:.0f} KiB")
    print("\n| | what it has on |\n|---|---|")
    for name, protections in result["protections"].items():
        if name in result["/bin/true"]:
            print(f"| {name} | {protections} |")
    seen = result["seen inside"]
    columns = list(seen["posix_spawn"])
    print(f"\nWhat a command sees of it\n\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in seen.items():
        print(f"| {name} | {' | '.join(row.get(column, '?') for column in columns)} |")
    for line in result["left out"]:
        print(f"\nleft out: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="interleaved rounds for latency")
    parser.add_argument("--count", type=int, default=400, help="commands for each figure of throughput")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--peers", type=Path, metavar="DIRECTORY", help="where --install put those of PyPI and npm")
    parser.add_argument(
        "--install", type=Path, metavar="DIRECTORY", help="install those of PyPI and npm there, and end"
    )
    options = parser.parse_args()
    if options.install is not None:
        install(options.install)
        print(f"from Debian: apt-get install --no-install-recommends {' '.join(DEBIAN)}")
        return
    result = measure(options.rounds, options.count, options.peers)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
