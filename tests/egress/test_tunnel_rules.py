"""What the policy says to a tunnel, of which host and port are known and nothing that is asked for inside."""

import pytest

from guardhouse.policy import load_policy
from guardhouse.policy.operation import decide_tunnel
from guardhouse.values import Verdict


def decide(rules: str, scheme: str = "https", authority: str = "a.example:443"):
    text = 'permission:\n  bash: {"*": allow}\n' + (f"  egress:\n{rules}" if rules else "")
    return decide_tunnel(load_policy(text, name="p.yaml"), scheme, authority)


def test_without_rules_the_profile_decides() -> None:
    """A policy that says nothing of egress leaves it to the profile's names."""
    assert decide("").verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "rules",
    [
        '    "*": allow\n',
        '    "https://a.example": allow\n',
        '    "https://a.example/*": allow\n',
        '    "*.example:443": allow\n',
        '    "*": deny\n    "https://a.example/*": allow\n',
        '    "*": deny\n    "a.example:*/*": deny\n    "https://a.example/*": allow\n',
        '    "https://a.example/secret": deny\n    "https://a.example/*": allow\n',
        '    "*": allow\n    "https://b.example/*": deny\n    "http://a.example/*": deny\n',
    ],
)
def test_every_path_is_allowed(rules: str) -> None:
    """A tunnel passes where each path and query gets an outright yes; rules for other hosts and ports do not matter."""
    found = decide(rules)
    assert found.verdict is Verdict.ALLOW, found.because


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ('    "https://a.example/v1/*": allow\n', Verdict.DENY),
        ('    "http://a.example/*": allow\n', Verdict.DENY),
        ('    "https://a.example:8443/*": allow\n', Verdict.DENY),
        ('    "https://a.example/*": allow\n    "https://a.example/secret": deny\n', Verdict.DENY),
        ('    "*": allow\n    "https://a.example/x?y=*": deny\n', Verdict.DENY),
        ('    "*": allow\n    "https://a.example/*": ask\n', Verdict.ASK),
        ('    "*": allow\n    "http://a.example:443/secret": deny\n', Verdict.DENY),
        ('    "http://a.example:443/secret": deny\n    "https://a.example/*": allow\n', Verdict.DENY),
        ('    "*": allow\n    "a.example:443/secret": deny\n', Verdict.DENY),
        ('    "https://*": allow\n    "tcp://*:443": deny\n', Verdict.DENY),
    ],
)
def test_some_path_is_not(rules: str, verdict: Verdict) -> None:
    """One path that no rule allows, or one that a rule refuses in any scheme that could be spoken inside, is enough."""
    found = decide(rules)
    assert found.verdict is verdict
    assert "hides what is asked for inside" in found.because
    assert str(found.refusal()).startswith("egress denied: ")


def test_other_schemes() -> None:
    """SOCKS to a database port is asked as tcp."""
    assert decide('    "db.example:5432": allow\n', "tcp", "db.example:5432").verdict is Verdict.ALLOW
    assert decide('    "tcp://db.example:5432": allow\n', "tcp", "db.example:5432").verdict is Verdict.ALLOW
    assert decide('    "https://db.example:5432": allow\n', "tcp", "db.example:5432").verdict is Verdict.DENY


def test_ipv6() -> None:
    """An address in brackets is a host like another."""
    assert decide('    "https://[2001:db8::1]/*": allow\n', authority="[2001:db8::1]:443").verdict is Verdict.ALLOW
