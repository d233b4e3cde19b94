"""The token's way into the runner."""

import os
import pickle
import sys

import pytest

from guardhouse.runner.config import ConfigError
from guardhouse.runner.credential import Token, hide_token, keep_from_children, read_token, without_token

SECRET = "wnt_canary"


def test_token_shows_in_no_rendering() -> None:
    """repr, str and format of a token hide it."""
    token = Token(SECRET)
    assert SECRET not in f"{token!r} {token!s} {token}"
    assert token.reveal() == SECRET


def test_token_cannot_be_pickled() -> None:
    """Serialising a token fails instead of writing it somewhere."""
    with pytest.raises(TypeError, match="not written anywhere"):
        pickle.dumps(Token(SECRET))


@pytest.mark.parametrize("content", [SECRET, SECRET + "\n", f"  {SECRET}\r\n"])
def test_read_token(tmp_path, content) -> None:
    """White space around the token in its file does not belong to it."""
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o600)
    assert read_token(path).reveal() == SECRET


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        pytest.param(SECRET, 0o644, "open to everybody", id="readable by everybody"),
        pytest.param(SECRET, 0o602, "open to everybody", id="writable by everybody"),
        pytest.param("", 0o600, "holds no token", id="empty"),
        pytest.param(f"{SECRET} {SECRET}", 0o600, "2 words", id="two words"),
        pytest.param("x" * 5000, 0o600, "no token", id="too long"),
        pytest.param("wnt_é", 0o600, "bytes that no token has", id="not ASCII"),
    ],
)
def test_refused_files(tmp_path, content, mode, words) -> None:
    """A file that cannot be a safe token is refused, and the message does not repeat its content."""
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=words) as caught:
        read_token(path)
    assert SECRET not in str(caught.value)


def test_group_readable_file_is_accepted(tmp_path) -> None:
    """0640 root:guardhouse is how a service's secret is usually kept."""
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0o640)
    assert read_token(path).reveal() == SECRET


def test_missing_file_is_named(tmp_path) -> None:
    """A missing token file is named with the flag to check."""
    with pytest.raises(ConfigError, match=r"absent: No such file.*--token-file"):
        read_token(tmp_path / "absent")


def test_directory_is_refused(tmp_path) -> None:
    """A directory is no token file."""
    with pytest.raises(ConfigError):
        read_token(tmp_path)


@pytest.mark.parametrize(
    ("argv", "kept", "value"),
    [
        (["p", "run", "--token", "T", "--url", "u"], ["p", "run", "--url", "u"], "T"),
        (["p", "run", "--token=T"], ["p", "run"], "T"),
        (["p", "run", "--token-file", "f"], ["p", "run", "--token-file", "f"], None),
        (["p", "run", "--token", "A", "--token=B"], ["p", "run"], "B"),
        (["p", "--", "--token", "T"], ["p", "--", "--token", "T"], None),
    ],
)
def test_without_token(argv, kept, value) -> None:
    """The flag leaves the argument vector in every form that it can have."""
    assert without_token(argv) == (kept, value)


class Replaced(Exception):  # noqa: N818 - it is no error
    """Stands in for execve, which does not return."""

    def __init__(self, argv, environ) -> None:
        super().__init__()
        self.argv, self.environ = argv, environ


def _replace(program, argv, environ) -> None:
    assert program == sys.executable
    raise Replaced(argv, environ)


@pytest.mark.parametrize(
    ("place", "argv", "environ"),
    [
        pytest.param("--token", ["py", "run", "--token", SECRET], {"PATH": "/bin"}, id="flag"),
        pytest.param("GUARDHOUSE_TOKEN", ["py", "run"], {"GUARDHOUSE_TOKEN": SECRET}, id="environment"),
        pytest.param("FLASHDUTY_RUNNER_TOKEN", ["py"], {"FLASHDUTY_RUNNER_TOKEN": SECRET}, id="the seed's name"),
        pytest.param(
            "--token", ["py", f"--token={SECRET}"], {"GUARDHOUSE_TOKEN": SECRET}, id="the weaker source goes too"
        ),
    ],
)
def test_hidden_token_is_in_neither_argv_nor_environment(place, argv, environ) -> None:
    """The new image's argv and environment hold no token, and the pipe that they name does."""
    with pytest.raises(Replaced) as caught:
        hide_token(place, argv=argv, environ=environ, replace=_replace)
    new = caught.value
    assert SECRET not in repr((new.argv, new.environ))
    path = new.environ["GUARDHOUSE_TOKEN_FILE"]
    descriptor = int(path.rsplit("/", 1)[1])
    assert os.get_inheritable(descriptor)
    keep_from_children(path)
    assert not os.get_inheritable(descriptor)
    assert read_token(path).reveal() == SECRET


def test_malformed_token_is_refused_before_the_restart() -> None:
    """A token with a space by flag is refused at once and not repeated."""
    with pytest.raises(ConfigError) as caught:
        hide_token("--token", argv=["py", "--token", f"{SECRET} x"], environ={}, replace=_replace)
    assert SECRET not in str(caught.value)
