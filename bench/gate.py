"""What the exec gate costs: one command, a script of 200 programs and a compile, on the same wall with and without.

The launchers run side by side and take turns, since absolute times drift; the ratio of the medians is what counts. Two
more stand for a host where nothing can follow execs: Landlock's list of files alone, and with the notifications.
``python bench/gate.py [--rounds N] [--policy FILE] [--json]``; the compile needs gcc and make, and is left out by
name where they are not installed.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import gate_settings, start_launcher
from guardhouse.policy import Policy, dump_policy, load_policy
from guardhouse.runner.allowed_files import find_allowed_files, find_readable
from guardhouse.runner.identity import resolve_account
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compile import compile_bundle, with_exec_notice
from guardhouse.sandbox.load import load_profile, read_library
from guardhouse.sandbox.narrow_execute import NARROWED, narrow_execute

# A deny rule makes the gate look at every argument vector; a policy that only allows would spare it that.
POLICY = """permission:
  bash:
    "*": allow
    "rm -rf *": deny
    "git push *": deny
"""
SOURCES = 8
FUNCTIONS = 30


@dataclass(frozen=True)
class Work:
    """``text`` is run ``rounds`` times by each; ``aim`` is the ratio that the gate must stay below."""

    name: str
    text: str
    share_of_rounds: float
    aim: float
    needs: tuple[str, ...] = ()
    # Off where it starts programs outside the trusted path (gcc's passes), which no list of files has.
    runs_narrowed: bool = True


WORKS = (
    Work("bash -c ls", "ls", 1.0, 1.1),
    Work("200 programs", "for i in {1..200}; do /bin/true; done", 0.2, 1.25),
    Work("make -j2", "cd project && make -sj2 && make -s clean", 0.1, 1.1, needs=("make", "gcc"), runs_narrowed=False),
)


def bundle_for(workspace: str, policy: Policy) -> Bundle:
    """Compile the shipped profile ``observe`` for this host."""
    shipped = shipped_directory("sandbox")
    account = resolve_account(None, effective_uid=os.geteuid())
    return compile_bundle(
        [load_profile("observe", directory=shipped, library=read_library(shipped))],
        identity=Identity(account.uid, account.gid, account.groups, account.name, account.home),
        workspace=workspace,
        features=probe_host(),
        trusted_path=":".join(policy.trusted_path),
    )


def make_project(directory: Path) -> None:
    """Write a small C project."""
    project = directory / "project"
    project.mkdir()
    names = [f"part{number}" for number in range(SOURCES)]
    for name in names:
        lines = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>"]
        lines += [
            f'int {name}_{number}(int x) {{ char b[64]; snprintf(b, sizeof b, "%d", x * {number}); return atoi(b); }}'
            for number in range(FUNCTIONS)
        ]
        (project / f"{name}.c").write_text("\n".join(lines) + "\n", encoding="ascii")
    (project / "main.c").write_text("int main(void) { return 0; }\n", encoding="ascii")
    objects = " ".join(f"{name}.o" for name in [*names, "main"])
    rules = f"program: {objects}\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\nclean:\n\trm -f program *.o\n"
    (project / "Makefile").write_text(rules, encoding="ascii")
    if os.geteuid() == 0:
        account = resolve_account(None, effective_uid=0)
        for path in (directory, project, *project.iterdir()):
            os.chown(path, account.uid, account.gid)


def with_narrowed(bundle: Bundle, policy: Policy) -> tuple[Bundle, Bundle]:
    """Return the bundle with the plan for `judged_arguments` beside ``observe``: without and with notifications."""
    shipped = shipped_directory("sandbox")
    narrowed = narrow_execute(
        bundle.profiles["observe"],
        programs=find_allowed_files(policy, with_some_arguments=True),
        readable=find_readable(policy.trusted_path),
    )
    if narrowed is None:
        raise SystemExit("this kernel has no Landlock")
    profile = load_profile("observe", directory=shipped, library=read_library(shipped))
    heard = with_exec_notice(narrowed, profile, notice="judged_arguments")
    listed, noticed = (replace(bundle, profiles={**bundle.profiles, plan.name: plan}) for plan in (narrowed, heard))
    return listed, noticed


def run_once(client: DirectClient, profile: str, text: str, null: int) -> float:
    """Run a text; return the milliseconds from the request to the outcome."""
    began = time.perf_counter()
    request = LaunchRequest(profile, ("bash", "-c", text))
    outcome = client.wait(client.launch(request, stdout_fd=null, stderr_fd=2))
    if outcome.exit_code != 0:
        raise SystemExit(f"{text!r} ended with {outcome.exit_code}: {outcome.reason}")
    return 1000 * (time.perf_counter() - began)


def measure(rounds: int, policy: Policy) -> dict[str, dict[str, float]]:
    """Return the figures of each work."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    dumped = gate_settings(dump_policy(policy))
    heard = gate_settings(dump_policy(policy), follows=False)
    narrowed = f"observe{NARROWED}"
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as name:
        os.chmod(name, 0o755)
        make_project(Path(name))
        bundle = bundle_for(name, policy)
        listed, noticed = with_narrowed(bundle, policy)
        with (
            DirectClient(start_launcher(bundle, warm=("observe",))) as bare,
            DirectClient(start_launcher(bundle, warm=("observe",), gate_policy=dumped)) as gated,
            DirectClient(start_launcher(listed, warm=(narrowed,))) as files,
            DirectClient(start_launcher(noticed, warm=(narrowed,), gate_policy=heard)) as told,
        ):
            turns = ((bare, "observe"), (gated, "observe"), (files, narrowed), (told, narrowed))
            for work in WORKS:
                if any(shutil.which(program) is None for program in work.needs):
                    continue
                takes_part = turns if work.runs_narrowed else turns[:2]
                times: tuple[list[float], ...] = tuple([] for _ in takes_part)
                count = max(5, round(rounds * work.share_of_rounds))
                for number in range(count + 2):
                    for (client, profile), taken in zip(takes_part, times, strict=True):
                        found = run_once(client, profile, work.text, null)
                        if number >= 2:
                            taken.append(found)
                wall, gate, *others = (statistics.median(taken) for taken in times)
                quiet = min(times[1]) / min(times[0])
                result[work.name] = {
                    "wall_ms": wall,
                    "gate_ms": gate,
                    "ratio": gate / wall,
                    "ratio_of_fastest": quiet,
                    "aim": work.aim,
                }
                if others:
                    listed_ms, noticed_ms = others
                    result[work.name] |= {
                        "listed_files_ms": listed_ms,
                        "notified_ms": noticed_ms,
                        "notified_ratio": noticed_ms / listed_ms,
                    }
    os.close(null)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="turns of the shortest work; the others take fewer")
    parser.add_argument("--policy", type=Path, help="a policy document; by default two deny rules under 'allow'")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    text = POLICY if options.policy is None else options.policy.read_text(encoding="utf-8")
    result = measure(options.rounds, load_policy(text, name="bench"))
    if options.json:
        print(json.dumps(result))
        return
    print(
        "| | wall ms | with the gate ms | ratio | ratio of the fastest | aim | listed files ms | notified ms | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in result.items():
        print(
            f"| {name} | {row['wall_ms']:.2f} | {row['gate_ms']:.2f} | {row['ratio']:.2f}"
            f" | {row['ratio_of_fastest']:.2f} | {row['aim']}"
            f" | {row.get('listed_files_ms', math.nan):.2f} | {row.get('notified_ms', math.nan):.2f}"
            f" | {row.get('notified_ratio', math.nan):.2f} |"
        )


if __name__ == "__main__":
    main()
