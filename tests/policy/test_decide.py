"""What gate one says of a text under a policy."""

import pytest

from guardhouse.policy import Context, decide, load_policy, policy_from_pairs
from guardhouse.values import Verdict

ALLOW, DENY, ASK, UNDECIDED = Verdict.ALLOW, Verdict.DENY, Verdict.ASK, Verdict.UNDECIDED
KUBECTL = [["*", "deny"], ["kubectl get *", "allow"], ["ls *", "allow"]]
NO_RM = [["*", "allow"], ["rm -rf *", "deny"]]


@pytest.mark.parametrize(
    ("pairs", "command", "verdict"),
    [
        pytest.param(KUBECTL, "kubectl get pods", ALLOW, id="plain match"),
        pytest.param(KUBECTL, "kubectl get", ALLOW, id="a trailing star also matches nothing"),
        pytest.param(KUBECTL, "kubectl getx", DENY, id="but only behind a blank"),
        pytest.param(KUBECTL, "kubectl get pods; id", DENY, id="one denied part denies the whole"),
        pytest.param(KUBECTL, "kubectl get $(id)", DENY, id="a substitution is a command too"),
        pytest.param(KUBECTL, "kubectl 'get pods'", DENY, id="one word with a blank is not two words"),
        pytest.param(KUBECTL, "'kubectl get' pods", DENY, id="nor as the program"),
        pytest.param(KUBECTL, "/usr/bin/kubectl get pods", ALLOW, id="a trusted path is the name"),
        pytest.param(KUBECTL, "/opt/kubectl get pods", DENY, id="another path is not"),
        pytest.param(KUBECTL, "./ls", DENY, id="a relative path is never the name"),
        pytest.param(KUBECTL, "ls $x", ALLOW, id="an unknown word that changes nothing"),
        pytest.param(KUBECTL, "kubectl $x", UNDECIDED, id="an unknown word that could"),
        pytest.param(KUBECTL, "kubectl delete $x", DENY, id="an unknown word behind a denied one"),
        pytest.param(KUBECTL, "$x", UNDECIDED, id="an unknown program"),
        pytest.param(KUBECTL, "", DENY, id="empty"),
        pytest.param(KUBECTL, "# nothing", DENY, id="only a comment"),
        pytest.param(KUBECTL, "[[ -f x ]]", ALLOW, id="a test alone starts nothing, as before &&"),
        pytest.param(KUBECTL, "((1 > 0))", ALLOW, id="nor does arithmetic"),
        pytest.param([["*", "deny"]], "[[ -f x ]]", DENY, id="where everything is denied, so is a test"),
        pytest.param(KUBECTL, "ls\0; id", DENY, id="a NUL"),
        pytest.param(KUBECTL, "id; a'${'b $((", DENY, id="a denied command beside text that cannot be read"),
        pytest.param(NO_RM, 'r"m" -rf /', DENY, id="quotes are no disguise"),
        pytest.param(NO_RM, "/bin/rm -rf /", DENY, id="nor is a trusted path"),
        pytest.param(NO_RM, "rm -r -f /", UNDECIDED, id="options in another order"),
        pytest.param(NO_RM, "$x foo", UNDECIDED, id="an unknown program may be the denied one"),
        pytest.param(NO_RM, "./rm -rf x", UNDECIDED, id="a path may be a link to the denied one"),
        pytest.param(NO_RM, "ls -l", ALLOW, id="a program known to start nothing"),
        pytest.param(NO_RM, "python3 x.py", UNDECIDED, id="an interpreter"),
        pytest.param([["*", "allow"]], "$x; eval \"$y\" a'${'", ALLOW, id="everything is allowed"),
        pytest.param([["*", "deny"]], "$x", DENY, id="everything is denied"),
        pytest.param([], "true", DENY, id="no rules at all"),
        pytest.param([["*", "ask"]], "ls", ASK, id="ask"),
        pytest.param([["*", "ask"], ["rm *", "deny"]], "ls; rm x", DENY, id="deny before ask"),
        pytest.param([["*", "ask"], ["ls *", "allow"]], "ls; id", ASK, id="ask before allow"),
        pytest.param([["ls *", "deny"], ["ls *", "allow"]], "ls", ALLOW, id="the last match wins"),
        pytest.param([["ls ?", "allow"]], "ls ab", DENY, id="a question mark is one character"),
        pytest.param([["ls \\*", "allow"]], "ls '*'", ALLOW, id="an escaped star is a star"),
        pytest.param([["ls \\*", "allow"]], "ls x", DENY, id="and nothing else"),
        pytest.param([["echo a*b", "allow"]], "echo 'a\n/ b'", ALLOW, id="a star crosses newlines, slashes, blanks"),
        pytest.param([["a\\ b *", "allow"]], "'a b' c", ALLOW, id="an escaped blank is inside a word"),
        pytest.param(
            [["cat logs/*", "allow"]], "cat logs/../x", UNDECIDED, id="dots must be allowed as what they mean"
        ),
        pytest.param([["cat logs/*", "allow"]], 'cat "logs/$x"', UNDECIDED, id="also where they may be hidden"),
        pytest.param([["cat *", "allow"]], 'cat "logs/$x"', ALLOW, id="where any file may be read they may not matter"),
        pytest.param(
            [["*", "allow"], ["cat /etc/shadow", "deny"]], "cat /etc/../etc/shadow", DENY, id="dots are no disguise"
        ),
        pytest.param([["* -x", "allow"]], "ls -x", ALLOW, id="an open program that is known"),
        pytest.param([["ls", "allow"]], "ls > out", ALLOW, id="a write inside"),
        pytest.param([["ls", "allow"]], "ls > /etc/motd", UNDECIDED, id="a write outside is the wall's"),
        pytest.param([["ls", "allow"]], "> out", DENY, id="a redirection alone is named by no rule"),
        pytest.param([["ls", "allow"]], "LD_PRELOAD=./x ls", DENY, id="a loaded library is named by no rule"),
        pytest.param([["ls", "allow"]], "export A=1", UNDECIDED, id="an exported name that may matter"),
        pytest.param([["ls", "allow"]], "x=1; ls", ALLOW, id="an assignment"),
        pytest.param([["ls", "allow"]], "f() { ls; }; f", ALLOW, id="a function of the text"),
        pytest.param([["ls", "allow"]], "f() { id; }; f", DENY, id="is judged by its body"),
        pytest.param([["ls", "allow"]], "ls || exit 1", ALLOW, id="words that only steer the shell"),
    ],
)
def test_verdict(pairs: list, command: str, verdict: Verdict) -> None:
    """Every simple command inside the text must be allowed for the text to run."""
    decision = decide(policy_from_pairs(pairs), command)
    assert decision.verdict is verdict, decision.because


def test_a_refusal_names_rule_place_and_next_step() -> None:
    """The message is enough to act on."""
    policy = load_policy('permission: {bash: {"*": allow, "rm *": deny}}', name="p.yaml")
    error = decide(policy, "rm x").refusal()
    assert str(error).startswith("command denied: ")
    assert "'rm *' (p.yaml:1:33)" in str(error)
    assert "guardhouse policy explain" in str(error)


def test_json_has_the_published_shape() -> None:
    """Harnesses read these keys."""
    answer = decide(policy_from_pairs(KUBECTL), "ls -l      $x; $y").as_json()
    assert answer["verdict"] == "undecided"
    first, second = answer["commands"]
    assert first["argv"] is None
    assert first["rule"] == "ls *"
    assert first["place"] == "policy:3"
    assert first["span"] == [0, 13]
    assert first["undecided_because"] is None
    assert second["undecided_because"]


def test_a_rule_about_hours_needs_to_know_the_time() -> None:
    """What is not known never helps to allow, and never hinders a denial."""
    from datetime import UTC, datetime

    text = """
permission:
  bash:
    - {match: ls, then: allow, when: {hours: "22:00-06:00", days: [mon]}}
"""
    policy = load_policy(text, name="p")
    monday_night = datetime(2024, 1, 1, 23, 0, tzinfo=UTC)
    tuesday_early = datetime(2024, 1, 2, 5, 59, tzinfo=UTC)
    assert decide(policy, "ls").verdict is DENY
    assert decide(policy, "ls", context=Context(now=monday_night)).verdict is ALLOW
    assert decide(policy, "ls", context=Context(now=tuesday_early)).verdict is ALLOW
    assert decide(policy, "ls", context=Context(now=datetime(2024, 1, 2, 6, 0, tzinfo=UTC))).verdict is DENY
    denying = load_policy(text.replace("then: allow", "then: deny") + "    - {match: id, then: allow}\n", name="p")
    assert decide(denying, "ls").verdict is DENY


def test_conditions_on_tags_and_requester() -> None:
    """All tags must be there; one of the requesters must match."""
    text = "permission: {bash: [{match: ls, then: allow, when: {environment: [staging], requester: ['a*']}}]}"
    policy = load_policy(text, name="p")
    assert decide(policy, "ls", context=Context(frozenset({"staging", "x"}), "ann")).verdict is ALLOW
    assert decide(policy, "ls", context=Context(frozenset({"x"}), "ann")).verdict is DENY
    assert decide(policy, "ls", context=Context(frozenset({"staging"}), "bob")).verdict is DENY


def test_the_narrowest_profile_and_shortest_time_hold() -> None:
    """A rule may only make the wall stricter."""
    text = """
permission:
  bash:
    - {match: ls, then: allow, profile: operate, timeout: 1m}
    - {match: id, then: allow, profile: isolate, timeout: 5s}
    - {match: w, then: allow, profile: mine}
"""
    policy = load_policy(text, name="p")
    both = decide(policy, "ls; id")
    assert (both.profile, both.timeout_s) == ("isolate", 5.0)
    assert decide(policy, "ls; w").verdict is DENY


def test_inherit_accepts_what_a_program_starts() -> None:
    """A rule may answer for a program's helpers."""
    text = "permission: {bash: [{match: git status *, then: allow, children: inherit}]}"
    assert decide(load_policy(text, name="p"), "git status").verdict is ALLOW
    assert decide(policy_from_pairs([["git status *", "allow"]]), "git status").verdict is UNDECIDED


def test_write_and_read_rules_judge_redirections() -> None:
    """With rules for files, gate one judges what the shell itself opens."""
    text = 'permission: {bash: {"ls *": allow}, write: {"*": deny, "out/**": allow}, read: {"/etc/**": deny}}'
    policy = load_policy(text, name="p")
    assert decide(policy, "ls > out/x").verdict is ALLOW
    assert decide(policy, "ls > out/../x").verdict is DENY
    assert decide(policy, "ls > /dev/null").verdict is ALLOW
    assert decide(policy, "ls < /etc/passwd").verdict is DENY
    assert decide(policy, 'ls > "$x"').verdict is UNDECIDED


def test_a_variable_rule_accepts_an_assignment() -> None:
    """An author may answer for a variable that the reader would leave open."""
    text = 'permission: {bash: {"kubectl *": allow}, variable: {"KUBECONFIG=/etc/kubernetes/*": allow}}'
    policy = load_policy(text, name="p")
    assert decide(policy, "KUBECONFIG=/etc/kubernetes/admin.conf kubectl get pods").verdict is ALLOW
    assert decide(policy, "KUBECONFIG=/tmp/x kubectl get pods").verdict is UNDECIDED


def test_the_exec_gate_is_needed_behind_a_question() -> None:
    """A person's yes does not replace the exec gate."""
    decision = decide(policy_from_pairs([["ls", "allow"], ["id", "ask"]]), "id; ls $x; $y")
    assert decision.verdict is ASK
    assert decision.needs_gate_two


@pytest.mark.parametrize(
    "text",
    [
        "echo $x\\\ny; rm -rf /",
        "echo $x\\\ny | rm x",
        "echo $x\\\ny && rm x || id",
        "if ls; then echo $x\\\ny; rm x; fi",
        "(echo $x\\\ny; rm x)",
        "z=$(echo $x\\\ny; rm x)",
        "P\\\nATH=/x id 'a;b' \"c;${d}\" > f 2>&1; rm -rf /",
        "rm x; echo $(",
    ],
)
def test_a_denied_command_beside_an_unreadable_one(text: str) -> None:
    """A command that is literally there is denied whatever stands before or behind it."""
    policy = policy_from_pairs([["*", "allow"], ["rm *", "deny"]])
    assert decide(policy, text).verdict is Verdict.DENY
    assert decide(policy, text.replace("rm", "mr")).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    "text",
    [
        "echo $x\\\ny # ; rm x",
        "echo $x\\\ny 'a; rm x'",
        'echo $x\\\ny "; rm x"',
        "echo $x\\\ny \\; rm x",
        "echo 'a; rm x",
        "cat <<E\\\nOF; rm x\nEOF",
        "echo $x\\\ny <<E\n; rm x\nE",
        "echo $x\\\ny $(cat <<E\nrm x\nE\n)",
        "echo $x\\\ny `: ; rm x`",
        "case $x\\\ny in a; rm x",
    ],
)
def test_what_only_looks_like_a_command(text: str) -> None:
    """Behind a place that cannot be read nothing is taken for a command that may be a word, a comment or a line."""
    policy = policy_from_pairs([["*", "allow"], ["rm *", "deny"]])
    assert decide(policy, text).verdict is Verdict.UNDECIDED
