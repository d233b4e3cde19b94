"""What a comparison of two policies finds, and that it agrees with trying every short text."""

import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.policy import decide, load_policy, policy_from_pairs
from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.compare import compare_policies, narrows
from guardhouse.policy.judge import program_names
from guardhouse.policy.language import ANYTHING
from guardhouse.policy.model import DEFAULT_TRUSTED_PATH, Context
from guardhouse.policy.possible import NO_RULE, possible_winners
from guardhouse.policy.rulebook import action_of, rulebook_of
from guardhouse.values import Verdict

KUBECTL = policy_from_pairs([["*", "deny"], ["kubectl get *", "allow"]])


def test_a_witness_is_a_shortest_command() -> None:
    """Each difference names the shortest command that shows it."""
    wider = policy_from_pairs([["*", "deny"], ["kubectl *", "allow"], ["kubectl delete *", "deny"]])
    (difference,) = compare_policies(KUBECTL, wider)
    assert (difference.witness, difference.widens) == ("kubectl", True)
    assert [found.widens for found in compare_policies(wider, KUBECTL)] == [False]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([["*", "deny"], ["ls *", "allow"]], [["ls *", "allow"]]),
        ([["ls *", "allow"]], [["ls", "allow"], ["ls *", "allow"]]),
        ([["ls *", "allow"]], [["ls *", "allow"], ["/usr/bin/ls *", "allow"]]),
        ([["a *", "allow"], ["a b", "deny"], ["a b", "allow"]], [["a *", "allow"]]),
        ([["a*b*", "allow"]], [["a*b", "allow"], ["a*b*", "allow"]]),
        ([], [["*", "deny"]]),
    ],
)
def test_equal_policies_in_other_words(before: list, after: list) -> None:
    """No difference is found where there is none, however the rules are written."""
    assert compare_policies(policy_from_pairs(before), policy_from_pairs(after)) == ()


@pytest.mark.parametrize(
    ("before", "after", "widens"),
    [
        ("{match: ls, then: allow}", "{match: ls, then: ask}", False),
        ("{match: ls, then: ask}", "{match: ls, then: allow}", True),
        ("{match: ls, then: allow, timeout: 5s}", "{match: ls, then: allow, timeout: 6s}", True),
        ("{match: ls, then: allow, timeout: 5s}", "{match: ls, then: allow, timeout: 4s}", False),
        ("{match: ls, then: allow, profile: operate}", "{match: ls, then: allow, profile: isolate}", False),
        ("{match: ls, then: allow, profile: isolate}", "{match: ls, then: allow, profile: operate}", True),
        ("{match: ls, then: allow, profile: isolate}", "{match: ls, then: allow}", True),
        ("{match: ls, then: allow}", "{match: ls, then: allow, children: inherit}", True),
        ("{match: ls, then: allow, when: {days: [mon]}}", "{match: ls, then: allow}", True),
        ("{match: ls, then: allow}", "{match: ls, then: allow, when: {days: [mon]}}", False),
        ("{match: ls, then: deny, when: {days: [mon]}}", "{match: ls, then: deny}", False),
    ],
)
def test_what_counts_as_wider(before: str, after: str, widens: bool) -> None:
    """Everything that a rule grants is compared, not its action alone."""
    policies = [load_policy(f"permission: {{bash: [{rule}]}}", name="p") for rule in (before, after)]
    assert bool(narrows(*policies)) is widens


def test_other_operations_are_compared() -> None:
    """A section that is taken away leaves the operation to the wall, which permits more."""
    old = load_policy("permission: {bash: {}, read: {'/var/log/**': allow}}", name="p")
    new = load_policy("permission: {bash: {}}", name="p")
    (difference,) = narrows(old, new)
    assert difference.operation == "read"
    assert narrows(new, old) == ()


def test_a_directory_is_no_witness() -> None:
    """What the trusted path makes of an empty name is no program; found by the property below."""
    differences = compare_policies(policy_from_pairs([["* ?", "ask"]]), policy_from_pairs([["??", "allow"]]))
    assert [difference.witness for difference in differences] == ["xx", "x x"]


patterns = st.text(alphabet="ab *?", min_size=1, max_size=5).filter(lambda text: text.strip())
policies = st.lists(st.tuples(patterns, st.sampled_from(["allow", "deny", "ask"])), max_size=4).map(
    lambda pairs: policy_from_pairs([list(pair) for pair in pairs])
)


def verdicts(policy: object, subjects: list) -> list:
    """What the rules say of each subject, its program under every name that it has."""
    book = rulebook_of(policy)
    return [action_of(book.find(names_of(subject), Context()).winner) for subject in subjects]


def names_of(subject: str) -> list[str]:
    program, boundary, rest = subject.partition("\0")
    return [f"{name}{boundary}{rest}" for name in program_names(program, DEFAULT_TRUSTED_PATH)]


SUBJECTS = [
    "".join(chars)
    for length in range(1, 5)
    # c stands for every character that no pattern names.
    for chars in product("abc\0", repeat=length)
    if not "".join(chars).startswith("\0")
]


@settings(max_examples=60, deadline=None)
@given(policies, policies)
def test_comparison_agrees_with_trying(before: object, after: object) -> None:
    """A difference on some short command is found, and a found one is there with no shorter."""
    tried = {
        (first, second)
        for first, second in zip(verdicts(before, SUBJECTS), verdicts(after, SUBJECTS), strict=True)
        if first is not second
    }
    found = {(difference.before.action, difference.after.action) for difference in compare_policies(before, after)}
    assert tried <= found
    for difference in compare_policies(before, after):
        import shlex

        subject = "\0".join(shlex.split(difference.witness))
        assert verdicts(before, [subject]) == [difference.before.action]
        assert verdicts(after, [subject]) == [difference.after.action]


@settings(max_examples=80, deadline=None)
@given(policies)
def test_possible_winners_are_exact(policy: object) -> None:
    """Over every text, exactly the rules that can win are named."""
    languages = [rule.language for rule in policy.rules()]
    found = possible_winners(ANYTHING, languages)
    book = rulebook_of(policy)
    seen = {book.find([subject], Context()).position for subject in ["", *SUBJECTS]}
    assert seen <= found
    for index in found - seen:
        assert index == NO_RULE or len(policy.rules()[index].match) > 1


@settings(max_examples=60, deadline=None)
@given(policies, st.sets(st.integers(0, 3), max_size=3))
def test_rules_of_which_nobody_knows_may_win_or_not(policy: object, uncertain: set[int]) -> None:
    """One walk over rules that may be off finds what all walks over every choice of them find together."""
    languages = [rule.language for rule in policy.rules()]
    unsure = sorted(uncertain & set(range(len(languages))))
    wanted = set()
    for choice in product((False, True), repeat=len(unsure)):
        off = {index for index, is_on in zip(unsure, choice, strict=True) if not is_on}
        kept = [index for index in range(len(languages)) if index not in off]
        found = possible_winners(ANYTHING, [languages[index] for index in kept])
        wanted |= {kept[place] if place != NO_RULE else NO_RULE for place in found}
    assert possible_winners(ANYTHING, languages, uncertain=set(unsure)) == wanted


def test_many_rules_of_unknown_conditions_are_one_question() -> None:
    """300 rules about a requester whom nobody named: the answer takes one walk, not one for each choice."""
    rules = "".join(f'  - {{match: "l{number} *", then: allow, when: {{requester: "a*"}}}}\n' for number in range(300))
    policy = load_policy(f"permission:\n bash:\n{rules}", name="p")
    started = time.process_time()
    assert decide(policy, "$x a").verdict is Verdict.UNDECIDED
    assert decide(policy, "l5 a").verdict is Verdict.DENY
    # 0.1 s on a quiet machine; more than 10 s before.
    assert time.process_time() - started < 5


def test_a_bound_on_states_is_kept() -> None:
    """A question that is too large says so."""
    languages = [rule.language for rule in policy_from_pairs([["*a?????????????b", "allow"]]).rules()]
    with pytest.raises(TooManySteps):
        possible_winners(ANYTHING, languages, max_steps=50)
