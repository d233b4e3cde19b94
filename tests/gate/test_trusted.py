"""Which files the names of a policy mean, also when a package is upgraded while the runner is up."""

import os
from pathlib import Path

import pytest

from guardhouse.launcher.gate import trusted
from guardhouse.launcher.gate.facts import File
from guardhouse.launcher.gate.trusted import TrustedPrograms, is_system_file


def made(path: Path, text: str = "1") -> File:
    path.write_text(text)
    path.chmod(0o755)
    status = path.stat()
    return File(str(path), status.st_dev, status.st_ino, status.st_ctime_ns)


def names(programs: TrustedPrograms, file: File) -> frozenset[str]:
    return programs.names_of(file.identity, path=file.path, changed_ns=file.changed_ns)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A trusted directory of its own."""
    found = tmp_path / "bin"
    found.mkdir()
    return found


def test_a_program_that_was_upgraded_keeps_its_name(directory: Path) -> None:
    """A package renames a new file over the old one: what runs from then on is what the name means, at once."""
    old = made(directory / "ls")
    programs = TrustedPrograms([str(directory)])
    assert names(programs, old) == {"ls"}
    made(directory / "ls.dpkg-new", "2")
    (directory / "ls.dpkg-new").rename(directory / "ls")
    status = (directory / "ls").stat()
    new = File(str(directory / "ls"), status.st_dev, status.st_ino, status.st_ctime_ns)
    assert new.identity != old.identity
    assert names(programs, new) == {"ls"}


def test_the_file_that_was_replaced_is_nobody_any_more(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that kept running, or was kept by a link, is no longer what the name means."""
    old = made(directory / "ls")
    programs = TrustedPrograms([str(directory)])
    os.link(directory / "ls", directory.parent / "kept")
    made(directory / "new", "2")
    (directory / "new").rename(directory / "ls")
    monkeypatch.setattr(trusted, "_READ_AGAIN_AFTER_S", 0.0)
    status = (directory.parent / "kept").stat()
    kept = File(str(directory.parent / "kept"), status.st_dev, status.st_ino, status.st_ctime_ns)
    assert kept.identity == old.identity
    assert names(programs, kept) == frozenset()


def test_a_program_that_was_installed_later_is_known(directory: Path) -> None:
    """A new package needs no restart: a file of the trusted path goes by its name."""
    programs = TrustedPrograms([str(directory)])
    assert names(programs, made(directory / "new")) == {"new"}


def test_a_file_elsewhere_gets_no_name_by_an_inode_that_became_free(directory: Path) -> None:
    """The time of the last change tells a file from the one that had its inode before."""
    old = made(directory / "ls")
    programs = TrustedPrograms([str(directory)])
    other = File(str(directory.parent / "x"), old.device, old.inode, old.changed_ns + 1)
    (directory / "ls").unlink()
    assert names(programs, other) == frozenset()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root's")
def test_a_system_file_is_one_that_only_root_can_change(tmp_path: Path) -> None:
    """Neither the file nor a directory above it may be writable by others; a link on the way may lead elsewhere."""
    status = Path("/bin/ls").stat()
    ls = File("/usr/bin/ls", status.st_dev, status.st_ino, status.st_ctime_ns)
    assert is_system_file(ls, "/usr/bin/ls")
    assert is_system_file(ls, "/bin/ls")
    assert not is_system_file(ls, "/usr/bin/cat")
    assert not is_system_file(ls, "/usr/bin/../bin/ls")
    assert not is_system_file(ls, "bin/ls")
    mine = made(tmp_path / "x")
    # Below /tmp, which everybody may write.
    assert not is_system_file(mine, str(tmp_path / "x"))
