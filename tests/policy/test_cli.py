"""`guardhouse policy`: exit statuses and what stands on standard output."""

import json

import pytest
from click.testing import CliRunner

from guardhouse.cli.policy import policy
from guardhouse.errors import SetupError

SEED = 'permission: {bash: {"*": deny, "kubectl get *": allow}}\n'


def run(*arguments: str, stdin: str = ""):
    return CliRunner().invoke(policy, list(arguments), input=stdin)


@pytest.fixture
def seed(tmp_path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(SEED)
    return str(path)


@pytest.mark.parametrize(("text", "status"), [("kubectl get pods", 0), ("id", 126), ("kubectl $x", 1), ("", 126)])
def test_explain_status(seed: str, text: str, status: int) -> None:
    """0 allowed, 126 denied, 1 neither."""
    assert run("explain", "--policy", seed, "--", text).exit_code == status
    answer = json.loads(run("explain", "--policy", seed, "--json", "--", text).output)
    assert set(answer) >= {"verdict", "commands"}


def test_explain_batch_answers_every_line() -> None:
    """Good lines get a verdict, bad ones an error; the status says whether all were good."""
    lines = [
        {"id": 1, "policy": [["*", "deny"], ["ls", "allow"]], "command": "ls"},
        {"id": 2, "policy": SEED, "command": "id"},
        {"id": 3, "command": "df -h"},
        {"id": 4, "policy": {"*": "allow"}, "command": "$x"},
        {"id": 5, "policy": {"*": "nope"}, "command": "x"},
        {"id": 6},
    ]
    result = run("explain", "--batch", stdin="".join(json.dumps(line) + "\n" for line in lines) + "not json\n")
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert [answer.get("verdict") for answer in answers] == ["allow", "deny", "allow", "allow", None, None, None]
    assert all("error" in answer for answer in answers[4:])
    assert result.exit_code == 1


PAIRS = [["*", "deny"], ["ls *", "allow"]]
RULES = {"*": "deny", "ls *": "allow"}


@pytest.mark.parametrize(
    "policy",
    [PAIRS, RULES, {"bash": RULES}, {"permission": RULES}, {"permission": {"bash": RULES}}, {"bash": PAIRS},
     "read_only",
     [{"match": "*", "then": "deny"}, {"match": "ls *", "then": "allow"}],
     "permission:\n  bash:\n    '*': deny\n    ls *: allow\n", "'*': deny\nls *: allow", json.dumps(RULES)],
)  # fmt: skip
def test_explain_batch_takes_every_form_of_a_policy(policy: object) -> None:
    """A document as JSON or text, pairs, a section alone, and a shipped name say the same."""
    lines = [{"id": text, "policy": policy, "command": text} for text in ("ls -l", "rm x", "ls; rm x")]
    result = run("explain", "--batch", stdin="\n".join(map(json.dumps, lines)))
    assert [json.loads(line)["verdict"] for line in result.output.splitlines()] == ["allow", "deny", "deny"]
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "policy", [{}, [], {"bash": {}}, {"bash": []}, {"permission": {}}, {"permission": {"bash": {}}}]
)
def test_explain_batch_without_rules(policy: object) -> None:
    """No rules deny everything."""
    result = run("explain", "--batch", stdin=json.dumps({"policy": policy, "command": "ls"}))
    assert json.loads(result.output)["verdict"] == "deny"


def test_explain_batch_is_never_stopped_by_a_line() -> None:
    """Whatever a line holds, it is answered by one line, and the last one gets its verdict."""
    bad = [
        b"[]", b"7", b"{", b'{"command": 7}', b'{"command": "\xff"}', b'{"policy": 7, "command": "ls"}',
        b'{"policy": true, "command": "ls"}', b'{"policy": "", "command": "ls"}',
        b'{"policy": "none", "command": "ls"}', b'{"policy": "/none.yaml", "command": "ls"}',
        b'{"policy": [["ls"]], "command": "ls"}',
        b'{"policy": {"*": "deny", "*": "allow"}, "command": "ls"}', b'{"policy": {"more": 1}, "command": "ls"}',
        b'{"policy": ' + b"[" * 50_000 + b"]" * 50_000 + b', "command": "ls"}',
    ]  # fmt: skip
    fine = [b'{"command": "\\ud800"}', b'{"command": ""}', b'{"command": "a\\u0000"}', b'{"command": "ls", "more": 1}']
    result = CliRunner().invoke(policy, ["explain", "--batch"], input=b"\n".join([*bad, b"", *fine]))
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert ["error" in answer for answer in answers] == [True] * len(bad) + [False] * len(fine)
    assert answers[-1]["verdict"] == "allow"
    assert result.exit_code == 1


def test_terminal_escapes_are_shown_not_sent(seed: str) -> None:
    """A command cannot move the reader's cursor."""
    assert "\x1b" not in run("explain", "--policy", seed, "--", "echo '\x1b[2J' \x07").output


def test_check(seed: str, tmp_path) -> None:
    """A good document gives its digest; a bad one its place."""
    assert "sha256" in run("check", seed).output
    bad = tmp_path / "bad.yaml"
    bad.write_text("permission: {bash: {x: maybe}}")
    result = run("check", str(bad), "--json")
    assert result.exit_code == 125
    assert json.loads(result.output)["place"].endswith("bad.yaml:1:24")
    assert isinstance(run("check", str(bad)).exception, SetupError)
    assert isinstance(run("check", str(tmp_path / "none.yaml")).exception, SetupError)
    bad.write_text("permission: {bash: {}}\ninclude: [none.yaml]\n")
    assert json.loads(run("check", str(bad), "--json").output)["place"].endswith("bad.yaml:2:10")


def test_test_runs_examples_and_case_files(seed: str, tmp_path) -> None:
    """1 when a case does not come out as written; JUnit beside it."""
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"command": "kubectl get x", "must": "allow"}\n{"command": "id", "must": "allow"}\n')
    junit = tmp_path / "out.xml"
    result = run("test", seed, str(cases), "--junit", str(junit))
    assert result.exit_code == 1
    assert "2 cases, 1 failed" in result.output
    assert 'failures="1"' in junit.read_text()
    assert run("test", "read_only").exit_code == 0


def test_diff_says_whether_it_widens(seed: str, tmp_path) -> None:
    """0 nothing more, 1 something more, with a witness."""
    wider = tmp_path / "wider.yaml"
    wider.write_text(SEED.replace("get *", "*"))
    result = run("diff", seed, str(wider))
    assert result.exit_code == 1
    assert "for example: kubectl" in result.output
    assert run("diff", str(wider), seed).exit_code == 0
    assert json.loads(run("diff", seed, seed, "--json").output) == {"widens": False, "differences": []}


def test_lint_status(seed: str, tmp_path) -> None:
    """Notes alone are clean unless asked to be strict."""
    assert run("lint", seed).exit_code == 0
    assert run("lint", seed, "--strict").exit_code == 1


def test_fmt_writes_and_checks(seed: str) -> None:
    """--check changes nothing; after a run it is content."""
    assert run("fmt", "--check", seed).exit_code == 1
    assert run("fmt", seed).exit_code == 0
    assert run("fmt", "--check", seed).exit_code == 0


def test_sign_and_verify(seed: str, tmp_path) -> None:
    """A signature made here is accepted here, until the policy changes."""
    key = str(tmp_path / "key")
    assert run("keygen", key).exit_code == 0
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    assert isinstance(run("keygen", key).exception, SetupError)
    assert run("sign", seed, "--key", key).exit_code == 0
    assert run("verify", seed, "--key", key + ".pub").exit_code == 0
    with open(seed, "a") as file:
        file.write("# a comment changes nothing\n")
    assert run("verify", seed, "--key", key + ".pub").exit_code == 0
    with open(seed, "w") as file:
        file.write(SEED.replace("get", "*"))
    assert isinstance(run("verify", seed, "--key", key + ".pub").exception, SetupError)


def test_learn_prints_a_document(seed: str, tmp_path) -> None:
    """What is proposed can be loaded as it is."""
    records = tmp_path / "audit.jsonl"
    records.write_text('{"command": "uptime"}\n')
    assert 'match: "uptime"' in run("learn", str(records), "--policy", seed).output
