"""The token's way into the runner: out of argv and environment, read once, late, and kept in one value.

A token given by flag or variable shows in /proc/PID/cmdline and /proc/PID/environ for as long as the process
lives, and a command under a profile that sees host processes could read it there. So the runner replaces itself
once, with the token in a pipe: the new image's argv and environment never held it. Runs in the boot process.
"""

import os
import re
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from guardhouse.runner.config import ConfigError
from guardhouse.runner.settings import SETTINGS, environment_names

__all__ = ["Token", "hide_token", "keep_from_children", "read_token", "without_token"]

TOKEN_MAX_BYTES: Final = 4096
_DESCRIPTOR_PATH = re.compile(r"/proc/self/fd/([0-9]{1,4})")
_TOKEN_VARIABLES: Final = tuple(
    name for setting in SETTINGS if setting.name in ("token", "token_file") for name in environment_names(setting)
)


class Token:
    """The environment's secret. Printing, formatting or pickling it never shows it; `reveal` does."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret. A search for ``.reveal(`` lists every place that handles it."""
        return self._text

    def __repr__(self) -> str:
        return "Token(…)"

    def __reduce__(self) -> str:
        raise TypeError("a token is not written anywhere")


def read_token(path: Path) -> Token:
    """Read the token from ``path``: a file that others may not touch, or a pipe.

    Raises:
        ConfigError: it is missing, readable by everybody, too long, or holds no single printable word.
    """
    inherited = _DESCRIPTOR_PATH.fullmatch(str(path))
    try:
        descriptor = int(inherited[1]) if inherited else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ConfigError(
            f"cannot read the token file {path}: {error.strerror}; check --token-file and who may read it"
        ) from None
    try:
        content = _read_checked(descriptor, path)
    except OSError as error:
        raise ConfigError(f"cannot read the token file {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return _parse_token(content, str(path))


def hide_token(
    place: str,
    *,
    argv: Sequence[str],
    environ: Mapping[str, str],
    replace: Callable[[str, list[str], dict[str, str]], object] = os.execve,
) -> None:
    """Replace this process by itself with the token in a pipe, out of argv and environment. Does not return.

    Args:
        place: ``--token``, or the name of the variable that holds the token (`RunnerConfig.token_place`).
        argv: the interpreter's own argument vector (``sys.orig_argv``).
        environ: this process's environment.
        replace: execve(2), or what a test puts in its place.

    Raises:
        ConfigError: the token is malformed or cannot be taken out of the argument vector.
    """
    new_argv, flag_value = without_token(argv)
    text = flag_value if place == "--token" else environ.get(place)
    if text is None:
        raise ConfigError("cannot find the token in the argument vector; use --token-file FILE")
    token = _parse_token(text.encode("utf-8", "surrogateescape"), place)
    if any(token.reveal() in argument for argument in new_argv):
        raise ConfigError("the token stands in another argument too; use --token-file FILE")
    read_end, write_end = os.pipe()
    os.write(write_end, token.reveal().encode())
    os.close(write_end)
    os.set_inheritable(read_end, True)  # noqa: FBT003 - the parameter is positional-only
    new_environ = {name: value for name, value in environ.items() if name not in _TOKEN_VARIABLES}
    new_environ["GUARDHOUSE_TOKEN_FILE"] = f"/proc/self/fd/{read_end}"
    replace(sys.executable, new_argv, new_environ)


def without_token(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Return ``argv`` without ``--token VALUE`` and ``--token=VALUE``, and the last such value.

    What follows a lone ``--`` is data, not flags, and stays as it is.
    """
    kept: list[str] = []
    value: str | None = None
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            return [*kept, argument, *arguments], value
        if argument == "--token":
            value = next(arguments, None)
        elif argument.startswith("--token="):
            value = argument.removeprefix("--token=")
        else:
            kept.append(argument)
    return kept, value


def keep_from_children(path: Path | None) -> None:
    """Make sure that no process started from here on inherits the pipe that `hide_token` left open."""
    inherited = _DESCRIPTOR_PATH.fullmatch(str(path)) if path is not None else None
    if inherited:
        try:
            os.set_inheritable(int(inherited[1]), False)  # noqa: FBT003 - the parameter is positional-only
        except OSError as error:
            raise ConfigError(f"the token's descriptor {path} is not open: {error.strerror}") from None


def _read_checked(descriptor: int, path: Path) -> bytes:
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(
                f"the token file {path} is open to everybody (mode {stat.S_IMODE(status.st_mode):04o});"
                f" run: chmod 0600 {path}, and replace the token if others use this host"
            )
    elif not stat.S_ISFIFO(status.st_mode):
        raise ConfigError(f"the token file {path} is neither a file nor a pipe; write the token to a file")
    content = b""
    while len(content) <= TOKEN_MAX_BYTES:
        chunk = os.read(descriptor, TOKEN_MAX_BYTES + 1 - len(content))
        if not chunk:
            break
        content += chunk
    return content


def _parse_token(content: bytes, place: str) -> Token:
    """Check the token's form; the value is never part of a message."""
    if len(content) > TOKEN_MAX_BYTES:
        raise ConfigError(f"{place}: more than {TOKEN_MAX_BYTES} bytes, so it is no token; is it the right file?")
    words = content.split()
    if not words:
        raise ConfigError(f"{place}: holds no token; copy it from the hub ('guardhouse env token')")
    if len(words) > 1:
        raise ConfigError(f"{place}: holds {len(words)} words instead of one token; keep the token alone")
    if not all(0x21 <= byte <= 0x7E for byte in words[0]):
        raise ConfigError(f"{place}: holds bytes that no token has; copy it again from the hub")
    return Token(words[0].decode("ascii"))
