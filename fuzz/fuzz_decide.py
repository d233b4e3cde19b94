"""Any command under any rules is decided, and the decision keeps the promises of the language.

The input is lines of ``action pattern`` until an empty one, then the command text.
"""

import json

from driver import main
from guardhouse.policy import PolicyError, decide, policy_from_pairs
from guardhouse.policy.explain import explain_decision
from guardhouse.values import Verdict

_ACTIONS = {"a": "allow", "d": "deny", "k": "ask"}


def fuzz_one(data: bytes) -> None:
    head, _, command = data.decode("utf-8", "surrogateescape").partition("\n\n")
    pairs = [[line[1:], _ACTIONS[line[0]]] for line in head.split("\n")[:20] if line[:1] in _ACTIONS]
    try:
        policy = policy_from_pairs(pairs)
    except PolicyError:
        return
    decision = decide(policy, command)
    json.dumps(decision.as_json())
    explain_decision(decision)
    for part in decision.commands:
        assert 0 <= part.span[0] <= part.span[1] <= len(command), part
        if part.verdict is Verdict.DENY:
            assert decision.verdict is Verdict.DENY
        if part.verdict is Verdict.ALLOW and part.rule is not None:
            assert part.rule.action is Verdict.ALLOW
    stricter = decide(policy_from_pairs([*pairs, ["rm *", "deny"]]), command).verdict
    if decision.verdict is not Verdict.ALLOW:
        assert stricter is not Verdict.ALLOW
    if decision.verdict is Verdict.DENY:
        assert stricter is Verdict.DENY
    assert decide(policy_from_pairs([*pairs, ["*", "deny"]]), command).verdict is Verdict.DENY


if __name__ == "__main__":
    main(fuzz_one, __file__)
