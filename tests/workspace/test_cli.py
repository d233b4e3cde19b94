"""`guardhouse workspace show|clean` on a directory."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.workspace import workspace


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(workspace, list(arguments))
    return result.exit_code, result.output


def fill(root: Path) -> None:
    (root / ".work" / "outputs").mkdir(parents=True)
    for number in range(3):
        path = root / ".work" / "outputs" / f"bash_aaaaaaa{'abc'[number]}_1700000000.txt"
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1_700_000_000,) * 2)
    (root / "file").write_bytes(b"12345")
    (root / "skills" / "demo").mkdir(parents=True)
    (root / "skills" / "demo" / "SKILL.md").write_text("---\nname: demo\ndescription: d\nversion: 1.10\n---\n")


def test_show(tmp_path: Path) -> None:
    """The sizes and the skills of a workspace are told, for people and for programs."""
    fill(tmp_path)
    code, text = run("show", str(tmp_path))
    assert code == ExitCode.OK
    assert "skills/demo" in text
    assert "3000 bytes in 5 entries" in text
    code, text = run("show", str(tmp_path), "--json")
    told = json.loads(text)
    assert (told["work_size_bytes"], told["skills"][0]["version"]) == (3000, "1.10")


@pytest.mark.parametrize(
    ("arguments", "left"),
    [((), 0), (("--max-age", "99999d"), 3), (("--max-age", "99999d", "--max-size", "2k"), 2), (("--all",), 0)],
)  # fmt: skip
def test_clean(arguments: tuple[str, ...], left: int, tmp_path: Path) -> None:
    """Outputs go by age, by size or all; other files stay."""
    fill(tmp_path)
    code, _ = run("clean", str(tmp_path), *arguments)
    assert code == ExitCode.OK
    assert len(os.listdir(tmp_path / ".work" / "outputs")) == left
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("arguments", [("--max-age", "soon"), ("--max-size", "-1"), ("--max-age", "1w")])
def test_clean_refuses_what_is_no_age_or_size(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """An age or size that cannot be read removes nothing."""
    fill(tmp_path)
    assert run("clean", str(tmp_path), *arguments)[0] == ExitCode.USAGE
    assert len(os.listdir(tmp_path / ".work" / "outputs")) == 3


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It is named, with the status for what is not found."""
    code, text = run("show", str(tmp_path / "none"))
    assert code == ExitCode.NOT_FOUND
    assert "cannot open workspace" in text


def test_the_runners_bounds_are_shown_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotas and ages come from the runner's file and environment; what is wrong in them is named."""
    fill(tmp_path)
    config = tmp_path / "runner.yaml"
    config.write_text("url: wss://hub\nworkspace_quota: 2G\noutput_max_age: 0\noutput_max_size: 2k\n")
    monkeypatch.setenv("GUARDHOUSE_WORKSPACE_QUOTA_FILES", "500")
    code, text = run("show", str(tmp_path), "--config", str(config), "--json")
    told = json.loads(text)
    assert (code, told["quota_bytes"], told["quota_files"]) == (ExitCode.OK, 2 * 1024**3, 500)
    assert "2147483648 bytes in 500 entries" in run("show", str(tmp_path), "--config", str(config))[1]
    assert run("clean", str(tmp_path), "--config", str(config))[0] == ExitCode.OK
    assert len(os.listdir(tmp_path / ".work" / "outputs")) == 2
    config.write_text("workspace_quota: much\n")
    code, text = run("show", str(tmp_path), "--config", str(config))
    assert code == ExitCode.USAGE
    assert "runner.yaml:1: 'much' is no size" in text
