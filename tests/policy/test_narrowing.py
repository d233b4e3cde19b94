"""A second policy in force next to the first: both must allow, in every question that a policy is asked."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.policy import (
    Policy,
    PolicyError,
    decide,
    decide_exec,
    decide_operation,
    dump_policy,
    load_policy,
    policy_from_pairs,
    restore_policy,
    strictest,
)
from guardhouse.policy.compare import check_narrowing
from guardhouse.policy.narrowing import chain
from guardhouse.policy.operation import decide_tunnel, decisions_as_json
from guardhouse.values import Verdict

LOCAL = load_policy(
    """
permission:
  bash:
    - {match: "git *", then: allow, children: inherit, profile: observe, timeout: 1m}
    - {match: "ls *", then: allow, timeout: 5s}
    - {match: "rm *", then: ask}
  read: {"**": allow}
""",
    name="local.yaml",
)
HUB = load_policy(
    """
permission:
  bash:
    - {match: "git status *", then: allow, profile: isolate, timeout: 30s}
    - {match: "rm *", then: ask}
    - {match: "ls *", then: ask}
  read: {"**": allow, "secret/**": deny}
  write: {"**": allow}
""",
    name="hub policy",
)
BOTH = replace(LOCAL, narrowing=HUB)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("git status", "allow"), ("git push", "deny"), ("ls -l", "ask"), ("rm x", "ask"), ("id", "deny"),
     ("git status; ls", "ask"), ("", "deny"), ("a\0b", "deny")],
)  # fmt: skip
def test_gate_one_asks_both(text: str, verdict: str) -> None:
    """The stricter of the two answers is the answer, and both policies are in the record."""
    decision = decide(BOTH, text)
    assert decision.verdict.value in (verdict, "undecided" if verdict == "allow" else verdict)
    assert decision.verdict is strictest(decide(LOCAL, text).verdict, decide(HUB, text).verdict)
    said = decision.as_json()
    assert said["policy"] == {"name": "local.yaml", "digest": LOCAL.digest}
    assert said["narrowing"] == {"name": "hub policy", "digest": HUB.digest}


def test_walls_and_time_limits_of_both() -> None:
    """The narrower profile and the shorter time limit hold, whichever policy asks for them."""
    decision = decide(BOTH, "git status")
    assert (decision.profile, decision.timeout_s) == ("isolate", 30.0)


def test_walls_that_cannot_be_had_together() -> None:
    """Profiles of which none is the narrower deny the text; the twin with one of them is allowed."""
    one = load_policy("permission: {bash: [{match: id, then: allow, profile: one}]}", name="one")
    two = load_policy("permission: {bash: [{match: id, then: allow, profile: two}]}", name="two")
    assert decide(replace(one, narrowing=two), "id").verdict is Verdict.DENY
    assert decide(replace(one, narrowing=one), "id").profile == "one"


def test_exec_gate_asks_both() -> None:
    """A program must be allowed by both; children are free only where both say so."""
    status, push = ("git", "status"), ("git", "push")
    assert decide_exec(BOTH, status, path="/usr/bin/git", names={"git"}).verdict is Verdict.ALLOW
    assert decide_exec(BOTH, status, path="/usr/bin/git", names={"git"}).children == "gated"
    assert decide_exec(LOCAL, status, path="/usr/bin/git", names={"git"}).children == "inherit"
    assert decide_exec(BOTH, push, path="/usr/bin/git", names={"git"}).verdict is Verdict.DENY


def test_other_operations_ask_both() -> None:
    """A path must be allowed by both; a section that only one of them has counts."""
    assert decide_operation(BOTH, "read", "a").verdict is Verdict.ALLOW
    assert decide_operation(BOTH, "read", "secret/a").verdict is Verdict.DENY
    assert decide_operation(LOCAL, "read", "secret/a").verdict is Verdict.ALLOW
    assert BOTH.has_section("write")
    assert not LOCAL.has_section("write")


def test_it_travels() -> None:
    """Both policies and the shadow reach another process, and the digest is the document's own."""
    shadow = policy_from_pairs([["*", "deny"]])
    back = restore_policy(dump_policy(replace(BOTH, shadow=shadow)))
    assert back.narrowing is not None
    assert back.shadow is not None
    assert (back.digest, back.narrowing.digest, back.shadow.digest) == (LOCAL.digest, HUB.digest, shadow.digest)


def test_what_narrows_is_taken() -> None:
    """A policy that permits nothing more passes."""
    check_narrowing(LOCAL, HUB)
    check_narrowing(LOCAL, policy_from_pairs([]))
    check_narrowing(LOCAL, LOCAL)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"git *": allow, "id": allow}', "for example: id"),
        ('{"rm *": allow}', "ask here, allow there, for example: rm"),
        ('[{match: "git *", then: allow, children: inherit}]', "timeout"),
        ('[{match: "ls *", then: allow, timeout: 5s, children: inherit}]', "children inherit"),
    ],
)
def test_what_widens_is_refused_with_a_witness(text: str, says: str) -> None:
    """A policy that permits anything more is refused, with a command that shows it."""
    sent = load_policy(f"permission: {{bash: {text}}}", name="hub policy")
    with pytest.raises(PolicyError, match=says) as refused:
        check_narrowing(LOCAL, sent)
    assert refused.value.place.startswith("hub policy")


def test_another_path_is_refused() -> None:
    """A policy whose names mean other files cannot be compared."""
    with pytest.raises(PolicyError, match="'path' is another"):
        check_narrowing(LOCAL, load_policy("path: [/opt/bin]\npermission: {bash: {}}", name="hub policy"))


RULES = st.lists(
    st.tuples(st.sampled_from(["*", "ls *", "ls -l", "rm *", "cat /etc/*", "git *", "git push *", "? *"]),
              st.sampled_from(["allow", "deny", "ask"])),
    max_size=5,
)  # fmt: skip
TEXTS = st.sampled_from(
    ["ls", "ls -l | rm x", "git push; ls", "$x", "cat /etc/passwd > f", "rm $(ls)", "if ls; then git; fi", "x=1 ls"]
)


def made(pairs: list[tuple[str, str]]) -> Policy:
    return policy_from_pairs([list(pair) for pair in pairs])


@given(RULES, RULES, TEXTS)
def test_never_more_than_either(own: list, other: list, text: str) -> None:
    """Whatever the two say, their common answer is the strictest of both and never more than one of them."""
    verdict = decide(replace(made(own), narrowing=made(other)), text).verdict
    assert verdict is strictest(decide(made(own), text).verdict, decide(made(other), text).verdict)


def test_the_shadow_of_every_operation() -> None:
    """What a second policy would have said stands in the decision of each operation, and decides nothing."""
    shadow = load_policy('permission: {bash: {}, read: {"a": deny}, egress: {"*": deny}}', name="next.yaml")
    hub = load_policy('permission: {bash: {}, write: {"b": deny}}', name="pol_1")
    policy = replace(load_policy('permission: {bash: {}, read: {"**": allow}}', name="p.yaml"), shadow=shadow)
    decision = decide_operation(chain(policy, [hub]), "read", "a")
    assert decision.verdict is Verdict.ALLOW
    assert (decision.policy, decision.narrowing) == (("p.yaml", policy.digest), (("pol_1", hub.digest),))
    said = decision.as_json()["shadow"]
    assert (said["verdict"], said["differs"], said["policy"]["digest"]) == ("deny", True, shadow.digest)
    tunnel = decide_tunnel(policy, "https", "example.com:443")
    assert (tunnel.verdict, tunnel.as_json()["shadow"]["verdict"]) == (Verdict.ALLOW, "deny")
    both = decisions_as_json([decide_operation(policy, "read", "b"), decision])
    assert (both["verdict"], both["shadow"]["differs"], len(both["operations"])) == ("allow", True, 2)


@pytest.mark.parametrize("denied_by", [0, 1, 2, 3])
def test_every_layer_must_allow(denied_by: int) -> None:
    """One no among four policies is a no, whichever of them says it, at both gates and for files."""
    texts = ['{"*": allow, "id": deny}' if one == denied_by else '{"*": allow}' for one in range(4)]
    layers = [
        load_policy(f"permission: {{bash: {text}, read: {text}}}", name=str(one)) for one, text in enumerate(texts)
    ]
    policy = chain(layers[0], layers[1:])
    assert [decide(policy, text).verdict for text in ("id", "true")] == [Verdict.DENY, Verdict.ALLOW]
    assert decide_exec(policy, ("id",), path="/usr/bin/id", names=("id",)).verdict is Verdict.DENY
    assert decide_operation(policy, "read", "id").verdict is Verdict.DENY
    restored = restore_policy(dump_policy(policy))
    assert [one.digest for one in restored.layers] == [one.digest for one in policy.layers]
