"""Secrets stay on the host: in streamed output, results, saved output, errors, files that are read, and the log."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.support.platform_stub import open_stub
from tests.support.runner_process import make_directory, remove_directory, start_runner

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.errors import SetupError
from guardhouse.limits import CAPTURE_LIMIT_BYTES
from guardhouse.runner.credential import Token
from guardhouse.runner.redaction import RedactedOutput, Redaction, load_redaction
from guardhouse.values import Stream
from guardhouse.wire.messages import TaskResult
from guardhouse.wire.operations import ReadResult

TOKEN = "wnt_canary_c0de"
# Put together here, so that this file holds nothing that looks like a key.
KEY = "AKIA" + "QX7Z" * 4
VALUE = "tr0ub4dor and 3"


@pytest.fixture(scope="module")
def redaction() -> Redaction:
    return load_redaction(())


def value_file(directory: Path, text: str = f"PIN={VALUE}\n", mode: int = 0o600) -> Path:
    path = directory / "values"
    path.write_text(text)
    path.chmod(mode)
    return path


class Sink:
    def __init__(self) -> None:
        self.parts: dict[Stream, list[bytes]] = {stream: [] for stream in Stream}

    async def __call__(self, stream: Stream, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.parts[stream].append(data)


@pytest.mark.parametrize("size", [1, 3, 7, 4096])
async def test_a_secret_that_comes_in_pieces_never_leaves(redaction, size) -> None:
    """However the pipe cuts it; what is kept for the result is what was streamed; the streams do not mix."""
    sink = Sink()
    output = RedactedOutput(redaction, sink)
    text = f"before {KEY} after\nlast {KEY}".encode()
    for at in range(0, len(text), size):
        await output.take(Stream.STDOUT, text[at : at + size])
        await output.take(Stream.STDERR, b".")
    await output.finish()
    said = b"".join(sink.parts[Stream.STDOUT])
    assert said == b"before [redacted: aws_access_key] after\nlast [redacted: aws_access_key]"
    assert output.captures[Stream.STDOUT].content == said
    assert b"".join(sink.parts[Stream.STDERR]) == b"." * len(range(0, len(text), size))


async def test_ordinary_output_is_exact(redaction) -> None:
    """The twin: bytes that hold no secret come out as they went in, all 256 of them."""
    sink = Sink()
    output = RedactedOutput(redaction, sink)
    data = bytes(range(256)) * 40
    await output.take(Stream.STDOUT, data)
    await output.finish()
    assert b"".join(sink.parts[Stream.STDOUT]) == data


async def test_past_the_capture_limit_output_is_counted_and_does_not_leave(redaction) -> None:
    """10 MiB of redacted output leave; the rest is counted."""
    sink = Sink()
    output = RedactedOutput(redaction, sink)
    line = b"x" * 65_535 + b"\n"
    for _ in range(CAPTURE_LIMIT_BYTES // len(line) + 5):
        await output.take(Stream.STDOUT, line)
    await output.finish()
    capture = output.captures[Stream.STDOUT]
    assert capture.kept_bytes == CAPTURE_LIMIT_BYTES == sum(map(len, sink.parts[Stream.STDOUT]))
    assert capture.dropped_bytes == 5 * len(line)


def test_a_result_holds_no_secret_anywhere(redaction) -> None:
    """Texts, argument vectors, keys' values, the error: all of it plain data without the secret."""
    result = TaskResult(
        task_id="t",
        success=False,
        error=f"command denied: {KEY}",
        result={
            "decision": {"command": f"x {KEY}", "commands": [{"argv": ["mysql", "--password", "hunter2"]}]},
            "execs": [{"argv": ["psql", "--password", "hunter2", "-c"], "path": "/usr/bin/psql"}],
            "exit_code": 3,
        },
    )
    found = redaction.result(result)
    text = json.dumps([found.error, found.result])
    assert KEY not in text
    assert "hunter2" not in text
    assert found.result["exit_code"] == 3
    assert found.result["execs"][0]["path"] == "/usr/bin/psql"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"a": [{"b": ("x", f"y {KEY}")}]}, id="deep"),
        pytest.param({f"k {KEY}": 1}, id="in-a-key"),
        pytest.param({"raw": KEY.encode()}, id="bytes"),
        pytest.param({"api_key": "x1y2z3"}, id="by-name"),
        pytest.param({"argv": ["x", "--token", "x1y2z3"]}, id="by-option"),
        pytest.param([["\udc80", KEY]], id="beside-a-lone-surrogate"),
    ],
)
def test_one_secret_is_found_wherever_it_stands(redaction, value) -> None:
    """Also where everything else in the result is clean."""
    found = redaction.result(TaskResult(task_id="t", success=True, result={"value": value, "more": ["clean"] * 50}))
    assert KEY not in repr(found.result)
    assert "x1y2z3" not in repr(found.result)
    assert "redacted: " in repr(found.result)


def test_a_result_without_a_secret_is_as_it_was(redaction) -> None:
    """The twin."""
    value = {
        "value": [1, None, True, 2.5, "text", {"path": "/a", "argv": ["ls", "-l"]}],
        "checksum": "sha256:" + "0" * 64,
    }
    assert redaction.result(TaskResult(task_id="t", success=True, result=value)).result == value


def test_a_file_with_a_secret_says_that_it_is_not_the_file(redaction) -> None:
    """The content has a marker, a note says so, and the checksum that would confirm a guess is left out."""
    read = ReadResult(content=f"id = {KEY}\n".encode(), total_size=26, checksum="sha256:" + "0" * 64)
    found = redaction.result(TaskResult(task_id="t", success=True, result=read)).result
    assert found.content == b"id = [redacted: aws_access_key]\n"
    assert found.checksum is None
    assert "1 secrets were taken out" in found.notes[0]


def test_a_file_without_one_is_exact(redaction) -> None:
    """The twin, with its checksum."""
    read = ReadResult(content=bytes(range(256)), total_size=256, checksum="sha256:" + "0" * 64)
    assert redaction.result(TaskResult(task_id="t", success=True, result=read)).result == read


def test_values_of_the_operator_and_the_own_token_go_too(tmp_path) -> None:
    """Named values stand beside the patterns, and the token in whatever form it has."""
    redaction = load_redaction((value_file(tmp_path),), Token("an odd token"))
    encoded = base64.b64encode(VALUE.encode()).decode()
    said = redaction.text(f"{VALUE}, {encoded}, an odd token, {KEY}")
    assert "[redacted: pin]" in said
    assert "[redacted: runner_token]" in said
    for secret in (VALUE, encoded[:16], "an odd token", KEY):
        assert secret not in said


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        pytest.param(f"PIN={VALUE}\n", 0o644, "open to everybody", id="readable"),
        pytest.param(f"PIN={VALUE}\n", 0o602, "open to everybody", id="writable"),
        pytest.param(f"{VALUE}\n", 0o600, "not NAME=VALUE", id="form"),
        pytest.param("PIN=1234\n", 0o600, "too few bytes", id="short"),
    ],
)
def test_a_value_file_that_cannot_be_used_ends_the_start(tmp_path, text, mode, words) -> None:
    """Each with words, and without the value."""
    with pytest.raises(SetupError, match=words) as caught:
        load_redaction((value_file(tmp_path, text, mode),))
    assert VALUE not in str(caught.value)


@pytest.fixture
def directory() -> Iterator[Path]:
    place = make_directory()
    yield place
    remove_directory(place)


async def test_nothing_that_leaves_a_real_runner_holds_the_secret(directory) -> None:
    """A command prints, saves and fails with secrets; the platform's whole conversation and the log hold none."""
    values = value_file(directory)
    arguments = ("--redact-file", str(values))
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=arguments) as runner,
    ):
        peer = await stub.peer()
        halves = f"printf '{KEY[:9]}'; sleep 0.2; echo '{KEY[9:]}'"
        shown = await peer.run(f"{halves}; printf 'pin {VALUE}'; echo 'err {VALUE}' >&2")
        assert "[redacted: aws_access_key]" in shown["result"]["stdout"]
        assert "pin [redacted: pin]" in shown["result"]["stdout"]
        assert "err [redacted: pin]" in shown["result"]["stderr"]
        assert peer.output_of(shown["task_id"], "stdout") == shown["result"]["stdout"]
        long = await peer.run(f"for i in $(seq 4000); do echo line $i {KEY[:8]}{KEY[8:]}; done")
        assert long["result"]["truncated"]
        saved = (await trio.Path(runner.workspace / long["result"]["file_path"]).read_text()).splitlines()
        assert saved[0] == "line 1 [redacted: aws_access_key]"
        denied = await peer.run(f"forbidden {KEY}")
        assert denied["error"].startswith("command denied: ")
        content = base64.b64encode(f"k={KEY}\n".encode()).decode()
        await peer.result_of(await peer.ask("write", {"path": "f", "content": content}))
        read = await peer.result_of(await peer.ask("read", {"path": "f"}))
        assert b"[redacted: aws_access_key]" in base64.b64decode(read["result"]["content"])
        grep = await peer.result_of(await peer.ask("grep", {"pattern": "k=", "path": "f"}))
        assert "[redacted: aws_access_key]" in json.dumps(grep)
        hidden = await peer.run(f"cat {values}")
        assert hidden["result"]["exit_code"] != 0
        everything = json.dumps(peer.heard) + runner.text
    assert VALUE not in everything
    assert KEY not in everything


async def test_a_bad_value_file_ends_the_start(directory) -> None:
    """The runner does not start without what it was told to hide."""
    values = value_file(directory, mode=0o644)
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=("--redact-file", str(values))) as runner,
    ):
        assert await runner.ended() == ExitCode.SETUP
        assert "--redact-file" in runner.text
