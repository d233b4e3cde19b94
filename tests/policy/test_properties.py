"""What holds of every policy and every text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.policy import decide, load_policy, policy_from_pairs
from guardhouse.policy.decision import strictest
from guardhouse.policy.explain import explain_decision
from guardhouse.values import Verdict

words = st.sampled_from(
    ["ls", "cat", "rm", "-r", "-rf", "x", "a b", "$x", '"$y"', "/etc/x", "../x", "kubectl", "get", "*"]
)
commands = st.lists(words, min_size=1, max_size=4).map(
    lambda parts: " ".join(f"'{part}'" if " " in part else part for part in parts)
)
texts = st.lists(commands, min_size=1, max_size=3).map("; ".join) | st.text(max_size=30)
patterns = st.lists(
    st.sampled_from(["ls", "cat", "rm", "-r", "-rf", "x", "*", "kubectl", "get", "?", "/etc/*"]), min_size=1, max_size=3
).map(" ".join)
pairs = st.lists(st.tuples(patterns, st.sampled_from(["allow", "deny", "ask"])), max_size=5).map(
    lambda items: [list(item) for item in items]
)
RANK = [Verdict.ALLOW, Verdict.UNDECIDED, Verdict.ASK, Verdict.DENY]


@settings(max_examples=300, deadline=None)
@given(pairs, texts, patterns)
def test_one_more_deny_never_helps(rules: list, text: str, pattern: str) -> None:
    """A deny at the end never turns a verdict into allow, nor a deny into anything else."""
    before = decide(policy_from_pairs(rules), text).verdict
    after = decide(policy_from_pairs([*rules, [pattern, "deny"]]), text).verdict
    assert after is not Verdict.ALLOW or before is Verdict.ALLOW
    if before is Verdict.DENY:
        assert after is Verdict.DENY


@settings(max_examples=200, deadline=None)
@given(pairs, commands, st.sampled_from(["  ", "\t", " \\\n"]))
def test_spacing_changes_nothing(rules: list, command: str, blank: str) -> None:
    """Blanks, tabs and continued lines between words never change a decision."""
    policy = policy_from_pairs(rules)
    spaced = command if "'" in command else command.replace(" ", blank)
    assert decide(policy, f"  {spaced}\n").verdict is decide(policy, command).verdict


@settings(max_examples=200, deadline=None)
@given(pairs, st.lists(commands, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_formatting_changes_nothing(rules: list, parts: list, random: object) -> None:
    """Separators, comments, empty lines, groups and quotes around a program's name never change a decision."""
    policy = policy_from_pairs(rules)
    written = "".join(
        part.replace(name, random.choice([name, f"'{name}'", f'"{name}"', f"\\{name}"]), 1)
        + random.choice(["; ", "\n", " # a comment; rm\n", "\n\n", " ;\n"])
        for part in parts
        for name in [part.split()[0].strip("'\"")]
        if name.isalpha()
    )
    if not written:
        return
    plain = "; ".join(part for part in parts if part.split()[0].strip("'\"").isalpha())
    assert decide(policy, written).verdict is decide(policy, plain).verdict
    assert decide(policy, f"{{ {written}\n}}").verdict is decide(policy, plain).verdict


@settings(max_examples=200, deadline=None)
@given(pairs, commands, commands)
def test_allowed_alone_stays_allowed_together(rules: list, first: str, second: str) -> None:
    """Two commands in a pipeline are as strict as the stricter of them alone."""
    policy = policy_from_pairs(rules)
    alone = [decide(policy, text).verdict for text in (first, second)]
    assert decide(policy, f"{first} | {second}").verdict is strictest(*alone)


@settings(max_examples=200, deadline=None)
@given(pairs, texts)
def test_explain_and_decide_agree(rules: list, text: str) -> None:
    """What is shown is what was decided, and nothing raises."""
    decision = decide(policy_from_pairs(rules), text)
    shown = explain_decision(decision)
    assert f"\n{decision.verdict.value}: " in shown
    data = decision.as_json()
    assert data["verdict"] == decision.verdict.value
    parts = [part["verdict"] for part in (*data["commands"], *data["concerns"])]
    if parts and decision.because != "the policy denies every command":
        assert RANK[max(RANK.index(Verdict(part)) for part in parts)] is decision.verdict


@settings(max_examples=200, deadline=None)
@given(pairs, texts)
def test_a_document_and_its_pairs_say_the_same(rules: list, text: str) -> None:
    """A policy means the same in every form that it is written in."""
    import json

    unique = list({pattern: [pattern, action] for pattern, action in rules}.values())
    document = json.dumps({"permission": {"bash": dict(map(tuple, unique))}})
    first, second = policy_from_pairs(unique), load_policy(document, name="p")
    assert first.digest == second.digest
    assert decide(first, text).verdict is decide(second, text).verdict


@settings(max_examples=200, deadline=None)
@given(pairs, st.text(max_size=60))
def test_any_text_is_decided(rules: list, text: str) -> None:
    """Whatever is asked, there is an answer."""
    assert decide(policy_from_pairs(rules), text).verdict in RANK
