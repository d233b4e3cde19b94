"""`guardhouse policy explain --batch`: commands as JSON lines in, decisions as JSON lines out."""

import json
import re
import sys
from typing import Any, Final

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.policy_files import read_policy
from guardhouse.errors import SetupError
from guardhouse.limits import COMMAND_TEXT_MAX_BYTES, POLICY_DOCUMENT_MAX_CHARS
from guardhouse.policy import Decision, Policy, decide, load_policy, policy_from_pairs
from guardhouse.policy.model import OPERATIONS

__all__ = ["explain_batch"]

_BATCH_LINE_MAX_BYTES: Final = 8 * COMMAND_TEXT_MAX_BYTES + 6 * POLICY_DOCUMENT_MAX_CHARS
_BATCH_FORM: Final = 'not a line of the form {"id": …, "policy": …, "command": "…"}'
# Distinct policies of a batch that are kept compiled at a time.
_BATCH_POLICIES_KEPT: Final = 256
# No document is one word without a colon; a shipped policy's name or a path is.
_NAME_OR_PATH: Final = re.compile(r"[^\s:{}\[\]\"'#]+")


def explain_batch(policy_name: str) -> ExitCode:
    """Answer each line; a line that cannot be answered gets ``error`` in place of a verdict, and the status is 1."""
    loaded: dict[str, Policy] = {}
    status = ExitCode.OK
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if not line.strip():
            continue
        answer: dict[str, Any] = {"id": None}
        try:
            data = _parse_batch_line(line)
            answer["id"] = data.get("id")
            answer |= _decide_batch_line(data, policy_name, loaded).as_json()
        except (SetupError, ValueError, RecursionError) as error:
            answer["error"] = f"line {number}: {error}"
            status = ExitCode.FAILED
        click.echo(json.dumps(answer, ensure_ascii=True))
    return status


def _parse_batch_line(line: bytes) -> dict[str, Any]:
    if len(line) > _BATCH_LINE_MAX_BYTES:
        raise ValueError(f"longer than {_BATCH_LINE_MAX_BYTES} bytes")
    data = json.loads(line.decode("utf-8"), object_pairs_hook=_without_duplicates)
    if not isinstance(data, dict):
        raise ValueError(_BATCH_FORM)  # noqa: TRY004 - what a line holds, not how we call
    return data


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _decide_batch_line(data: dict[str, Any], policy_name: str, loaded: dict[str, Policy]) -> Decision:
    command = data.get("command")
    if not isinstance(command, str):
        raise ValueError(_BATCH_FORM)  # noqa: TRY004 - as above
    wanted = data.get("policy")
    key = json.dumps(wanted)
    if key not in loaded:
        if len(loaded) >= _BATCH_POLICIES_KEPT:
            loaded.clear()
        loaded[key] = _batch_policy(wanted, policy_name)
    return decide(loaded[key], command)


def _batch_policy(wanted: Any, policy_name: str) -> Policy:
    """Load the policy of one line: a document as JSON or text, a list of pairs, a shipped name or a path."""
    if wanted is None:
        return read_policy(policy_name)
    if isinstance(wanted, list) and all(isinstance(item, list) for item in wanted):
        return policy_from_pairs(wanted)
    if isinstance(wanted, str):
        if _NAME_OR_PATH.fullmatch(wanted):
            return read_policy(wanted)
        return load_policy(wanted, name="policy")
    if isinstance(wanted, dict) and all(key in OPERATIONS and isinstance(wanted[key], dict | list) for key in wanted):
        wanted = {"permission": wanted}
    return load_policy(json.dumps(wanted), name="policy")
