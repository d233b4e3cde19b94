"""`guardhouse cp`: both ways, over cuts, started again, and what is left behind when it fails."""

import hashlib
import json
import os

import pytest
from tests.support.file_stub import serving_files

CONTENT = os.urandom(10_500)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


async def test_there_and_back(hub, cli, tmp_path) -> None:
    """A file goes up and comes down the same over broken connections; what was taken out is said."""
    (tmp_path / "f").write_bytes(CONTENT)
    async with serving_files(hub, cut_before=(2, 7, 11)) as stub:
        up = await cli.run("cp", "f", "web-1:data/")
        assert up.returncode == 0, up.stderr
        assert stub.files["data/f"] == CONTENT
        down = await cli.run("cp", "web-1:data/f", "back", "--json")
        assert down.returncode == 0, down.stderr
        assert (tmp_path / "back").read_bytes() == CONTENT
        assert json.loads(down.stdout) == {"path": "data/f", "size": 10_500, "checksum": CHECKSUM, "secrets": 2}
        assert b"2 secrets were taken out" in down.stderr
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["back", "f"]


@pytest.mark.parametrize("left", [CONTENT[:5_000], b"of another version" * 100, CONTENT, CONTENT + b"more"])
async def test_an_ended_download_is_gone_on_from(left: bytes, hub, cli, tmp_path) -> None:
    """What an earlier try left is used where it is the file's beginning, and thrown away where it is not."""
    (tmp_path / "back.guardhouse-part").write_bytes(left)
    async with serving_files(hub) as stub:
        stub.files["f"] = CONTENT
        done = await cli.run("cp", "web-1:f", "back")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "back").read_bytes() == CONTENT
        assert stub.calls[0]["offset"] == len(left)
        assert (left in CONTENT) == all(call.get("offset", 0) >= len(left) for call in stub.calls)
        assert not (tmp_path / "back.guardhouse-part").exists()


async def test_an_ended_upload_is_gone_on_from(hub, cli, tmp_path) -> None:
    """What has arrived is not sent again."""
    (tmp_path / "f").write_bytes(CONTENT)
    async with serving_files(hub) as stub:
        stub.refusal = ("busy", "not now")
        assert (await cli.run("cp", "f", "web-1:f", "--retry-for", "0")).returncode == 5
        (transfer,) = {call["transfer_id"] for call in stub.calls}
        stub.uploads[transfer] = bytearray(CONTENT[:7_000])
        stub.refusal = None
        stub.calls.clear()
        assert (await cli.run("cp", "f", "web-1:f")).returncode == 0
        assert stub.files["f"] == CONTENT
        assert [call.get("offset", 0) for call in stub.calls] == [0, 7_000, 10_500]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("f", "g"), 2, b"one of SOURCE and TARGET"),
        (("web-1:a", "web-1:b"), 2, b"one of SOURCE and TARGET"),
        (("not-there", "web-1:b"), 1, b"cannot open not-there"),
        (("web-2:a", "b"), 3, b"no environment 'web-2'"),
        (("web-1:a", "b", "--if-checksum", "none"), 2, b"--if-checksum is for a copy to"),
    ],
)
async def test_what_cannot_be_copied(words, status, said, hub, cli) -> None:
    """Each mistake has its words and its status."""
    await hub.environment()
    done = await cli.run("cp", *words)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


async def test_a_refusal_leaves_nothing(hub, cli, tmp_path) -> None:
    """The runner's words are told, and no file appears."""
    async with serving_files(hub) as stub:
        stub.files["f"] = b""
        stub.refusal = ("not_found", "no such file or directory: 'f'")
        done = await cli.run("cp", "web-1:f", "back")
        assert (done.returncode, b"no such file or directory" in done.stderr) == (3, True)
        assert not (tmp_path / "back").exists()
