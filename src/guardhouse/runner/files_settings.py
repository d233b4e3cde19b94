"""What the files worker is told at its start: bounds of the workspace, and the policy's path rules that it can hold.

The policy is asked about the path that a request names; the worker asks about the place that it resolves to. Rules
that both can hold are given to both, so that a link with another name does not get round them. Runs in the boot
process and in the keeper.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from guardhouse.policy import Policy, Rule
from guardhouse.values import Verdict

__all__ = ["make_files_settings"]

# Characters that mean something in a glob of the policy or of the worker, or that the two write differently.
_SPECIAL: Final = re.compile(r"[*?\[\]{}\\!]")


def make_files_settings(policy: Policy, *, workspace: Path, bounds: Mapping[str, float] | None = None) -> bytes:
    """Return the JSON that `launcher.start.start_launcher` takes as ``files_settings``.

    Args:
        bounds: the operator's quota and ages, by the names of docs/workspace.md; the worker's defaults for the rest.
    """
    settings = {
        **(bounds or {}),
        "root_path": str(workspace),
        "read_deny": list(_final_denials(policy, "read")),
        "write_deny": list(_final_denials(policy, "write")),
    }
    return json.dumps(settings).encode("ascii")


def _final_denials(policy: Policy, operation: str) -> Iterator[str]:
    """Yield the worker's globs for the denials that nothing later in their policy takes back: the last match wins."""
    for layer in policy.layers:
        yield from _final_denials_of(layer.rules(operation))


def _final_denials_of(rules: Sequence[Rule]) -> Iterator[str]:
    final = next((at for at in range(len(rules), 0, -1) if rules[at - 1].action is not Verdict.DENY), 0)
    for rule in rules[final:]:
        glob = _as_place(rule)
        if glob is not None:
            yield glob


def _as_place(rule: Rule) -> str | None:
    """Return the worker's glob for a rule's, None where there is no glob that denies the same.

    A star of the policy crosses slashes, one of the worker does not. A directory that is denied by its own name is
    denied with what is below it, which the policy by itself would not do.
    """
    if not rule.is_glob or rule.when is not None:
        return None
    pattern = rule.match
    below = re.fullmatch(r"(.+?)/\*{1,2}", pattern)
    if below and not _SPECIAL.search(below[1]):
        return f"{below[1]}/**"
    ending = re.fullmatch(r"\*([^/]+)", pattern)
    if ending and not _SPECIAL.search(ending[1]):
        return f"**/*{ending[1]}"
    return None if _SPECIAL.search(pattern) or pattern.startswith("/") else pattern
