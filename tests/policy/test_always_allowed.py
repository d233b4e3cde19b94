"""Which programs a policy allows whatever their arguments; where it cannot be sure the answer is no."""

import pytest

from guardhouse.policy import load_policy
from guardhouse.policy.always_allowed import is_always_allowed

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
