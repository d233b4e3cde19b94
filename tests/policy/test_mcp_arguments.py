"""Rules of `mcp` that look at a call's arguments: what matches, what is missing, what two readers could mistake."""

from datetime import UTC, datetime

import pytest

from guardhouse.errors import PeerError
from guardhouse.policy import Context, decide_operation, load_policy
from guardhouse.policy.compare import compare_policies
from guardhouse.policy.mcp_arguments import flatten_arguments
from guardhouse.policy.model import PolicyError
from guardhouse.values import Verdict

_RULES = """
permission:
  mcp:
    - {match: github/*, then: deny}
    - match: github/create_issue
      when: {arguments: {repo: ["acme/*", "lab/one"], options.draft: "true"}}
      then: allow
      because: drafts in our own repositories
      examples: {allow: [github/create_issue]}
"""


def verdict(arguments: dict[str, object] | None, rules: str = _RULES) -> Verdict:
    policy = load_policy(rules, name="p.yaml")
    flat = None if arguments is None else flatten_arguments(arguments)
    context = Context(now=datetime.now(UTC), arguments=flat)
    return decide_operation(policy, "mcp", "github/create_issue", context=context).verdict


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"repo": "acme/site", "options": {"draft": True}}, Verdict.ALLOW),
        ({"repo": "lab/one", "options": {"draft": True}, "title": "x"}, Verdict.ALLOW),
        ({"repo": "lab/two", "options": {"draft": True}}, Verdict.DENY),
        ({"repo": "acme/site", "options": {"draft": False}}, Verdict.DENY),
        ({"repo": "acme/site"}, Verdict.DENY),
        ({"repo": ["acme/site"], "options": {"draft": True}}, Verdict.DENY),
        ({}, Verdict.DENY),
        (None, Verdict.DENY),
    ],
)
def test_arguments_decide(arguments: dict[str, object] | None, expected: Verdict) -> None:
    """Every named argument must be there and match; arguments that are not known let nothing through."""
    assert verdict(arguments) is expected


def test_a_deny_rule_for_one_value_leaves_the_others() -> None:
    """The twin: the same call with another value is allowed, and unknown arguments are denied."""
    rules = """
permission:
  mcp:
    - {match: "*", then: allow}
    - {match: github/create_issue, when: {arguments: {repo: "acme/payroll"}}, then: deny}
"""
    assert verdict({"repo": "acme/payroll"}, rules) is Verdict.DENY
    assert verdict({"repo": "acme/site"}, rules) is Verdict.ALLOW
    assert verdict(None, rules) is Verdict.DENY


def test_two_arguments_of_one_name_are_refused() -> None:
    """A rule must not be asked about one value while the tool reads the other."""
    with pytest.raises(PeerError, match=r"two arguments are called 'a\.b'"):
        flatten_arguments({"a.b": "good", "a": {"b": "evil"}})
    assert flatten_arguments({"a": {"b": 1, "c": "t"}}) == {"a": '{"b":1,"c":"t"}', "a.b": "1", "a.c": "t"}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("permission: {bash: [{match: ls, when: {arguments: {a: b}}, then: allow}]}", "belongs to rules of 'mcp'"),
        ("permission: {mcp: [{match: a/b, when: {arguments: {}}, then: allow}]}", "is empty"),
        ("permission: {mcp: [{match: a/b, when: {arguments: {x: []}}, then: allow}]}", "no value that it must match"),
        ("permission: {mcp: [{match: a/b, when: {arguments: {x: 'a\\'}}, then: allow}]}", "lone backslash"),
    ],
)
def test_what_cannot_be_meant_is_refused(rules: str, says: str) -> None:
    """Each mistake is named with its place."""
    with pytest.raises(PolicyError, match=says):
        load_policy(rules, name="p.yaml")


def test_dropping_the_condition_is_a_widening() -> None:
    """The comparison names the condition under which the two policies differ."""
    narrow = load_policy("permission: {mcp: [{match: a/b, when: {arguments: {x: y}}, then: allow}]}", name="a")
    wide = load_policy("permission: {mcp: [{match: a/b, then: allow}]}", name="b")
    assert any(difference.widens for difference in compare_policies(narrow, wide))
    assert not any(difference.widens for difference in compare_policies(wide, narrow))
