"""A later rule holds for the same deed in other words: paths spelled otherwise, one operand among many."""

import pytest

from guardhouse.policy import decide, policy_from_pairs
from guardhouse.policy.exec_decision import decide_exec
from guardhouse.policy.shell import read_command
from guardhouse.values import Verdict

# The first two are the rules of the seed's own example.
ROOT = [["*", "allow"], ["rm -rf /", "deny"]]
SHADOW = [["*", "allow"], ["cat /etc/shadow", "deny"]]
DATA = [["*", "allow"], ["rm -rf data", "ask"]]


def verdicts(rules: list, text: str) -> tuple[Verdict, Verdict]:
    policy = policy_from_pairs(rules)
    argv = read_command(text).commands[0].argv
    assert argv is not None
    found = decide_exec(policy, argv, path=f"/usr/bin/{argv[0]}", names=(argv[0],))
    return decide(policy, text).verdict, found.verdict


@pytest.mark.parametrize(
    ("rules", "text", "verdict"),
    [
        pytest.param(ROOT, "rm -rf //", Verdict.DENY, id="doubled slash"),
        pytest.param(ROOT, "rm -rf /.", Verdict.DENY, id="dot"),
        pytest.param(ROOT, "rm -rf /./", Verdict.DENY, id="dot and slash"),
        pytest.param(ROOT, "rm -rf /tmp/../", Verdict.DENY, id="dots and slash"),
        pytest.param(ROOT, "rm -rf build /", Verdict.DENY, id="behind another operand"),
        pytest.param(ROOT, "rm -rf / build", Verdict.DENY, id="in front of another operand"),
        pytest.param(ROOT, "rm -rf / /", Verdict.DENY, id="twice"),
        pytest.param(SHADOW, "cat /etc/hosts /etc/shadow", Verdict.DENY, id="one file among others"),
        pytest.param(SHADOW, "cat -n /etc//shadow /etc/hosts", Verdict.DENY, id="with an option"),
        pytest.param(DATA, "rm -rf data/", Verdict.ASK, id="a slash at the end"),
        pytest.param(DATA, "rm -rf ./data", Verdict.ASK, id="from here"),
        pytest.param(DATA, "rm -rf build data", Verdict.ASK, id="asked about among others"),
    ],
)
def test_plainer_words_are_judged_too(rules: list, text: str, verdict: Verdict) -> None:
    """Both gates give the verdict of the rule that names the deed plainly."""
    assert verdicts(rules, text) == (verdict, verdict)


def test_many_operands_are_no_hiding_place() -> None:
    """Those that no rule could name cost nothing; where too many could be named, the command is refused."""
    many = " ".join(f"f{number}" for number in range(9_000))
    assert verdicts(SHADOW, f"cat {many}") == (Verdict.ALLOW, Verdict.ALLOW)
    assert verdicts(SHADOW, f"cat {many} /etc/shadow") == (Verdict.DENY, Verdict.DENY)
    assert verdicts([["*", "allow"], ["cat f?x", "deny"]], f"cat {many}") == (Verdict.UNDECIDED, Verdict.DENY)
    assert verdicts([["*", "allow"], ["rm -rf *", "deny"]], f"rm {many}") == (Verdict.ALLOW, Verdict.ALLOW)


@pytest.mark.parametrize("text", ["rm -r -f //", "rm -fr x /", "rm --recursive --force /."])
def test_other_options_and_other_paths_together(text: str) -> None:
    """Gate one leaves to gate two what needs both readings, and gate two refuses."""
    assert verdicts(ROOT, text) == (Verdict.UNDECIDED, Verdict.DENY)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        pytest.param(ROOT, "rm -rf build dist/", id="other files"),
        pytest.param(ROOT, "rm -rf /srv//old/.", id="another directory in odd words"),
        pytest.param(SHADOW, "cat /etc/hosts /etc/passwd", id="other files are read"),
        pytest.param(SHADOW, "echo /etc/shadow a", id="another program"),
        pytest.param([["cat /etc/shadow", "deny"], ["cat *", "allow"]], "cat a /etc//shadow", id="allowed later"),
        pytest.param([["*", "deny"], ["curl http://a/*", "allow"]], "curl http://a//b/./", id="a URL is no path"),
    ],
)
def test_what_no_later_rule_names_stays_allowed(rules: list, text: str) -> None:
    """The twin: what the rules allow and nothing behind them denies."""
    assert verdicts(rules, text) == (Verdict.ALLOW, Verdict.ALLOW)
