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
        ("permission: {bash: {a: deny}}\0", "f.yaml:1:30: a NUL character"),
        # A count and a time are plain digits of a bounded length.
        (
            f"permission:\n  bash:\n  - {{argv: {{program: x, operands: any, at_most: {'9' * 5000}}}, then: allow}}",
            "'at_most'",
        ),
        ("permission:\n  bash:\n  - {match: x, then: allow, timeout: \u0663s}", "is no time"),
        ("permission:\n  bash:\n  - {match: x, then: allow, when: {hours: '0\u0668:00-18:00'}}", "are no hours"),
        # What YAML takes for the end of a line and a screen does not: a rule behind a comment that nobody sees.
        ("a: deny # safe\r* : allow\n", "f.yaml:1:15: a carriage return"),
        ("a: deny # safe\u2028b: allow\n", "f.yaml:1:15: a character that a screen may not show"),
        ("a: deny # safe\x85b: allow\n", "(U+0085)"),
        ("a: deny\nb\u202ec: deny\n", "f.yaml:2:2: a character that a screen may not show"),
        ("a: deny\n'b\x01': deny\n", "f.yaml:2:3: a character"),
        # What people most often have written where YAML gives up.
        ("permission:\n  bash:\n    *: deny\n", "f.yaml:3:6: not YAML"),
        ("permission:\n  bash:\n    * ls: deny\n", "begins with * stands in quotes"),
        ("permission:\n  bash:\n    !ls: deny\n", "begins with ! stands in quotes"),
        ("permission:\n\tbash: {}\n", "indented by a tab"),
        ("permission:\n  bash:\n    a b: c: deny\n", "a colon and a blank stands in quotes"),
        ("permission:\n  bash:\n<<<<<<< HEAD\n    a: deny\n", "an unfinished merge"),
        (f'permission:\n  bash:\n    "{"a" * 2000}": deny\n', "a key has at most 1,024 characters"),
        ("permission:\n  bash:\n    %a: deny\n", "stands in quotes"),
        ("permission: {webfetch: {'https://[::1/*': deny}}", "no IPv6 address"),
        ("permission: {webfetch: {'http://2130706433/*': deny}}", "can never match"),
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


def test_an_included_file_names_others_from_where_it_stands() -> None:
    """A name in an included file is relative to that file; places say where each rule stands."""
    files = {
        "team/web.yaml": "include: [base.yaml, ../all.yaml, /etc/host.yaml]\npermission: {bash: {b: deny}}",
        "team/base.yaml": "{a: deny}",
        "team/../all.yaml": "{c: deny}",
        "/etc/host.yaml": "include: [more.yaml]",
        "/etc/more.yaml": "{d: deny}",
    }
    policy = load_policy("include: [team/web.yaml]", name="p.yaml", includes=files.__getitem__)
    assert [rule.place for rule in policy.rules()] == [
        "team/base.yaml:1:2", "team/../all.yaml:1:2", "/etc/more.yaml:1:2", "team/web.yaml:2:21",
    ]  # fmt: skip


def test_json_may_write_a_character_as_a_pair() -> None:
    """The two halves that JSON writes are the one character; in YAML's single quotes a backslash is one."""
    assert load_policy('[["\\ud83d\\ude00 *", "deny"]]', name="p").rules()[0].match == "\U0001f600 *"
    assert load_policy("[['\\ud83d\\ude00', deny]]", name="p").rules()[0].match == "\\ud83d\\ude00"


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
