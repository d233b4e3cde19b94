"""Which programs a policy allows whatever their arguments; where it cannot be sure the answer is no."""

import pytest

from guardhouse.policy import load_policy, policy_from_pairs
from guardhouse.policy.always_allowed import is_always_allowed, is_sometimes_allowed

RULES = """
permission:
  bash:
    - {match: "*", then: deny}
    - {match: "ls *", then: allow}
    - {match: "git *", then: allow}
    - {match: "git push *", then: deny}
    - {match: "cat /etc/*", then: allow}
    - {match: "python3 *", then: allow}
    - {match: "perl *", then: allow}
    - {match: "perl5.36 *", then: deny}
    - {match: "nano *", then: allow}
    - {match: "/usr/bin/nano *", then: deny}
    - {match: "id *", then: allow, when: {requester: [ada]}}
    - {match: "top *", then: ask}
"""
POLICY = load_policy(RULES, name="p.yaml")


def allowed(*names: str) -> bool:
    return is_always_allowed(POLICY, frozenset(names), frozenset(f"/usr/bin/{name}" for name in names))


@pytest.mark.parametrize("names", [("ls",), ("python3",), ("python3", "python3.11")])
def test_allowed(names: tuple[str, ...]) -> None:
    """A rule that allows any arguments, and the same program with its version in the name."""
    assert allowed(*names)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="no name"),
        pytest.param(("rm",), id="only the catch-all"),
        pytest.param(("git",), id="one use is denied"),
        pytest.param(("cat",), id="one use is allowed"),
        pytest.param(("perl", "perl5.36"), id="denied with its version"),
        pytest.param(("nano",), id="denied by its path"),
        pytest.param(("id",), id="under a condition"),
        pytest.param(("top",), id="a person is asked"),
        pytest.param(("ls", "dir"), id="another name that nothing allows"),
    ],
)
def test_not_allowed(names: tuple[str, ...]) -> None:
    """Anything short of every use under every name."""
    assert not allowed(*names)


@pytest.mark.parametrize(
    ("pairs", "name", "sometimes"),
    [
        pytest.param([("*", "allow"), ("git push *", "deny")], "git", True, id="all uses but one"),
        pytest.param([("*", "allow"), ("git *", "deny")], "git", False, id="no use, though its path is under '*'"),
        pytest.param([("*", "deny"), ("git log *", "allow")], "git", True, id="one use"),
        pytest.param([("*", "deny"), ("git log *", "ask")], "git", True, id="one use that is asked about"),
        pytest.param([("*", "deny"), ("ls *", "allow")], "git", False, id="another program"),
        pytest.param([("git *", "allow"), ("/usr/bin/git *", "deny")], "git", False, id="denied by its path later"),
        pytest.param([("*", "deny"), ("/usr/bin/git *", "allow")], "git", True, id="allowed by its path"),
    ],
)
def test_with_some_arguments(pairs: list[tuple[str, str]], name: str, *, sometimes: bool) -> None:
    """A file counts where some arguments of it are allowed or asked about, by name and path at once."""
    policy = policy_from_pairs(pairs)
    assert is_sometimes_allowed(policy, frozenset({name}), frozenset({f"/usr/bin/{name}"})) is sometimes
