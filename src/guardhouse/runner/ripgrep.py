"""Ripgrep as a hint for large searches: which files are worth opening. Run as any command is, under policy and wall.

The answer is always that of the files worker's own engine, which walks as ever and opens only what ripgrep names; so it
is the same with ripgrep and without it. Ripgrep is asked only for patterns where it cannot miss what RE2 finds, and
after a search that took long; where the hint did not help, no more (ripgrep looks for NUL bytes as well, which is half
a gigabyte a second: many small files gain, a large one does not). Where the policy does not let `rg` run, or it fails
in any way, there is no hint. Runs in the runner.
"""

import re
import shlex
from typing import Final, Protocol

import trio

from guardhouse.errors import PeerError, Refusal
from guardhouse.limits import WORKER_FRAME_MAX_BYTES
from guardhouse.runner.command_parts import OutputSink, StopSignal
from guardhouse.runner.command_run import AdmittedCommand, CommandRequest, CommandRun
from guardhouse.values import Stream
from guardhouse.wire.operations import GrepArgs
from guardhouse.wire.paths import path_as_text

__all__ = ["Ripgrep", "command_text"]

# What means to ripgrep what it means to RE2, or more: plain text, ".", classes without "^" or escapes, groups, "|",
# "*+?", anchors, escaped signs, and digits, words, blanks, which are Unicode's to ripgrep and ASCII's to RE2. What says
# "not" or counts is left out: ripgrep could miss what RE2 finds.
_SHARED: Final = re.compile(
    r"(?:[A-Za-z0-9 _,:;/=@#%!\"'<>.|$^-]|\\[.()\[\]+*?|$^\\dws-]|\[[A-Za-z0-9_]+(?:-[A-Za-z0-9])?[A-Za-z0-9_]*\]"
    r"|\((?!\?)|\)|(?<!^)(?<![*+?|(^])[*+?])+"
)
_PATTERN_MAX_CHARS: Final = 512
_ESCAPED: Final = re.compile(r"\\.")
# A search that is quicker than this is not worth a process of its own; after a slow one, so long.
_SLOW_S: Final = 0.5
_HINTED_FOR_S: Final = 600.0
# A hint that leaves more than this of a search's time is given up for as long.
_WORTH_IT: Final = 0.9
_TIMEOUT_S: Final = 60.0
_FOUND, _NOT_FOUND = 0, 1


class Commands(Protocol):
    """What runs commands; `commands.CommandService` is the real one."""

    async def admit(self, request: CommandRequest) -> AdmittedCommand:
        """Take a request through gate one."""
        ...

    async def run(
        self, admitted: AdmittedCommand, sink: OutputSink, *, stop: StopSignal, capture_limit_bytes: int | None
    ) -> CommandRun:
        """Run it to its end."""
        ...


def command_text(args: GrepArgs) -> str | None:
    """Return the command that names every file whose lines may match, or that holds a NUL byte; None if there is none.

    Run in the directory to search, it writes names with a NUL behind each.
    """
    if len(args.pattern) > _PATTERN_MAX_CHARS or not _SHARED.fullmatch(args.pattern):
        return None
    if args.case not in ("smart", "sensitive", "insensitive"):
        return None
    letters = _ESCAPED.sub("", args.pattern)
    ignores_case = args.case == "insensitive" or (args.case == "smart" and letters == letters.lower())
    # Binary files are to be counted, so they are looked for as well; --text, or a NUL would end the looking.
    words = ["rg", "--no-config", "-uuu", "--text", "--encoding", "none", "--files-with-matches", "--null"]
    words += ["--ignore-case" if ignores_case else "--case-sensitive"]
    words += ["-e", args.pattern, "-e", r"(?-u:\x00)", "."]
    return shlex.join(words)


class Ripgrep:
    """Names the files for a search, where that is likely to help."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._until_s = float("-inf")
        self._not_before_s = float("-inf")
        self._without_s = 0.0  # what the last slow search without a hint took

    def took(self, seconds: float, *, hinted: bool) -> None:
        """Note how long a search took, the asking for a hint included."""
        now_s = trio.current_time()
        if hinted and seconds > self._without_s * _WORTH_IT:
            self._until_s, self._not_before_s = float("-inf"), now_s + _HINTED_FOR_S
        elif not hinted and seconds >= _SLOW_S and now_s >= self._not_before_s:
            self._until_s, self._without_s = now_s + _HINTED_FOR_S, seconds

    async def candidates(self, args: GrepArgs) -> bytes | None:
        """Return the paths, relative to the workspace and with a NUL between them; None when there is no hint."""
        text = command_text(args)
        if text is None or trio.current_time() >= self._until_s:
            return None
        parts: list[bytes] = []
        failed = False

        async def sink(stream: Stream, data: bytes) -> None:
            nonlocal failed
            if stream is Stream.STDERR or sum(map(len, parts)) + len(data) > WORKER_FRAME_MAX_BYTES // 2:
                failed = True
            else:
                parts.append(data)
            await trio.lowlevel.checkpoint()

        where = path_as_text(args.path_bytes) if args.path else ""
        try:
            admitted = await self._commands.admit(CommandRequest(text=text, workdir=where, timeout_s=_TIMEOUT_S))
            run = await self._commands.run(admitted, sink, stop=StopSignal(), capture_limit_bytes=None)
        except (Refusal, PeerError):
            # The policy, or the wall: then it is searched without, and not tried again for every search.
            self._until_s = float("-inf")
            return None
        if failed or run.outcome.exit_code not in (_FOUND, _NOT_FOUND):
            return None
        prefix = args.path_bytes.rstrip(b"/") + b"/" if args.path else b""
        names = b"".join(parts).split(b"\0")
        return b"\0".join(prefix + name.removeprefix(b"./") for name in names if name)
