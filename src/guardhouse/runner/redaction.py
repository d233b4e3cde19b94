"""What leaves this host, with secrets taken out: output as it streams, results, error texts, log lines.

One object made at the start from redaction/patterns.yaml, the operator's ``--redact-file`` and the runner's own token.
There is no way to run without it. Runs in the runner.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from guardhouse.data_files import shipped_directory
from guardhouse.errors import SetupError
from guardhouse.limits import CAPTURE_LIMIT_BYTES, REDACTION_VALUE_MIN_BYTES
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode
from guardhouse.policy.yaml_text import parse_yaml_text
from guardhouse.redaction import (
    Literal,
    RedactionRules,
    Redactor,
    literals_of,
    load_rules,
    parse_value_lines,
    redact_argv,
    redact_data,
)
from guardhouse.runner.capture import Capture
from guardhouse.runner.command_parts import OutputClosedError, OutputSink
from guardhouse.runner.credential import Token
from guardhouse.values import Stream
from guardhouse.wire.messages import TaskResult
from guardhouse.wire.operations import ReadResult

__all__ = [
    *("RedactedOutput", "Redaction", "load_redaction", "make_redaction"),
    *("read_literals", "read_patterns", "read_value_file"),
]

# 500 values of 8 KiB, with names: far above what anybody lists, far below what would hurt.
_VALUE_FILE_MAX_BYTES: Final = 5 * 1024 * 1024


class Redaction:
    """Knows what is secret here."""

    def __init__(self, rules: RedactionRules, literals: Sequence[Literal] = ()) -> None:
        self.redactor = Redactor((*rules.patterns, *literals))
        self._names = rules.names
        # Results have the same few keys again and again.
        self._is_secret_key = lru_cache(maxsize=1024)(rules.names.is_secret_key)

    def text(self, text: str) -> str:
        """Return ``text`` with a marker in place of each secret."""
        return self.redactor.redact_text(text)

    def data(self, value: Any) -> Any:
        """Return plain data (mappings, lists, texts) with a marker in place of each secret, argument vectors too."""
        return self._value(value)

    def result(self, result: TaskResult) -> TaskResult:
        """Return a task's result as it may leave: every text in it, and the bytes of a file that was read."""
        return msgspec.structs.replace(
            result,
            error=None if result.error is None else self.text(result.error),
            result=self._value(result.result),
            decision=None if result.decision is None else self._value(result.decision),
        )

    def _value(self, value: Any) -> Any:
        if isinstance(value, ReadResult):
            return self._read(value)
        if isinstance(value, msgspec.Struct):
            value = msgspec.to_builtins(value, builtin_types=(bytes,))
        if self._is_clean(value):
            return value
        return redact_data(self.redactor, self._names, self._with_argv(value))

    def _is_clean(self, value: Any) -> bool:
        """Whether plain data holds no secret: all its texts looked through as one, each on lines of its own.

        A result has about a hundred short texts and seldom a secret; one by one they take twenty times as long.
        """
        texts: list[str] = []
        others: list[bytes] = []
        keys: set[Any] = set()
        rest = [value]
        while rest:
            item = rest.pop()
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, dict):
                if any(isinstance(key, str) and self._is_secret_key(key) for key in item):
                    return False
                keys |= item.keys()
                rest += item.values()
            elif isinstance(item, list | tuple):
                rest += item
            elif isinstance(item, bytes):
                others.append(item)
        if not self._names.options.isdisjoint(texts):
            return False
        texts += [key for key in keys if isinstance(key, str)]
        whole = b"\n".join(("\n".join(texts).encode("utf-8", "surrogatepass"), *others))
        return not self.redactor.redact_counted(whole)[1]

    def _read(self, value: ReadResult) -> ReadResult:
        content, counts = self.redactor.redact_counted(value.content)
        taken_out = sum(counts.values())
        if not taken_out:
            return value
        note = f"{taken_out} secrets were taken out of this content; writing it back would write the markers"
        # The checksum of the whole would confirm a guess at what was taken out.
        return msgspec.structs.replace(value, content=content, checksum=None, notes=(*value.notes, note))

    def _with_argv(self, value: Any) -> Any:
        """Return plain data with the words after options like ``--password`` gone from every argument vector."""
        if isinstance(value, Mapping):
            return {
                key: list(redact_argv(self.redactor, self._names, item))
                if key == "argv" and isinstance(item, list | tuple) and all(isinstance(word, str) for word in item)
                else self._with_argv(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._with_argv(item) for item in value]
        return value


class RedactedOutput:
    """A command's output between its pipes and whoever gets it: what is kept is what was passed on.

    Give ``take`` to `CommandService.run` with no capture limit of its own; call ``finish`` when the command is over.
    With ``limit_bytes`` None everything passes and nothing is kept.
    """

    def __init__(
        self, redaction: Redaction, sink: OutputSink, *, limit_bytes: int | None = CAPTURE_LIMIT_BYTES
    ) -> None:
        self._sink = sink
        self._streams = {stream: redaction.redactor.stream() for stream in Stream}
        self.captures = {stream: Capture(limit_bytes=limit_bytes) for stream in Stream}

    async def take(self, stream: Stream, data: bytes) -> None:
        """Take the next bytes of one stream; pass on what may leave."""
        capture = self.captures[stream]
        # Past the limit nothing leaves, so nothing is looked at: it is only counted.
        await self._pass_on(stream, data if capture.is_full else self._streams[stream].feed(data))

    async def finish(self) -> None:
        """Pass on what was held back, once no more can come."""
        for stream in Stream:
            with suppress(OutputClosedError):  # nobody listens to this one any more
                await self._pass_on(stream, self._streams[stream].flush())

    async def _pass_on(self, stream: Stream, data: bytes) -> None:
        kept = self.captures[stream].add(data)
        if kept:
            await self._sink(stream, kept)


def load_redaction(value_files: Sequence[Path], token: Token | None = None) -> Redaction:
    """Return the one object that everything passes before it leaves.

    Args:
        value_files: the operator's, lines of ``NAME=VALUE``.
        token: the runner's own, whatever its form.

    Raises:
        SetupError: a file cannot be read, is open to everybody, or holds what cannot be a value.
    """
    return make_redaction(read_literals(value_files, token), read_patterns())


def read_literals(value_files: Sequence[Path], token: Token | None = None) -> tuple[Literal, ...]:
    """Return what the operator names and the runner's token, in every form in which they are taken out.

    Raises:
        SetupError: as `load_redaction`.
    """
    literals: list[Literal] = []
    for file in value_files:
        literals += literals_of(parse_value_lines(read_value_file(file), name=str(file)), name=str(file))
    if token is not None and len(token.reveal()) >= REDACTION_VALUE_MIN_BYTES:
        literals += literals_of({"runner_token": token.reveal().encode()}, name="token")
    return tuple(literals)


def read_patterns() -> tuple[str, str]:
    """Return text and name of the shipped patterns; read before privileges drop, as the account may not be able to."""
    path = shipped_directory("redaction") / "patterns.yaml"
    return path.read_text(encoding="utf-8"), str(path)


def make_redaction(literals: Sequence[Literal], patterns: tuple[str, str]) -> Redaction:
    """Return the one object for ``literals`` and what `read_patterns` gave; compiling takes a quarter of a second."""
    return Redaction(_compile_patterns(*patterns), literals)


def read_value_file(path: Path) -> str:
    """Return the text of a ``--redact-file``.

    Raises:
        SetupError: it cannot be read, is larger than 5 MiB, or everybody may read or change it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_VALUE_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise SetupError(f"--redact-file: cannot read {path}: {error.strerror}; check the path") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise SetupError(
            f"--redact-file: {path} is open to everybody (mode {stat.S_IMODE(mode):04o}); run: chmod 0600 {path}"
        )
    if len(content) > _VALUE_FILE_MAX_BYTES:
        raise SetupError(f"--redact-file: {path} is larger than {_VALUE_FILE_MAX_BYTES} bytes; is it the right file?")
    return content.decode("utf-8", "surrogateescape")


def _compile_patterns(text: str, name: str) -> RedactionRules:
    places: dict[tuple[str | int, ...], str] = {}
    node = parse_yaml_text(text, name=name)
    data = None if node is None else _plain(node, (), places)
    return load_rules(data, place=lambda at: places.get(at, name))


def _plain(node: Node, at: tuple[str | int, ...], places: dict[tuple[str | int, ...], str]) -> Any:
    """Return nodes as plain data; ``places`` gets where each value, or its key, is written."""
    places[at] = node.place
    if isinstance(node, MappingNode):
        data = {}
        for key, value in node.items:
            data[key.value] = _plain(value, (*at, key.value), places)
            places[*at, key.value] = key.place
        return data
    if isinstance(node, SequenceNode):
        return [_plain(item, (*at, number), places) for number, item in enumerate(node.items)]
    return node.value
