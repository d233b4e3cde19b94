"""Which files a wall guards as the runner's own: its code, and every file by which it judges."""

import sys
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.runner.rules import load_rules
from guardhouse.runner.wall import _installation, _what_we_are
from guardhouse.sandbox.load import load_profile

POLICY = 'include: [more.yaml]\npermission:\n  bash:\n    "echo *": allow\n'
MORE = 'permission:\n  bash:\n    "ls *": allow\n'
PROFILE = "profile: {name}\nsummary: s\nextends: {base}\n"


def test_policies_profiles_and_code_are_named(tmp_path: Path) -> None:
    """A policy with what it includes, a site's profile, the packages, the interpreter and the state directory."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "more.yaml").write_text(MORE)
    (tmp_path / "site.yaml").write_text(PROFILE.format(name="site", base="operate"))
    (tmp_path / "state" / "journal").mkdir(parents=True)
    profile = load_profile(str(tmp_path / "site.yaml"), directory=shipped_directory("sandbox"))
    found = _what_we_are(load_rules(str(tmp_path / "policy.yaml")), [profile], tmp_path / "state" / "journal")
    for name in ("policy.yaml", "more.yaml", "site.yaml", "state"):
        assert str(tmp_path / name) in found
    for path in (Path(sys.executable).resolve(), shipped_directory("policies"), shipped_directory("sandbox")):
        assert str(path) in found
    assert not {"/", "/usr", "/usr/local"} & set(found)


def test_the_working_directory_is_not_taken_for_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m guardhouse` in a workspace neither opens it to the runner nor closes it to commands."""
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    assert str(tmp_path) not in _installation()
