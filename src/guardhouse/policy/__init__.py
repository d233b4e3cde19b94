"""May this command run? A policy document, gate one's shell reader, and the decision. Pure: no clock, file or socket.

Names are loaded at their first use, so that a process which only judges finished argument vectors (the launcher)
never imports YAML or the shell reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardhouse.policy.decide import decide
    from guardhouse.policy.decision import CommandDecision, CommandDenied, Concern, Decision, strictest
    from guardhouse.policy.document import load_policy, policy_from_pairs
    from guardhouse.policy.model import Context, Policy, PolicyError, Rule

__all__ = [
    "CommandDecision",
    "CommandDenied",
    "Concern",
    "Context",
    "Decision",
    "Policy",
    "PolicyError",
    "Rule",
    "decide",
    "load_policy",
    "policy_from_pairs",
    "strictest",
]

_HOMES = {
    "CommandDecision": "decision",
    "CommandDenied": "decision",
    "Concern": "decision",
    "Context": "model",
    "Decision": "decision",
    "Policy": "model",
    "PolicyError": "model",
    "Rule": "model",
    "decide": "decide",
    "load_policy": "document",
    "policy_from_pairs": "document",
    "strictest": "decision",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
