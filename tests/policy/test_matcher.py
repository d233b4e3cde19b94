"""The matcher's answers are those of each rule asked by itself, whatever RE2's memory."""

import random

import pytest

from guardhouse.policy import matcher as matcher_module
from guardhouse.policy import policy_from_pairs
from guardhouse.policy.matcher import Matcher

STARS = [f"kubectl *ns{number}*" for number in range(300)] + ["*", "kubectl *"]


def languages(patterns: list[str]) -> list:
    return [rule.language for rule in policy_from_pairs([[pattern, "deny"] for pattern in patterns]).rules()]


@pytest.mark.parametrize("max_bytes", [64 << 20, 400_000, 120_000])
def test_little_memory_changes_no_answer(max_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that RE2 gives up on is split, or its rules are asked one by one; nothing is missed."""
    monkeypatch.setattr(matcher_module, "POLICY_MATCHER_MAX_BYTES", max_bytes)
    matcher = Matcher(languages(STARS))
    chosen = random.Random(5)
    for _ in range(40):
        text = "".join(chosen.choice("ns0123456789") for _ in range(400))
        expected = [index for index in range(300) if f"ns{index}" in text]
        assert matcher.matches(f"kubectl\0{text}") == [*expected, 300, 301]


def test_undecodable_characters_match_only_wildcards() -> None:
    """A byte that is no text is some character, and none that a pattern could name."""
    matcher = Matcher(languages(["cat ?", "cat *", "cat \ufffd", "cat x"]))
    assert matcher.matches("cat\0\udc80") == [0, 1]
    assert matcher.matches("cat\0x") == [0, 1, 3]


def test_no_rules() -> None:
    """An empty section matches nothing."""
    assert Matcher([]).matches("ls") == []
