"""Every attack of the table fails behind the wall with its errno, and its twin shows that it could have succeeded."""

import os
import platform

import pytest

from .every import ATTACKS
from .table import ALL, Attack

STARTS = ("root", "user")


def _cases() -> list[object]:
    return [
        pytest.param(attack, profile, start, id=f"{attack.name}-{profile}-{start}")
        for start in STARTS
        for profile in ALL
        for attack in ATTACKS
        if profile in attack.profiles
    ]


def _skip_what_cannot_be(attack: Attack, start: str) -> None:
    if platform.machine() not in attack.machines:
        pytest.skip(f"not on {platform.machine()}")
    if start == "root" and os.geteuid() != 0:
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")


@pytest.mark.parametrize(("attack", "profile", "start"), _cases())
def test_attack_is_refused(attack, profile, start, verdicts):
    """The attack ends with one of the errnos that its row names, and with nothing else."""
    _skip_what_cannot_be(attack, start)
    line = verdicts(profile, start)[attack.name]
    allowed = {word if word.startswith("SIG") else f"ERR {word}" for word in attack.refused}
    if attack.refused == ("EMPTY",):
        assert line.startswith("EXIT 1"), line
    else:
        assert line in allowed, f"{attack.name} behind {profile}: {line}"


@pytest.mark.parametrize("attack", [pytest.param(a, id=a.name) for a in ATTACKS if a.where == "inside"])
@pytest.mark.parametrize("start", STARTS)
def test_twin_inside_succeeds(attack, start, verdicts):
    """The neighbouring permitted act succeeds in the same sandbox: the attack did not fail for want of a tool."""
    _skip_what_cannot_be(attack, start)
    for profile in attack.profiles:
        line = verdicts(profile, start)[f"twin of {attack.name}"]
        assert line.startswith(attack.twin_ends), f"twin of {attack.name} behind {profile}: {line}"


@pytest.mark.parametrize("attack", [pytest.param(a, id=a.name) for a in ATTACKS if a.where != "inside"])
def test_twin_outside_succeeds(attack, outside):
    """The same act outside the wall gets past the check that the wall makes."""
    if os.geteuid() != 0:
        pytest.skip("twins outside need root")
    if platform.machine() not in attack.machines:
        pytest.skip(f"not on {platform.machine()}")
    line = outside[attack.name]
    assert line.startswith(attack.twin_ends), f"twin of {attack.name} outside: {line}"


def test_table_is_long_enough_and_has_no_double():
    """At least 120 different attacks stand in the table."""
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names)) >= 120
