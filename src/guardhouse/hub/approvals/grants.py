"""What people said for longer, held against a new question: whether it answers all that is asked.

One text may ask by several rules (``rm old; dd if=…``) while its question names the first of them. A yes "for this
rule" is a yes to that rule alone, so a question counts as answered where each rule that asks has its yes. Knows no
store. Runs in the hub.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from guardhouse.hub.store.approvals import RULE_MAX_CHARS, ApprovalRecord, GrantRecord

__all__ = ["answering_grants", "asking_rules"]


def asking_rules(record: ApprovalRecord) -> list[tuple[str, str]] | None:
    """Return rule and place of all that asks in a question, the one that it names first.

    None where that cannot be told, because the runner's explanation was too large to keep. The exec gate and the
    rules of other operations ask about one thing; what they explain is the text around it.
    """
    named = (record.rule, record.place)
    if record.gate != "shell" or record.explanation is None:
        return [named]
    explanation: Any = msgspec.json.decode(record.explanation)
    if not isinstance(explanation, dict) or "left_out" in explanation:
        return None
    parts = [part for key in ("commands", "concerns") for part in _items(explanation.get(key))]
    asking = [
        (str(part.get("rule") or "")[:RULE_MAX_CHARS], str(part.get("place") or "")[:RULE_MAX_CHARS])
        for part in parts
        if part.get("verdict") == "ask"
    ]
    return list(dict.fromkeys([named, *asking]))


def _items(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def answering_grants(record: ApprovalRecord, grants: Sequence[GrantRecord]) -> list[GrantRecord]:
    """Return the grants that answer a question together: one no, or a yes for each rule that asks; else none.

    Args:
        grants: those that may answer by the rules of today, in the order in which they count.
    """
    asking = asking_rules(record)
    found = [
        next((grant for grant in grants if grant.covers(record, rule=rule, place=place)), None)
        for rule, place in asking or [(record.rule, record.place)]
    ]
    denied = next((grant for grant in found if grant is not None and grant.verdict != "allow"), None)
    if denied is not None:
        return [denied]
    if asking is None or None in found:
        return []
    return list(dict.fromkeys(grant for grant in found if grant is not None))
