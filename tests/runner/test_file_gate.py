"""The policy's rules for file operations, in every spelling of a path."""

from pathlib import Path

import pytest

from guardhouse.errors import Refusal
from guardhouse.policy import load_policy
from guardhouse.runner.file_gate import FileGate
from guardhouse.wire import operations as wire

POLICY = load_policy(
    """
permission:
  bash: {"*": allow}
  read: {"**": allow, "secret/**": deny}
  write: {"out/**": allow, "out/asked": ask}
""",
    name="files.yaml",
)
OPEN = load_policy('permission:\n  bash:\n    "*": allow\n', name="open.yaml")
WORKSPACE = Path("/srv/ws")


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("read", wire.ReadArgs(path="notes.txt")),
        ("read", wire.ReadArgs(path="/srv/ws/notes.txt")),
        ("write", wire.WriteArgs(path="out/a", content=b"")),
        ("write", wire.WriteArgs(path="./out//a", content=b"")),
        ("move", wire.MoveArgs(path="out/a", target="out/b")),
        ("list", wire.ListArgs()),
        ("grep", wire.GrepArgs(pattern="x")),
    ],
)
def test_allowed(operation, args) -> None:
    """What the rules allow passes; an operation without a section is left to the workspace."""
    FileGate(POLICY, workspace=WORKSPACE).check(operation, args)


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("read", wire.ReadArgs(path="secret/key")),
        ("read", wire.ReadArgs(path="a/../secret/key")),
        ("read", wire.ReadArgs(path="secret//key")),
        ("read", wire.ReadArgs(path="/srv/ws/secret/key")),
        ("read", wire.ReadArgs(path="/srv/ws/./a/../secret/key")),
        ("read", wire.ReadArgs(path="/srv//ws/secret/key")),
        ("stat", wire.StatArgs(path="secret/key")),
        ("write", wire.WriteArgs(path="notes.txt", content=b"")),
        ("write", wire.WriteArgs(path="out/asked", content=b"")),
        ("edit", wire.EditArgs(path="secret/key", old="a", new="b")),
        ("move", wire.MoveArgs(path="out/a", target="notes.txt")),
        ("move", wire.MoveArgs(path="secret/key", target="out/key")),
        ("remove", wire.RemoveArgs(path="notes.txt")),
        ("sync_skill", wire.SyncSkillArgs(skill_name="s", skill_dir=".skills/s", zip_data=b"")),
    ],
)
def test_denied(operation, args) -> None:
    """What a rule denies, asks about or no rule of a section matches is refused, however the path is spelt."""
    with pytest.raises(Refusal, match="denied"):
        FileGate(POLICY, workspace=WORKSPACE).check(operation, args)
    FileGate(OPEN, workspace=WORKSPACE).check(operation, args)


def _found(*paths: str, truncated: bool = False) -> wire.GrepResult:
    matches = tuple(wire.GrepMatch(path=path, line_number=1, content="x") for path in paths)
    return wire.GrepResult(matches=matches, content="".join(f"{p}:1:x\n" for p in paths), truncated=truncated)


def test_a_search_shows_nothing_that_may_not_be_read() -> None:
    """Lines of unreadable files are taken out of a search's result and counted."""
    result = FileGate(POLICY, workspace=WORKSPACE).only_readable(_found("a", "secret/key", "b"))
    assert [match.path for match in result.matches] == ["a", "b"]
    assert "secret" not in result.content
    assert result.left_out == 1


def test_a_search_too_large_to_sift_is_refused() -> None:
    """A result that was saved whole cannot be sifted, so it is refused; without read rules it is answered."""
    with pytest.raises(Refusal, match="cannot be sifted"):
        FileGate(POLICY, workspace=WORKSPACE).only_readable(_found("a", truncated=True))
    assert FileGate(OPEN, workspace=WORKSPACE).only_readable(_found("a", truncated=True)).truncated
