"""Files that the kernel hands to an interpreter by their first bytes (binfmt_misc) are judged as file and interpreter.

Linux 6.7 lets a user namespace have formats of its own, which is how one is registered here without touching the host.
"""

import json
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest

# Flags of Documentation/admin-guide/binfmt-misc.rst, each its own magic: none, P (argv[0] is kept), O and C (the
# file comes as a descriptor, with its credentials), F (the interpreter was opened when the format was registered).
FLAGS = {"PLAIN": "", "KEEPS": "P", "OPENS": "OC", "FIXED": "F"}
REGISTER = """
set -e
mkdir formats
mount -t binfmt_misc none formats
"""
TRY = (
    "cd {place} && unshare -U --map-user=1000 --map-group=1000 {python} -m guardhouse try --policy {policy}.yaml"
    " --profile isolate --workspace work --json -- {command} > result.json || true"
)
POLICIES = {
    "no_file": {"*": "allow", "./marked_*": "deny"},
    "no_interpreter": {"*": "allow", "cat *": "deny"},
    "file_only": {"bash *": "allow", "./marked_*": "allow"},
    "both": {"bash *": "allow", "./marked_*": "allow", "cat *": "allow"},
}
# Undecided by the text alone, so that only the gate can tell. The last of a row: whether the marker may be read.
EVERY = "bash -c 'for one in PLAIN KEEPS OPENS FIXED; do ./marked_$one; done'"
COPIED = "bash -c 'for one in PLAIN KEEPS OPENS FIXED; do ./marked_$one; cp marked_$one other; ./other; done'"
ROWS = [
    pytest.param("no_file", EVERY, False, id="the file is denied"),
    pytest.param("no_interpreter", COPIED, False, id="the interpreter is denied"),
    pytest.param("file_only", EVERY, False, id="only the file is allowed"),
    pytest.param("both", EVERY, True, id="file and interpreter are allowed"),
]


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """A workspace with a file of each format, and the script that registers them."""
    place = tmp_path_factory.mktemp("binfmt")
    work = place / "work"
    work.mkdir(mode=0o755)
    lines = REGISTER
    for magic, flags in FLAGS.items():
        lines += f"echo ':guardhouse-{magic}:M::{magic}::/bin/cat:{flags}' > formats/register\n"
        (work / f"marked_{magic}").write_text(f"{magic} was read\n")
        (work / f"marked_{magic}").chmod(0o755)
    for name, rules in POLICIES.items():
        document = {"version": 1, "about": "binfmt_misc", "permission": {"bash": rules}}
        (place / f"{name}.yaml").write_text(json.dumps(document))
    probe = subprocess.run(["unshare", "-Urm", "sh", "-c", REGISTER], cwd=place, capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"no binfmt_misc of a user namespace's own (Linux 6.7): {probe.stderr.strip()}")
    (place / "formats").rmdir()
    return place, lines


@pytest.mark.parametrize(("policy", "command", "is_read"), ROWS)
def test_binfmt(formats: tuple[Path, str], policy: str, command: str, is_read: bool) -> None:
    """What a registered interpreter is given runs only where both are allowed, whatever the format's flags."""
    place, register = formats
    script = register + TRY.format(place=place, python=sys.executable, policy=policy, command=quote(command))
    subprocess.run(["unshare", "-Urm", "bash", "-c", script], cwd=place, check=True, timeout=60)
    (place / "formats").rmdir()
    told = json.loads((place / "result.json").read_text())
    output = told["stdout"]
    assert all((f"{magic} was read" in output) is is_read for magic in FLAGS), told
    assert is_read or told["denied_by"]["gate"] == "exec gate", told
