"""The reviewer's tools: lint, format, learn, sign, shadow, case files."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from guardhouse.cli.policy_files import read_policy
from guardhouse.data_files import shipped_directory
from guardhouse.policy import PolicyError, decide, load_policy, policy_from_pairs
from guardhouse.policy.cases import parse_cases, render_junit, run_cases
from guardhouse.policy.form import format_policy
from guardhouse.policy.learn import parse_asked, propose_rules, render_proposals
from guardhouse.policy.lint import lint_policy
from guardhouse.policy.signing import generate_keys, parse_public_key, sign_policy, verify_policy
from guardhouse.values import Verdict

SHIPPED = ["deny_all", "read_only", "kubernetes_read_only", "docker_read_only", "database_read_only", "trusted_machine"]


def codes(pairs: list) -> list[tuple[str, str]]:
    return [
        (finding.code, finding.place) for finding in lint_policy(policy_from_pairs(pairs)) if finding.level != "note"
    ]


def test_every_shipped_file_is_a_policy() -> None:
    """What lies in policies/ can be named by --policy, so nothing else lies there."""
    assert sorted(path.name for path in shipped_directory("policies").iterdir()) == sorted(
        f"{name}.yaml" for name in SHIPPED
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_are_clean(name: str) -> None:
    """What we ship, our own reviewer passes without a remark."""
    assert lint_policy(read_policy(name, with_examples=False)) == ()


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([["ls *", "allow"], ["*", "deny"]], ("shadowed", "policy:1")),
        ([["ls", "allow"], ["l?", "deny"]], ("shadowed", "policy:1")),
        ([["find *", "allow"]], ("escape", "policy:1")),
        ([["tar *", "allow"]], ("escape", "policy:1")),
        ([["awk *", "allow"]], ("escape", "policy:1")),
        ([["git *", "allow"]], ("escape", "policy:1")),
        ([["vim *", "allow"]], ("escape", "policy:1")),
        ([["less *", "allow"]], ("escape", "policy:1")),
        ([["python3 *", "allow"]], ("escape", "policy:1")),
        ([["kubectl *", "allow"]], ("escape", "policy:1")),
        ([["sort *", "allow"]], ("escape", "policy:1")),
        ([["cat logs/*", "allow"]], ("star-crosses", "policy:1")),
        ([["service * status", "allow"]], ("star-crosses", "policy:1")),
        ([["*", "allow"]], ("open-program", "policy:1")),
        ([["kube* get", "allow"]], ("open-program", "policy:1")),
    ],
)
def test_lint_finds(pairs: list, code: tuple) -> None:
    """Each kind of remark, on the rule it is about."""
    assert code in codes(pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [["*", "deny"], ["ls *", "allow"]],
        [["*", "deny"], ["kubectl get *", "allow"], ["kubectl get secret *", "deny"]],
        [["sort -u", "allow"]],
        [["find . -name x", "allow"]],
        [["tar *", "deny"]],
    ],
)
def test_lint_is_silent(pairs: list) -> None:
    """Rules that say what they mean are left alone; escapes that a later deny takes back, too."""
    assert codes(pairs) == []


def test_formatting_keeps_meaning_and_comments() -> None:
    """The fixed form is reached at once, says the same and loses no comment."""
    text = """# head
permission:
  bash: # why
  - {then: allow, match: "ls *"}   # rule
  # before
  - match: 'cat *'
    because: reads
    then: allow
"""
    formatted = format_policy(text, name="p")
    assert load_policy(formatted, name="p").digest == load_policy(text, name="p").digest
    assert format_policy(formatted, name="p") == formatted
    for comment in ("# head", "# why", "# rule", "# before"):
        assert comment in formatted


@pytest.mark.parametrize(
    "text",
    [
        '[["*", "deny"]]',
        '"*": deny\n',
        'permission: {"ls": allow}',
        "permission: {bash: {}}",
        "[]",
        "permission: []",
        "permission: {}",
        "permission: {read: {}}",
    ],
)
def test_every_form_can_be_formatted(text: str) -> None:
    """Short forms become documents that say the same."""
    formatted = format_policy(text, name="p")
    assert load_policy(formatted, name="p").digest == load_policy(text, name="p").digest


def test_a_tab_inside_a_text_is_formatted() -> None:
    """What the loader takes the formatter takes: both scan with the same parser."""
    text = "about: one\ttwo # three\npermission: {bash: {}}\n"
    assert format_policy(text, name="p.yaml") == '# three\nabout: "one\\ttwo"\npermission:\n  bash: []\n'


@pytest.mark.parametrize("char", ["\u200d", "\u2028", "\x85", "\u202e", "\U000e0001", "\n", '"', "\\", "\ue000"])
def test_what_a_screen_does_not_show_is_written_as_an_escape(char: str) -> None:
    """Beside a character beyond the first plane too, as in emoji of families: what is written loads, the same."""
    word = f"\U0001f468{char}\U0001f469 *"
    document = json.dumps({"permission": {"bash": [{"match": word, "then": "deny"}, [f"b{word}", "deny"]]}})
    formatted = format_policy(document, name="p.json")
    assert [rule.match for rule in load_policy(formatted, name="p").rules()] == [word, f"b{word}"]
    short = format_policy(json.dumps({f"a{word}": "deny"}), name="p.json")
    assert [rule.match for rule in load_policy(short, name="p").rules()] == [f"a{word}"]


def test_learning_proposes_the_least() -> None:
    """Exact commands for few, the common beginning for many, nothing for what runs anything."""
    policy = policy_from_pairs([["*", "deny"]])
    asked = [f"kubectl get {kind}" for kind in ("pods", "nodes", "svc")] + ["uptime", "uptime", "python3 x.py", "./x"]
    proposals = {proposal.pattern: proposal for proposal in propose_rules(policy, asked)}
    assert proposals["kubectl get *"].seen == 3
    assert proposals["uptime"].seen == 2
    assert proposals["python3 x.py"].refused_because
    assert proposals["./x"].refused_because
    document = render_proposals(proposals.values())
    accepted = load_policy(document, name="p")
    assert [rule.match for rule in accepted.rules()] == ["kubectl get *", "uptime"]


def test_records_are_read_in_several_shapes() -> None:
    """A line holds the command itself, or a decision that does."""
    lines = "\n".join(json.dumps(line) for line in ({"command": "ls"}, {"decision": {"command": "id"}}, {"x": 1}))
    assert parse_asked(lines, name="a") == ("ls", "id")
    with pytest.raises(PolicyError, match="a:1"):
        parse_asked("nope", name="a")


def test_a_signature_holds_for_this_policy_and_key_only() -> None:
    """Reformatting keeps a signature; another meaning, another key or a flipped bit breaks it."""
    private, public = generate_keys()
    key = parse_public_key(public, name="k")
    other = parse_public_key(generate_keys()[1], name="o")
    policy = policy_from_pairs([["*", "deny"]])
    signature = sign_policy(policy, private, name="k")
    assert verify_policy(load_policy('"*": deny', name="q"), signature, [other, key], name="s")
    with pytest.raises(PolicyError, match="another policy"):
        verify_policy(policy_from_pairs([["*", "allow"]]), signature, [key], name="s")
    with pytest.raises(PolicyError, match="none of"):
        verify_policy(policy, signature, [other], name="s")
    record = json.loads(signature)
    flipped = record["signature"][:-6] + ("A" if record["signature"][-6] != "A" else "B") + record["signature"][-5:]
    with pytest.raises(PolicyError, match="is false"):
        verify_policy(policy, json.dumps({**record, "signature": flipped}), [key], name="s")
    for bad in ("", "{}", "[]", "x" * 5000, json.dumps({**record, "algorithm": "none"})):
        with pytest.raises(PolicyError):
            verify_policy(policy, bad, [key], name="s")
    with pytest.raises(PolicyError, match="no private key"):
        sign_policy(policy, public, name="k")


def test_a_shadow_is_recorded_and_decides_nothing() -> None:
    """The policy in force answers; the other is written down."""
    shadow = policy_from_pairs([["*", "deny"]], name="next")
    decision = decide(replace(policy_from_pairs([["ls", "allow"]]), shadow=shadow), "ls")
    assert decision.verdict is Verdict.ALLOW
    assert decision.as_json()["shadow"] == {
        "policy": {"name": "next", "digest": shadow.digest},
        "verdict": "deny",
        "differs": True,
        "because": "'ls' matches '*' (next:1)",
        "rule": "'*' (next:1)",
    }
    assert "shadow" not in decide(policy_from_pairs([["ls", "allow"]]), "ls").as_json()


def test_case_files_become_junit() -> None:
    """A failure is told with what was promised and what came, in XML that any reader takes."""
    cases = parse_cases('{"command": "ls\\u0001", "must": "allow"}\n# c\n{"command": "id", "must": "deny"}\n', name="c")
    results = list(run_cases(policy_from_pairs([["*", "deny"]]), cases))
    tree = ET.fromstring(render_junit("p<&>", results))
    assert (tree.get("tests"), tree.get("failures")) == ("2", "1")
    with pytest.raises(PolicyError, match="c:1"):
        parse_cases('{"command": "ls"}', name="c")
