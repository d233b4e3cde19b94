"""Through the launcher under true cgroup v2 controllers: limits hold, are said, are measured; nothing is left over.

Run in a group that is this process's to divide. Arguments: the controllers that must be here. What it claims:
memory limit, pids limit, CPU quota, peak memory a command, and that after a hundred commands, killed in every way,
groups, processes and mounts are what they were.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from checks import Checks, make_bundle, make_workspace

from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.bundle import Bundle

MIB = 1 << 20
MEMORY_BYTES = 96 * MIB
PIDS = 24
TREE = "setsid sleep 64 & (trap '' TERM; sleep 64 & sleep 64) & sleep 64"


def run(
    client: DirectClient, *argv: str, timeout_s: float = 120.0, profile: str = "isolate"
) -> tuple[CommandOutcome, str]:
    """Run one command; return its outcome and its output."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        request = LaunchRequest(profile=profile, argv=argv, timeout_s=timeout_s, grace_s=0.2)
        identifier = client.launch(request, stdout_fd=writing, stderr_fd=writing)
        os.close(writing)
        outcome = client.wait(identifier)
        return outcome, pipe.read().decode("utf-8", "replace")


def python(text: str) -> tuple[str, ...]:
    """Return the argv of a small Python program."""
    return ("/usr/bin/python3", "-S", "-I", "-c", text)


def groups() -> list[str]:
    """Return every group of a launcher's on this host."""
    return [
        f"{top}/{name}"
        for top, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith("guardhouse.")
    ]


def processes() -> list[str]:
    """Return the command lines of what belongs to launchers and commands."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if any(word in line for word in ("guardhouse-", "launcher/__main__", "sleep 64")):
                found.append(f"{entry.name} {line}")
    return found


def left() -> dict[str, object]:
    """Return what there is now of each kind that could be left over."""
    return {
        "groups": groups(),
        "processes": processes(),
        "mounts": len(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()),
    }


def wait_for(wanted: dict[str, object], *, within_s: float = 30.0) -> dict[str, object]:
    """Wait until `left` says ``wanted``; return what it said last."""
    deadline_s = time.monotonic() + within_s
    while (found := left()) != wanted and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return found


def try_limits(checks: Checks, bundle: Bundle) -> None:
    """Memory, processes and CPU time, each driven into its limit, with a twin that stays below it."""
    with DirectClient(start_launcher(bundle)) as client:
        outcome, said = run(client, "true")
        checks.equal("a command runs", outcome.exit_code, 0)
        checks.equal("and nothing is missing or said", (outcome.notes, said), ((), ""))
        outcome, said = run(client, "bash", "-c", "ulimit -u")
        checks.that("no rlimit counts processes where a controller does", said.strip() != "1024", said)
        checks.fact("peak of true, MiB", round((outcome.peak_memory_bytes or 0) / MIB, 1))

        outcome, said = run(client, *python("b = b'x' * (40 << 20); print(len(b))"))
        checks.equal("40 MiB fit", (outcome.exit_code, outcome.oom_killed), (0, False))
        peak = outcome.peak_memory_bytes or 0
        checks.that("and are the peak that is told", 40 * MIB <= peak <= 60 * MIB, f"{peak / MIB:.1f} MiB")

        outcome, said = run(client, *python("b = b'x' * (200 << 20); print(len(b))"))
        checks.that("200 MiB do not: out of memory is said", outcome.oom_killed, outcome)
        checks.that("and is the reason", "out of memory" in (outcome.reason or ""), outcome.reason)
        checks.that("with the limit", f"may have {MEMORY_BYTES // MIB} MiB" in (outcome.reason or ""), outcome.reason)
        checks.equal("with the signal that killed it", outcome.signal, signal.SIGKILL)
        peak = outcome.peak_memory_bytes or 0
        checks.that("the limit was kept", 0 < peak <= MEMORY_BYTES, f"{peak / MIB:.1f} MiB")

        outcome, said = run(client, "bash", "-c", "python3 -S -I -c 'b = bytearray(200 << 20)'; echo after $?")
        checks.equal("a child out of memory leaves its shell", said.split()[-2:], ["after", "137"])
        checks.that("and is said too", outcome.oom_killed, outcome)

        outcome, said = run(client, *python("b = b'x' * (30 << 20); print(len(b))"))
        checks.equal("the next command has its memory back", (outcome.exit_code, outcome.oom_killed), (0, False))
        peak = outcome.peak_memory_bytes or 0
        checks.that("and a peak of its own", 30 * MIB <= peak <= 60 * MIB, f"{peak / MIB:.1f} MiB, {outcome.notes}")

        shared = "import os; f = open('/dev/shm/x', 'wb')\nfor _ in range(200): f.write(b'x' * (1 << 20)); f.flush()"
        outcome, said = run(client, *python(shared))
        checks.that("files in memory count", outcome.oom_killed or "space" in said, f"{outcome} {said[-300:]}")

        waiting = (
            "import socket\nheld = []\nfor _ in range(1000):\n held.append(socket.socketpair())\n"
            " held[-1][0].setblocking(False)\n try:\n  while True: held[-1][0].send(bytes(65536))\n"
            " except BlockingIOError: pass"
        )
        outcome, said = run(client, *python(waiting))
        checks.that("what waits in sockets counts", outcome.oom_killed, f"{outcome} {said[-300:]}")

        bomb = (
            "import os, time\nmade = 0\n"
            "try:\n while made < 500:\n  if os.fork() == 0: time.sleep(60)\n  made += 1\n"
            "except OSError as error: print(made, error.strerror, flush=True)"
        )
        outcome, said = run(client, *python(bomb))
        made = int(said.split()[0]) if said[:1].isdecimal() else -1
        checks.that("a fork bomb ends at the limit", 0 < made <= PIDS, said[-300:])
        checks.equal("and every one of it was killed", outcome.killed_descendants, made)

        outcome, said = run(client, "bash", "-c", "f() { f | f & }; f; sleep 2", timeout_s=6.0)
        checks.that("the classic one ends too", outcome.exit_code is not None)
        outcome, said = run(client, "true")
        checks.equal("and the next command runs", outcome.exit_code, 0)


def try_files(checks: Checks, bundle: Bundle) -> None:
    """What the kernel was told for a running command, file by file."""
    wanted = {"memory.max": str(MEMORY_BYTES), "memory.swap.max": "0", "pids.max": str(PIDS + 2), "cpu.weight": "50"}
    with DirectClient(start_launcher(bundle)) as client:
        request = LaunchRequest(profile="isolate", argv=("sleep", "64"), timeout_s=120.0, grace_s=0.2)
        identifier = client.launch(request, stdout_fd=2, stderr_fd=2)
        client.wait_started(identifier)
        slots = [entry for group in groups() for entry in Path(group).glob("slot*")]
        busy = next(slot for slot in slots if _sleeps(slot))
        for name, value in wanted.items():
            file = busy / name
            # Parts of a controller are built separately: `doctor` says which are not.
            if file.exists():
                checks.equal(name, file.read_text(encoding="ascii").strip(), value)
        for name in ("io.weight", "io.bfq.weight"):
            if (busy / name).exists():
                checks.that(name, (busy / name).read_text(encoding="ascii").split()[:2] == ["default", "50"])
        client.stop(identifier)
        client.wait(identifier)


def _sleeps(slot: Path) -> bool:
    """Tell whether the command stands in this group."""
    names = (Path(f"/proc/{pid}/comm") for pid in (slot / "cgroup.procs").read_text(encoding="ascii").split())
    return any(name.read_text(encoding="ascii").strip() == "sleep" for name in names)


def try_quota(checks: Checks, bundle: Bundle) -> None:
    """A quota of half a CPU."""
    spin = "import time\nend = time.monotonic() + 4\nwhile time.monotonic() < end: pass"
    with DirectClient(start_launcher(bundle)) as client:
        outcome, _ = run(client, *python(spin))
        share = (outcome.cpu_user_s + outcome.cpu_system_s) / outcome.duration_s
        checks.fact("share of a CPU under a quota of 50 percent", round(share, 2))
        checks.that("the CPU quota holds", 0.3 < share < 0.62, share)


def try_kills(checks: Checks, bundle: Bundle) -> None:
    """A hundred commands, most of them killed: by time limit, by cancel, with pid 1, launcher or runner."""
    wanted: dict[str, object] = left()
    checks.equal("nothing is left of what ran before", (wanted["groups"], wanted["processes"]), ([], []))
    began_s = time.monotonic()
    count = 0
    with DirectClient(start_launcher(bundle)) as client:
        for number in range(70):
            argv = ("bash", "-c", TREE) if number % 3 else ("true",)
            request = LaunchRequest("isolate", argv, timeout_s=0.3 if number % 3 == 1 else 60.0, grace_s=0.0)
            identifier = client.launch(request, stdout_fd=2, stderr_fd=2)
            if number % 3 == 2:
                pid = client.wait_started(identifier)
                if number % 2:
                    client.stop(identifier)
                elif os.geteuid() == 0:
                    os.kill(pid, signal.SIGKILL)
                else:
                    client.stop(identifier)
            client.wait(identifier)
            count += 1
        checks.fact("seconds a command, kills included", round((time.monotonic() - began_s) / count, 3))
    checks.equal("after 70 with limits, cancels and kills nothing is left", wait_for(wanted), wanted)
    for number in range(6):
        handle = start_launcher(bundle)
        client = DirectClient(handle)
        started = [
            client.launch(LaunchRequest("isolate", ("bash", "-c", TREE)), stdout_fd=2, stderr_fd=2) for _ in range(5)
        ]
        for identifier in started:
            client.wait_started(identifier)
        count += len(started)
        if number % 2:
            handle.process.kill()
            handle.process.wait()
            handle.sock.close()
        else:
            handle.sock.close()  # what the kernel does to a runner that is killed
            handle.process.wait()
        found = wait_for(wanted)
        how = "launcher" if number % 2 else "runner"
        checks.equal(f"kill -9 of the {how} with 5 commands: nothing is left", found, wanted)
    checks.fact("commands", count)


def main() -> int:
    """Do it all in the group that this process is in."""
    checks = Checks()
    features = probe_host()
    wanted = set(sys.argv[1:]) or {"cpu", "io", "memory", "pids"}
    checks.fact("who", f"uid {os.geteuid()}, {Path('/proc/self/cgroup').read_text(encoding='ascii').strip()}")
    checks.equal("controllers can be used", (features.cgroup_version, set(features.cgroup_controllers)), (2, wanted))
    workspace = make_workspace()
    limits = {"memory_bytes": MEMORY_BYTES, "pids": PIDS}
    bundle = make_bundle(["isolate"], workspace, features=features, **limits)
    try_limits(checks, bundle)
    try_files(checks, bundle)
    if "cpu" in wanted:
        try_quota(checks, make_bundle(["isolate"], workspace, features=features, cpu_quota_percent=50))
    try_kills(checks, bundle)
    subprocess.run(["rm", "-rf", str(workspace)], check=True)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
