"""The policy's path rules as the files worker gets them: only those that mean the same there."""

import json
from pathlib import Path

import pytest

from guardhouse.policy import load_policy
from guardhouse.runner.files_settings import make_files_settings
from guardhouse.worker.settings import FilesSettings, parse_settings
from guardhouse.workspace.rules import make_rules

WORKSPACE = Path("/w")


def settings(*rules: tuple[str, str], operation: str = "read", bounds: dict | None = None) -> FilesSettings:
    document = json.dumps({"permission": {operation: dict(rules)}})
    policy = load_policy(document, name="p.json")
    return parse_settings(make_files_settings(policy, workspace=WORKSPACE, bounds=bounds))


@pytest.mark.parametrize(
    ("glob", "denied", "allowed"),
    [
        pytest.param("secrets/*", ["secrets/a", "secrets/a/b"], ["secret", "x/secrets"], id="below"),
        pytest.param("secrets/**", ["secrets/a", "secrets/a/b"], ["secret"], id="below-two-stars"),
        pytest.param("*.pem", ["a.pem", "d/a.pem"], ["a.pe", "pem"], id="ending"),
        pytest.param("etc/token", ["etc/token"], ["etc", "etc/tokens"], id="literal"),
    ],
)
def test_a_denial_is_held_by_the_worker_too(glob, denied, allowed) -> None:
    """A path that the policy denies is denied by the place that it resolves to."""
    found = settings(("*", "allow"), (glob, "deny"))
    rules = make_rules(read_deny=found.read_deny, write_allow=(), write_deny=())
    assert rules is not None
    for place in denied:
        with pytest.raises(Exception, match="read_deny"):
            rules.check_read(place.encode())
    for place in allowed:
        rules.check_read(place.encode())


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([("a/*", "deny"), ("a/b", "allow")], id="taken-back-later"),
        pytest.param([("a?b", "deny")], id="a-glob-that-the-worker-reads-otherwise"),
        pytest.param([("/etc/*x*", "deny")], id="stars-in-the-middle"),
        pytest.param([("*", "allow")], id="no-denial"),
    ],
)
def test_what_the_worker_cannot_hold_is_left_to_the_policy(rules) -> None:
    """No glob of the worker stands for a rule that means something else."""
    assert settings(*rules).read_deny == ()


def test_write_rules_and_bounds() -> None:
    """Denials of `write` go to the worker's own list; the operator's bounds stay; the root is the workspace."""
    found = settings(("*", "allow"), ("*.lock", "deny"), operation="write", bounds={"quota_bytes": 7})
    assert found == FilesSettings(root_path="/w", quota_bytes=7, write_deny=("**/*.lock",))
