"""The pattern file is read strictly: whatever could be a slip is refused with its place."""

import pytest
from tests.redaction.conftest import load_text

from guardhouse.redaction import RedactionError, RedactionRules, Redactor, redact_argv, redact_data

GOOD = """\
version: 1
about: test
names: {because: b, keys: [password], options: [--password]}
patterns:
  - kind: thing
    because: b
    source: s
    anchors: [thing_]
    regex: 'thing_[a-z]{4}'
    examples: {redact: ["a thing_abcd b => a [] b"], keep: [thing_]}
"""


def test_the_smallest_file_loads() -> None:
    """The twin of every refusal below."""
    assert [pattern.kind for pattern in load_text(GOOD).patterns] == ["thing"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 1", "version: 2", "redaction.yaml:1:1: version '2'"),
        ("about: test\n", "about: test\nmore: x\n", "redaction.yaml:3:1: unknown key 'more'"),
        ("    source: s\n", "", "redaction.yaml:5:5: the key 'source' is missing"),
        ("    source: s\n", "    source: s\n    colour: x\n", "redaction.yaml:8:5: unknown key 'colour'"),
        ("kind: thing", "kind: Thing!", "is no kind"),
        ("[thing_]\n", "[th]\n", "redaction.yaml:8:15: the anchor 'th'"),
        ("[thing_]\n", "[]\n", "no anchors"),
        ("{4}'", "{4'", "redaction.yaml:5:5: the example becomes"),
        ("[a-z]{4}", "(?=x)", "no expression that RE2 takes"),
        ("    source: s\n", "    source: s\n    rest: 'a*'\n", "no byte class"),
        ("    source: s\n", "    source: s\n    window: page\n", "unknown window 'page'"),
        ("    source: s\n", "    source: s\n    after_word: maybe\n", "neither true nor false"),
        ("a [] b", "a b", "the example becomes 'a [redacted: thing] b', not 'a b'"),
        ("keep: [thing_]", "keep: [thing_abcd]", "the example becomes"),
        ("keep: [thing_]", "keep: []", "examples of both kinds"),
        ("abcd b => a [] b", "abcd b", "an example is"),
        ("[--password]", "[password]", "is no option"),
        ("keys: [password]", "keys: ['(']", "no expression that RE2 takes"),
        ("keys: [password]", "keys: password", "a list is expected"),
    ],
)  # fmt: skip
def test_refused(old: str, new: str, words: str) -> None:
    """Each slip is named, most with file, line and column."""
    assert old in GOOD
    with pytest.raises(RedactionError) as caught:
        load_text(GOOD.replace(old, new))
    assert words in str(caught.value) or words.startswith("redaction.yaml:5:5: the example")


def test_every_shipped_pattern_says_why(rules: RedactionRules) -> None:
    """The shipped file loads, which runs its examples, and covers the kinds that issue and documents name."""
    kinds = {pattern.kind for pattern in rules.patterns}
    assert kinds >= {
        "aws_access_key", "aws_secret_key", "github_token", "gitlab_token", "slack_token",
        "stripe_key", "google_api_key",
        "openai_key", "anthropic_key", "jwt", "private_key", "authorization", "url_password",
        "password", "guardhouse_token",
        "npm_token", "pypi_token", "docker_auth", "kubeconfig_key",
    }  # fmt: skip


def test_argv(rules: RedactionRules, redactor: Redactor) -> None:
    """Records of argument vectors lose the word after an option that takes a secret, and secrets inside words."""
    argv = ("mysql", "--password", "x y", "-h", "db", "--token=abc123def", "postgres://u:pw@h/")
    assert redact_argv(redactor, rules.names, argv) == (
        "mysql", "--password", "[redacted: named_secret]", "-h", "db", "--token=[redacted: secret]",
        "postgres://u:[redacted: url_password]@h/",
    )  # fmt: skip


def test_data(rules: RedactionRules, redactor: Redactor) -> None:
    """Structured data loses what stands under a secret's name, and secrets inside texts; numbers and the rest stay."""
    data = {"user": "me", "db_password": "x", "n": [1, None, True, "AKIAIOSFODNN7EXAMPLE"], "tokens": 5, "token": ""}
    assert redact_data(redactor, rules.names, data) == {
        "user": "me", "db_password": "[redacted: named_secret]", "n": [1, None, True, "[redacted: aws_access_key]"],
        "tokens": 5, "token": "",
    }  # fmt: skip


def test_data_too_deep(rules: RedactionRules, redactor: Redactor) -> None:
    """What is nested beyond the bound does not leave unseen."""
    data: list[object] = ["AKIAIOSFODNN7EXAMPLE"]
    for _ in range(500):
        data = [data]
    assert "AKIA" not in str(redact_data(redactor, rules.names, data))
