"""`guardhouse skill` in a process of its own: from a directory to a version that is used, and what it refuses."""

import json

import pytest

from guardhouse.cli.client import ClientError
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.skill_pack import pack_directory


async def test_a_directory_becomes_a_skill_with_versions(cli, hub):
    """Packed, uploaded, bound, replaced, rolled back; wrong front matter is refused with its line."""
    await hub.environment()
    place = cli.directory / "read-logs"
    place.mkdir()
    (place / "SKILL.md").write_text("---\nname: read-logs\ndescription: Reads logs.\n---\n")
    (place / "run.sh").write_text("#!/bin/sh\n")
    (place / "run.sh").chmod(0o755)
    added = await cli.run("skill", "add", "read-logs", "--env", "web-1", "--json")
    assert added.returncode == 0, added.stderr
    made = json.loads(added.stdout)["skill"]
    assert (made["name"], made["current"]["files"], len(made["environment_ids"])) == ("read-logs", 2, 1)
    shown = await cli.run("skill", "show", "read-logs")
    assert b"missing" in shown.stdout
    assert b"web-1" in shown.stdout
    (place / "run.sh").write_text("#!/bin/sh\ntrue\n")
    replaced = await cli.run("skill", "add", "read-logs", "--replace", "read-logs")
    assert replaced.stdout.startswith(b"read-logs is version 2")
    used = await cli.run("skill", "use", "read-logs", "1")
    assert used.stdout.startswith(b"read-logs: version 1, bound to 1 environments")
    (place / "SKILL.md").write_text("---\nname: Read Logs\ndescription: x\n---\n")
    refused = await cli.run("skill", "add", "read-logs")
    assert (refused.returncode, b"SKILL.md line 2 has a name" in refused.stderr) == (ExitCode.FAILED, True)


def test_what_no_skill_holds_is_not_packed(tmp_path):
    """A link ends the packing, naming it; without it equal content is equal bytes."""
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        (place / "SKILL.md").write_text("---\nname: demo\ndescription: x\n---\n")
    assert pack_directory(tmp_path / "one") == pack_directory(tmp_path / "two")
    (tmp_path / "one" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ClientError, match="'link' is no regular file"):
        pack_directory(tmp_path / "one")
    (tmp_path / "two" / "SKILL.md").unlink()
    with pytest.raises(ClientError, match=r"no SKILL.md"):
        pack_directory(tmp_path / "two")
