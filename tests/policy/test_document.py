"""A policy document says exactly one thing, or is refused with file, line and column."""

import pytest

from guardhouse.policy import PolicyError, dump_policy, load_policy, policy_from_pairs, restore_policy
from guardhouse.values import Verdict

SEED = 'permission:\n  bash:\n    "*": deny\n    "kubectl get *": allow\n'


def test_the_seeds_form_keeps_its_order() -> None:
    """Rules stand in written order, with their places."""
    policy = load_policy(SEED, name="policy.yaml")
    assert [(rule.match, rule.action, rule.place) for rule in policy.rules()] == [
        ("*", Verdict.DENY, "policy.yaml:3:5"),
        ("kubectl get *", Verdict.ALLOW, "policy.yaml:4:5"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('[["*", "deny"], ["kubectl get *", "allow"]]', id="JSON pairs"),
        pytest.param('{"permission": {"bash": {"*": "deny", "kubectl get *": "allow"}}}', id="JSON document"),
        pytest.param('"*": deny\n"kubectl get *": allow\n', id="bare mapping"),
        pytest.param('permission:\n  "*": deny\n  kubectl get *: allow\n', id="permission is the mapping"),
        pytest.param(
            'permission:\n  bash:\n  - {match: "*", then: deny}\n  - [kubectl get *, allow]\n', id="list of rules"
        ),
    ],
)
def test_every_form_says_the_same(text: str) -> None:
    """The digest covers what a document says, not how it is written."""
    assert load_policy(text, name="a").digest == load_policy(SEED, name="b").digest


@pytest.mark.parametrize("word", ["no", "on", "yes", "off", "null", "~", "1.10", "0x10", "2024-01-01"])
def test_scalars_stay_text(word: str) -> None:
    """YAML's guesses about words never change a pattern."""
    assert load_policy(f"permission: {{bash: {{{word}: allow}}}}", name="p").rules()[0].match == word


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: the document is empty"),
        ("# only a comment\n", "f.yaml: the document is empty"),
        ("permission:\n", "f.yaml:1:12: 'permission' is empty"),
        ("permission: {bash: }", "must hold rules"),
        ('permission: {bash: {"*": allow, "*": deny}}', "f.yaml:1:33: the key '*' stands here a second time"),
        ('permission: {bash: {"*": allowed}}', "'allowed' is no action"),
        ('permission: {bash: {"*": yes}}', "'yes' is no action"),
        ('permission: {shell: {"*": deny}}', "unknown operation 'shell'"),
        ("permission: {bash: allow}", "may be the operation or a command"),
        ("permisson: {bash: {}}", "unknown key 'permisson'"),
        ("a: &x 1\n", "anchor"),
        ("a: *x\n", "f.yaml"),
        ("permission: {bash: {'*': !!str deny}}", "tag"),
        ("permission: {bash: {}}\n---\npermission: {bash: {}}\n", "second YAML document"),
        ("permission: {<<: {bash: {}}}", "merge key"),
        ("permission: {bash: {'': deny}}", "the pattern is empty"),
        ("permission: {bash: {'a\\': deny}}", "lone backslash"),
        ("permission: [", "not YAML"),
        ("just text", "one piece of text"),
        ("include: [x.yaml]", "'include' is not possible here"),
        ("permission:\n  bash:\n  - {then: allow}\n", "either 'match' or 'argv'"),
        ("permission:\n  bash:\n  - {match: x}\n", "has no 'then'"),
        ("permission:\n  bash:\n  - {match: x, then: allow, because: a, why: b}\n", "unknown key 'why'"),
        ("permission:\n  read:\n  - {match: x, then: allow, children: inherit}\n", "belongs to rules of 'bash'"),
        ("permission:\n  bash:\n  - {argv: {program: x, flags: [x]}, then: allow}\n", "is no option"),
        ("permission:\n  bash:\n  - {argv: {program: x, flags: [-n], options: [-n]}, then: allow}\n", "stands twice"),
        ("permission:\n  bash:\n  - {match: x, then: allow, when: {hours: '9-17'}}\n", "are no hours"),
        ("permission:\n  bash:\n  - {match: x, then: allow, timeout: soon}\n", "is no time"),
        ("permission: {mcp: {github: allow}}", "is not 'server/tool'"),
        ("permission: {read: {'/a/../b': allow}}", "can never match"),
        ("version: 2\npermission: {bash: {}}", "only 'version: 1'"),
        ("path: [bin]\npermission: {bash: {}}", "no absolute directory"),
        ("permission: {bash: {a: deny}}\0", "NUL"),
    ],
)
def test_what_cannot_be_kept_is_refused(text: str, message: str) -> None:
    """Nothing is guessed, skipped or repaired."""
    with pytest.raises(PolicyError) as caught:
        load_policy(text, name="f.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.yaml")


def test_a_bomb_of_aliases_is_refused() -> None:
    """Aliases are refused before anything is multiplied."""
    text = "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
    with pytest.raises(PolicyError, match="anchor"):
        load_policy(text, name="f.yaml")


def test_depth_is_bounded() -> None:
    """A document cannot nest without bound."""
    with pytest.raises(PolicyError, match=r"levels deep|not YAML"):
        load_policy("permission: " + "[" * 500 + "]" * 500, name="f.yaml")


def test_an_example_that_does_not_hold_refuses_the_policy() -> None:
    """A rule's promise is kept or the policy is not taken."""
    text = "permission:\n  bash:\n  - {match: ls, then: allow, examples: {allow: [ls -l]}}\n"
    with pytest.raises(PolicyError, match=r"f\.yaml:3:5: example: 'ls -l' must be allow, is deny"):
        load_policy(text, name="f.yaml")
    load_policy(text.replace("ls -l", "ls"), name="f.yaml")


def test_includes_stand_before_the_document_that_names_them() -> None:
    """Included rules come first, so the including document's rules win."""
    files = {"base.yaml": '{"*": deny, "ls *": allow}'}
    policy = load_policy(
        "include: [base.yaml]\npermission: {bash: {ls *: ask}}", name="p.yaml", includes=files.__getitem__
    )
    assert [(rule.match, rule.place.partition(":")[0]) for rule in policy.rules()] == [
        ("*", "base.yaml"),
        ("ls *", "base.yaml"),
        ("ls *", "p.yaml"),
    ]


def test_a_document_cannot_include_itself() -> None:
    """A circle of includes is named, not followed."""
    with pytest.raises(PolicyError, match="includes itself"):
        load_policy("include: [a]", name="p", includes=lambda _: "include: [a]")


@pytest.mark.parametrize(
    "pairs", [[["*"]], [["*", "deny", "x"]], ["ab"], [[1, "deny"]], [["*", "nope"]], [["", "deny"]]]
)
def test_pairs_are_checked(pairs: list) -> None:
    """A list that is no list of pairs is refused with the item's number."""
    with pytest.raises(PolicyError, match="policy:1"):
        policy_from_pairs(pairs)


def test_a_dumped_policy_is_restored_whole() -> None:
    """Another process gets the same digest, rules and places."""
    policy = load_policy(SEED, name="p.yaml")
    restored = restore_policy(dump_policy(policy))
    assert restored.digest == policy.digest
    assert [rule.place for rule in restored.rules()] == [rule.place for rule in policy.rules()]
    with pytest.raises(PolicyError):
        restore_policy({"name": "x"})
