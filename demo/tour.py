"""`make demo`: a hub and a runner on this machine, and a short tour of real work through them.

Ends with exit status 0 only if every step went as it should. Everything it makes lies in one directory, which is gone
when it ends.
"""

import argparse
import base64
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.local_system import LocalSystem, SystemFailedError, system_directory
from guardhouse import __version__

ENVIRONMENT = "demo"
SHOWN_LINES = 6
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def say(text: str = "") -> None:
    """Print one line at once, so that the tour can be followed while it runs."""
    print(text, flush=True)


def paint(text: str, code: str) -> str:
    """Return ``text`` in a colour, on a terminal only."""
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


@dataclass
class Tour:
    """The steps as they are done, and what went wrong."""

    system: LocalSystem
    number: int = 0
    failures: list[str] = field(default_factory=list)

    def step(self, title: str, work: Callable[[], str | None]) -> None:
        """Do one step. ``work`` prints what it likes and returns nothing, or what is wrong."""
        self.number += 1
        say(f"\n{paint(f'{self.number:2}', '1')}  {paint(title, '1')}")
        started = time.monotonic()
        try:
            wrong = work()
        except (SystemFailedError, OSError, KeyError) as error:
            wrong = str(error) or type(error).__name__
        took = f"{(time.monotonic() - started) * 1000:.0f} ms"
        if wrong:
            self.failures.append(f"{self.number}. {title}: {wrong}")
            say(paint(f"    FAILED  {wrong}", "31"))
        else:
            say(paint(f"    ok  ({took})", "32"))

    def run(self, title: str, command: str, *, contains: str = "", status: int = 0, refused_with: str = "") -> None:
        """Run ``command`` through `guardhouse exec` and check its exit status and what it says."""

        def work() -> str:
            say(paint(f"    $ guardhouse exec {ENVIRONMENT} -- {command!r}", "36"))
            done = self.system.cli("exec", ENVIRONMENT, "--", command)
            stdout, stderr = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
            show(stdout + stderr)
            if done.returncode != status:
                return f"exit status {done.returncode}, expected {status}"
            if contains not in stdout:
                return f"the output does not contain {contains!r}"
            if refused_with not in stderr:
                return f"stderr does not say {refused_with!r}"
            return ""

        self.step(title, work)


def show(text: str) -> None:
    """Print the first lines of a command's output, and how many more there were."""
    width = max(60, shutil.get_terminal_size((120, 24)).columns - 8)
    lines = text.splitlines()
    for line in lines[:SHOWN_LINES]:
        say("      " + (line if len(line) <= width else line[: width - 1] + "…"))
    if len(lines) > SHOWN_LINES:
        say(f"      … {len(lines) - SHOWN_LINES} more lines")


def look_around(tour: Tour) -> None:
    """What an SRE types first: processes, memory, disks, sockets, logs."""
    tour.run("Processes: the five largest", "ps aux --sort=-rss | head -n 6", contains="PID")
    tour.run("Memory", "free -m | head -n 2", contains="Mem:")
    tour.run("Disks", "df -hP / | tail -n 1", contains="/")
    tour.run("Listening sockets", "ss -tln | head -n 5", contains="Local Address")
    tour.run(
        "Logs: what the package manager did last",
        "tail -n 200 /var/log/dpkg.log | grep -c ' status ' || echo 'no such lines'",
    )
    tour.run(
        "A loop over the host's own facts",
        'for f in os-release hostname; do printf "%s: " "$f"; head -n 1 "/etc/$f"; done',
        contains="os-release:",
    )


def use_files(tour: Tour) -> None:
    """Write a file through the API, let a command read it, read it back."""
    system = tour.system
    text = "web-1 ok\nweb-2 degraded\nweb-3 ok\n"

    def write() -> str:
        say(paint("    POST /api/v1/tasks  write report/status.txt", "36"))
        task = run_operation(
            system, "write", {"path": "report/status.txt", "content": base64.b64encode(text.encode()).decode()}
        )
        return "" if task["success"] else str(task["error"])

    def read() -> str:
        say(paint("    POST /api/v1/tasks  read report/status.txt", "36"))
        task = run_operation(system, "read", {"path": "report/status.txt"})
        if not task["success"]:
            return str(task["error"])
        content = base64.b64decode(task["result"]["content"]).decode()
        show(content)
        return "" if content == text else f"read back {content!r}"

    tour.step("Write a file into the workspace through the API", write)
    tour.run("A command works on it", "grep -v ' ok$' report/status.txt | cut -d' ' -f1", contains="web-2")
    tour.step("Read it back through the API", read)


def try_to_do_harm(tour: Tour) -> None:
    """One command that the policy denies, one that the wall stops, one path that leaves the workspace."""
    tour.run("Denied by policy, before anything starts", "rm -rf /srv/data", status=126, refused_with="command denied")
    tour.run(
        "Denied inside a pipeline, a substitution and quotes as well",
        "echo \"$(r''m -rf /srv/data)\" | sort",
        status=126,
        refused_with="command denied",
    )

    def write_outside() -> str:
        target = tour.system.make_writable_directory_outside() / "planted"
        command = f"echo planted | tee {target}"
        say(paint(f"    $ guardhouse try --policy trusted_machine -- {command!r}", "36"))
        done = tour.system.cli(
            "try", "--policy", "trusted_machine", "--workspace", str(tour.system.workspace), "--", command
        )
        stderr = done.stderr.decode(errors="replace")
        show(stderr)
        if target.exists():
            return f"{target} was written"
        # Below /tmp, which is private to each command, the directory is not even there.
        is_stopped = any(words in stderr for words in ("Read-only file system", "No such file or directory"))
        return "" if done.returncode == 1 and is_stopped else f"exit status {done.returncode}"

    tour.step(
        "Stopped by the wall, under a policy that allows everything, in a directory open to everybody", write_outside
    )

    def escape() -> str:
        say(paint("    POST /api/v1/tasks  read ../../etc/passwd", "36"))
        task = run_operation(tour.system, "read", {"path": "../../etc/passwd"})
        show(str(task.get("error", "")))
        return "" if not task["success"] and "path escapes workspace" in task["error"] else str(task)

    tour.step("A path that leaves the workspace", escape)


def cancel_one(tour: Tour) -> None:
    """Start something that would never end and cancel it."""
    system = tour.system

    def work() -> str:
        say(paint("    $ tail -f report/status.txt      (as a task, then: cancel)", "36"))
        task = system.api(
            "POST",
            "/api/v1/tasks",
            json={
                "environment_id": system.environment_id,
                "operation": "bash",
                "args": {"command": "tail -f report/status.txt"},
            },
        )
        wait_until_running(system, task["id"])
        system.api("POST", f"/api/v1/tasks/{task['id']}/cancel")
        ended = system.api("GET", f"/api/v1/tasks/{task['id']}/result", params={"wait_s": 20})
        show(f"state: {ended['state']}")
        return "" if ended["state"] == "cancelled" else str(ended)

    tour.step("Cancel a task: its whole process tree ends", work)


def wait_until_running(system: LocalSystem, task_id: str) -> None:
    """Return once the runner has started the task."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if system.api("GET", f"/api/v1/tasks/{task_id}")["state"] == "running":
            return
        time.sleep(0.05)
    raise SystemFailedError(f"task {task_id} did not start in 60 s")


def run_operation(system: LocalSystem, operation: str, args: dict[str, Any]) -> dict[str, Any]:
    """Run one file operation as a task and return its ended record."""
    body = {"environment_id": system.environment_id, "operation": operation, "args": args}
    task = system.api("POST", "/api/v1/tasks", json=body)
    ended: dict[str, Any] = system.api("GET", f"/api/v1/tasks/{task['id']}/result", params={"wait_s": 30})
    return ended


def finish(tour: Tour) -> None:
    """Print where things are and how to use them."""
    system = tour.system
    say(f"\n{paint('The hub is up:', '1')}  {system.url}   (API at {system.url}/api/v1/openapi.json)")
    say("In another terminal:")
    for name, value in list(system.cli_environment().items())[2:]:
        say(f"  export {name}={value}")
    say(f"  {sys.executable} -m guardhouse exec {ENVIRONMENT} -- 'uptime; who -b'")
    say(f'  curl --cacert {system.ca_file} -H "Authorization: Bearer $(cat {system.api_token_file})" \\')
    say(f"       {system.url}/api/v1/environments")
    say("Stop with Ctrl-C.")


def wait_for_the_end(system: LocalSystem) -> int:
    """Sleep until Ctrl-C or SIGTERM, or until one of the two processes ends by itself."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            for name in ("hub", "runner"):
                if system.process(name).poll() is not None:
                    say(f"the {name} ended by itself\n{system.log_tail(name)}")
                    return 1
            time.sleep(0.5)
    except KeyboardInterrupt:
        say("\nstopping …")
        return 0


def main() -> int:
    """Run the tour; exit status 0 only if every step went as it should."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the tour instead of staying up")
    once = parser.parse_args().once
    say(f"Guardhouse {__version__} on {platform.node()} ({platform.system()} {platform.release()}), uid {os.getuid()}")
    with system_directory() as directory, LocalSystem(directory, policy="read_only") as system:
        tour = Tour(system)
        tour.step("A certificate authority and the hub's certificate", system.make_certificates)
        tour.step(f"The hub on its embedded SQLite store: {system.url}", system.start_hub)
        if not tour.failures:
            tour.step("An environment and its token", lambda: show(system.create_environment(ENVIRONMENT)))
            tour.step("The runner joins over TLS", system.start_runner)
        if not tour.failures:
            for part in (look_around, use_files, try_to_do_harm, cancel_one):
                part(tour)
        status = 1 if tour.failures else 0
        if status == 0:
            say(f"\n{paint('Every step went as it should.', '32')}")
            if not once:
                finish(tour)
                status = wait_for_the_end(system)
        else:
            say(paint(f"\n{len(tour.failures)} of {tour.number} steps failed:", "31"))
            for failure in tour.failures:
                say(f"  {failure}")
            say(system.log_tail("hub"))
            say(system.log_tail("runner"))
        system.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
