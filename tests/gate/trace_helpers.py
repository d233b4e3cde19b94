"""Traces what everyday programs start for their own work, and says which of it the helper closure has.

``python -m tests.gate.trace_helpers [TEXT…]``: runs each text (by default all of `helped.py`) in the real sandbox where
everything is allowed, and prints every program that was started by another one than the command's shell, from the
gate's own record. A line with a minus is not in the table: it is either missing or left out on purpose.
"""

import os
import sys
import tempfile
from pathlib import Path

from guardhouse.policy.knowledge.helper_closure import find_start
from guardhouse.runner.identity import resolve_account
from tests.gate.gates import ALLOW_ALL, Gate
from tests.gate.helped import COMMANDS, SETUP


def lines_of(gate: Gate, text: str) -> set[str]:
    """Return what a text's programs start, one line each."""
    where = gate.fresh_directory()
    gate.run(SETUP, where=where, timeout_s=120)
    ran = (gate.run(text, where=where, timeout_s=120).outcome.execs or {})["ran"]
    # Under which names of the table what each program starts is looked up: its own, and what it was started as.
    names: dict[int, tuple[str, ...]] = {}
    found = set()
    for entry in ran:
        argv = tuple(entry["argv"])
        # A script's own words stand behind its interpreter's.
        at = argv.index(entry["path"]) if entry["interpreter"] and entry["path"] in argv else 0
        called, words = entry["path"] if at else argv[0], argv[at + 1 :]
        plain = called.rpartition("/")[2]
        names[entry["index"]] = (plain,)
        if entry["parent"] in (None, 0):
            continue
        start = find_start(
            names[entry["parent"]],
            plain,
            frozenset({plain}),
            entry["path"],
            words,
            is_roots=lambda: True,
            may_list=True,
        )
        if start is not None and start.then:
            names[entry["index"]] = (plain, start.then)
        sign = "-" if start is None else "+"
        found.add(f"  {sign} {names[entry['parent']][-1]} -> {entry['path']} {' '.join(words)[:120]!r}")
    return found


def main() -> None:
    """Trace the texts given, or all."""
    with tempfile.TemporaryDirectory(prefix="guardhouse-trace-", ignore_cleanup_errors=True) as name:
        workspace = Path(name)
        workspace.chmod(0o755)
        if os.geteuid() == 0:
            account = resolve_account(None, effective_uid=0)
            os.chown(workspace, account.uid, account.gid)
        gate = Gate(workspace, ALLOW_ALL)
        for text in sys.argv[1:] or COMMANDS:
            lines = lines_of(gate, text)
            if lines:
                sys.stdout.write("\n".join([text, *sorted(lines)]) + "\n")
        gate.close()


if __name__ == "__main__":
    main()
