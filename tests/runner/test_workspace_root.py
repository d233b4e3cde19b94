"""The workspace's directory at boot."""

import os
import tempfile
from pathlib import Path

import pytest

from guardhouse.errors import SetupError
from guardhouse.runner.identity import Account, current_account, resolve_account
from guardhouse.runner.workspace_root import prepare_state_directory, prepare_workspace

STRANGER = Account("stranger", 54321, 54321, (54321,), "/nonexistent")


def test_the_default_workspace_is_made_private(tmp_path) -> None:
    """A missing default workspace is made for its user alone."""
    path = tmp_path / "state" / "workspace"
    prepare_workspace(path, current_account(), is_default=True)
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_named_workspace_is_not_made(tmp_path) -> None:
    """A missing named workspace is refused, and nothing is made."""
    with pytest.raises(SetupError, match="does not exist; make it, or name another by --workspace"):
        prepare_workspace(tmp_path / "w", current_account(), is_default=False)
    assert not (tmp_path / "w").exists()


def test_a_named_workspace_is_accepted(tmp_path) -> None:
    """The twin of the refusals: a directory of our own is fine."""
    (tmp_path / "w").mkdir(mode=0o750)
    prepare_workspace(tmp_path / "w", current_account(), is_default=False)


def test_a_link_is_refused(tmp_path) -> None:
    """A workspace that is a symbolic link is refused, even to a good directory."""
    (tmp_path / "w").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "w")
    with pytest.raises(SetupError, match="is a symbolic link"):
        prepare_workspace(tmp_path / "link", current_account(), is_default=False)


def test_a_file_is_refused(tmp_path) -> None:
    """A workspace that is a file is refused."""
    (tmp_path / "w").write_text("")
    with pytest.raises(SetupError, match="is not a directory"):
        prepare_workspace(tmp_path / "w", current_account(), is_default=False)


def test_a_world_writable_one_is_refused(tmp_path) -> None:
    """A workspace that anybody on the host can write to is refused with the command that mends it."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w").chmod(0o777)
    with pytest.raises(SetupError, match="chmod o-w"):
        prepare_workspace(tmp_path / "w", current_account(), is_default=False)


def test_one_that_the_commands_cannot_use_is_refused(tmp_path) -> None:
    """A workspace that belongs to somebody else is refused with the command that mends it."""
    (tmp_path / "w").mkdir(mode=0o755)
    with pytest.raises(SetupError, match=r"cannot be used by stranger .* chown stranger:"):
        prepare_workspace(tmp_path / "w", STRANGER, is_default=False)


def test_the_whole_host_is_no_workspace() -> None:
    """/ is refused."""
    with pytest.raises(SetupError, match="the whole host"):
        prepare_workspace(Path("/"), current_account(), is_default=False)


def test_state_directory_of_others_is_refused(tmp_path) -> None:
    """A state directory that the group can write to could be replaced under the runner."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o770)
    with pytest.raises(SetupError, match="can be written by others"):
        prepare_state_directory(tmp_path / "s", current_account())


def test_somebody_elses_name_needs_root() -> None:
    """An ordinary user cannot run as another."""
    with pytest.raises(SetupError, match="only root can run as"):
        resolve_account("somebody-else", effective_uid=1000)


def test_root_runs_as_an_ordinary_user() -> None:
    """Without a name, root gives way to guardhouse or nobody."""
    account = resolve_account(None, effective_uid=0)
    assert account.name in {"guardhouse", "nobody"}
    assert account.uid != 0


def test_unknown_user_is_named() -> None:
    """A user that does not exist is named with the way out."""
    with pytest.raises(SetupError, match="has no user 'no-such-user-x'"):
        resolve_account("no-such-user-x", effective_uid=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_default_directories_belong_to_the_account() -> None:
    """As root the default workspace is made for the account that commands run as."""
    account = resolve_account(None, effective_uid=0)
    with tempfile.TemporaryDirectory(prefix="guardhouse-test-") as name:
        os.chmod(name, 0o755)
        prepare_workspace(Path(name) / "w", account, is_default=True)
        assert (Path(name) / "w").stat().st_uid == account.uid
