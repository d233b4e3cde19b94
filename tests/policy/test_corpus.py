"""The attacks and everyday commands of both corpora, and the shipped policies' own promises."""

import json
from pathlib import Path

import pytest

from guardhouse.cli.policy_files import read_policy
from guardhouse.policy import decide, policy_from_pairs
from guardhouse.policy.cases import run_examples
from guardhouse.values import Verdict

CORPUS = Path(__file__).parent.parent / "corpus"
SHIPPED = ["deny_all", "read_only", "kubernetes_read_only", "docker_read_only", "database_read_only", "trusted_machine"]


def cases(name: str) -> list:
    lines = (CORPUS / name).read_text().splitlines()
    return [pytest.param(json.loads(line), id=json.loads(line)["id"]) for line in lines]


@pytest.mark.parametrize("case", cases("policy_cases.jsonl"))
def test_published_case(case: dict) -> None:
    """Gate one allows no attack and denies no everyday command."""
    verdict = decide(policy_from_pairs(case["policy"]), case["command"]).verdict
    if case["must"] == "deny":
        assert verdict is not Verdict.ALLOW
    if case["must"] == "allow":
        assert verdict is Verdict.ALLOW


@pytest.mark.parametrize("case", cases("policy_cases_own.jsonl"))
def test_own_case(case: dict) -> None:
    """Each case comes out as written; `not_allow` leaves room for the exec gate."""
    verdict = decide(policy_from_pairs(case["policy"]), case["command"]).verdict.value
    assert verdict != "allow" if case["must"] == "not_allow" else verdict == case["must"]


def test_own_corpus_is_large_enough() -> None:
    """At least 400 cases in at least 25 classes."""
    own = [param.values[0] for param in cases("policy_cases_own.jsonl")]
    assert len(own) >= 400
    assert len({case["class"] for case in own}) >= 25


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policy_keeps_its_promises(name: str) -> None:
    """Every example of every shipped rule comes out as written, and every rule has one and a reason."""
    policy = read_policy(name, with_examples=False)
    assert [result.failure() for result in run_examples(policy) if not result.passed] == []
    for rule in policy.rules():
        assert rule.because, rule.place
        assert rule.examples, rule.place
