"""May this command run? A policy document, gate one's shell reader, and the decision. Pure: no clock, file or socket.

Names are loaded at their first use, so that a process which only judges finished argument vectors (the launcher)
never imports YAML or the shell reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardhouse.policy.decision import CommandDecision, CommandDenied, Concern, Decision, strictest
    from guardhouse.policy.document import dump_policy, load_policy, policy_from_pairs, restore_policy
    from guardhouse.policy.exec_decision import ExecDecision, decide_exec
    from guardhouse.policy.gate_one import decide
    from guardhouse.policy.model import Context, Policy, PolicyError, Rule
    from guardhouse.policy.operation import OperationDecision, decide_operation

__all__ = [
    "CommandDecision",
    "CommandDenied",
    "Concern",
    "Context",
    "Decision",
    "ExecDecision",
    "OperationDecision",
    "Policy",
    "PolicyError",
    "Rule",
    "decide",
    "decide_exec",
    "decide_operation",
    "dump_policy",
    "load_policy",
    "policy_from_pairs",
    "restore_policy",
    "strictest",
]

_HOMES = {
    "CommandDecision": "decision",
    "CommandDenied": "decision",
    "Concern": "decision",
    "Context": "model",
    "Decision": "decision",
    "ExecDecision": "exec_decision",
    "OperationDecision": "operation",
    "Policy": "model",
    "PolicyError": "model",
    "Rule": "model",
    "decide": "gate_one",
    "decide_exec": "exec_decision",
    "decide_operation": "operation",
    "dump_policy": "document",
    "load_policy": "document",
    "policy_from_pairs": "document",
    "restore_policy": "document",
    "strictest": "decision",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
