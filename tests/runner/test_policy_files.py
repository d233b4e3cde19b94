"""What stands in the place of a policy file when an operator looks away: the start and a reload say what, and go on."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from guardhouse.cli.policy_files import read_text
from guardhouse.errors import SetupError
from guardhouse.limits import POLICY_DOCUMENT_MAX_CHARS
from guardhouse.policy import PolicyError
from guardhouse.runner.rules import load_rules

GOOD = b'permission:\n  bash:\n    "*": deny\n    "echo *": allow\n'


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("gone.yaml")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pipe, "is no regular file"),
        (Path.mkdir, "is a directory"),
        (loop, "Too many levels of symbolic links"),
        (dangling, "No such file or directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda path: path.symlink_to("/dev/null"), "is no regular file"),
        (lambda path: path.write_bytes(b"a: deny\n\xe9: deny\n"), "p.yaml:2:1: not UTF-8 text (the byte 0xe9)"),
        (lambda path: path.write_bytes(GOOD.decode().encode("utf-16")), "p.yaml:1:1: not UTF-8 text"),
        (lambda path: path.write_bytes(b"#" * (POLICY_DOCUMENT_MAX_CHARS + 1)), "is larger than"),
    ],
)
def test_what_is_no_policy_file_is_named(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    """Nothing waits for a pipe's other end, nothing reads a device for ever, and the message says where."""
    path = tmp_path / "p.yaml"
    make(path)
    with pytest.raises(SetupError, match=r"p\.yaml") as caught:
        load_rules(str(path))
    assert message in str(caught.value)


def test_every_beginning_of_a_file_is_taken_or_refused_with_a_place(tmp_path: Path) -> None:
    """A file cut anywhere, as while it is being copied, is a policy or a PolicyError, never another error."""
    path = tmp_path / "p.yaml"
    for end in range(len(GOOD)):
        path.write_bytes(GOOD[:end])
        with contextlib.suppress(PolicyError):
            load_rules(str(path))


def test_byte_order_mark_and_windows_lines_are_taken(tmp_path: Path) -> None:
    """What editors leave behind changes nothing."""
    path = tmp_path / "p.yaml"
    path.write_bytes(GOOD)
    plain = load_rules(str(path)).digest
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"))
    assert load_rules(str(path)).digest == plain


def test_an_included_file_in_another_directory_includes_its_neighbour(tmp_path: Path) -> None:
    """Names are relative to the file that holds them, so a directory of policies can be moved."""
    (tmp_path / "team").mkdir()
    (tmp_path / "p.yaml").write_text("include: [team/web.yaml]\n")
    (tmp_path / "team/web.yaml").write_text("include: [base.yaml]\npermission: {bash: {b: allow}}\n")
    (tmp_path / "team/base.yaml").write_text("{a: allow}\n")
    (tmp_path / "base.yaml").write_text("{wrong: allow}\n")
    policy = load_rules(str(tmp_path / "p.yaml"))
    assert [(rule.match, rule.place) for rule in policy.rules()] == [
        ("a", "team/base.yaml:1:2"),
        ("b", "team/web.yaml:2:21"),
    ]


def test_the_command_line_sees_what_the_runner_sees(tmp_path: Path) -> None:
    """`policy check` must not call good what the runner refuses: the ends of lines reach both as they are."""
    path = tmp_path / "p.yaml"
    path.write_bytes(b"a: deny # safe\r* : allow\n")
    assert "\r" in read_text(path)
    with pytest.raises(PolicyError, match="a carriage return"):
        load_rules(str(path))
