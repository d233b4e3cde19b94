"""What a command really ran, as a tree in the terminal, and what the exec gate did not let run, as lines.

Knows the shape of a result's ``execs`` (docs/exec_gate.md). Pure; used by `exec` and `task show`.
"""

import shlex
from typing import Any, Final

from guardhouse.cli.tables import plain_text

__all__ = ["refusal_lines", "tree_lines"]

_REFUSALS_SHOWN: Final = 5


def refusal_lines(execs: dict[str, Any] | None) -> list[str]:
    """Return a sentence for each of the first programs that were refused, and how many more there were."""
    refused = [] if execs is None else execs["refused"]
    lines = [
        f"the exec gate did not let {one['path'] or 'a program'} run: {one['because']}"
        for one in refused[:_REFUSALS_SHOWN]
    ]
    if len(refused) > _REFUSALS_SHOWN:
        lines.append(f"and {len(refused) - _REFUSALS_SHOWN} further programs; 'guardhouse task show --tree' lists them")
    return lines


def tree_lines(execs: dict[str, Any]) -> list[str]:
    """Return one line a program, each below the program whose process started it, refused ones marked."""
    children: dict[int | None, list[dict[str, Any]]] = {}
    known = {one["index"] for one in execs["ran"]}
    for one in [*execs["ran"], *execs["refused"]]:
        # What an unseen program started, where nothing could follow execs, stands at the left.
        children.setdefault(one["parent"] if one["parent"] in known else None, []).append(one)
    lines: list[str] = []
    # A stack instead of recursion: a command may start programs thousands deep.
    waiting = [(one, 0) for one in reversed(children.get(None, []))]
    while waiting:
        one, depth = waiting.pop()
        # A command names its programs and their arguments as it likes: nothing in them is for a terminal to obey.
        lines.append("  " * depth + plain_text(_line(one)))
        if "index" in one:
            waiting += [(child, depth + 1) for child in reversed(children.get(one["index"], []))]
    if execs["left_out"]:
        lines.append(f"and {execs['left_out']} further programs that the record has no room for")
    if execs.get("unseen"):
        lines.append(f"and {execs['unseen']} execs of which nothing could be read")
    return lines


def _line(one: dict[str, Any]) -> str:
    words = shlex.join(one["argv"])
    # Where nothing could follow the command's execs, its programs are known by what their callers said.
    source = ", as its caller said" if one.get("words") == "caller" else ""
    if "index" not in one:
        return f"REFUSED {one['path']}: {words}  ({one['because']}{source})"
    if "words" in one:
        return f"{one['path']}: {words}  [pid {one['pid']}, from {one['started_s']:.3f} s{source}]"
    if one["signal"] is not None:
        end = f"signal {one['signal']}"
    elif one["exit_status"] is not None:
        end = f"exit {one['exit_status']}"
    else:
        end = "became the next" if one["ended_s"] is not None else "no end seen"
    begun = f"{one['started_s']:.3f}"
    ended = "" if one["ended_s"] is None else f"{one['ended_s']:.3f}"
    used = f"{one['cpu_s'] * 1000:.0f} ms CPU, {one['peak_memory_bytes'] / 2**20:.1f} MiB"
    return f"{one['path']}: {words}  [pid {one['pid']}, {begun}-{ended} s, {end}, {used}]"
