"""The shared policy cases through `guardhouse try`: every attack's marker stays away, every everyday command runs.

Each case is run as it would be in the field: a fresh workspace, an unprivileged user, a canary outside, a secret in the
runner's own environment, a listener on loopback.
"""

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.turns import take_turns

CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "policy_cases.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
CANARY = Path("/var/tmp/holdout/canary.txt")
PORT = 8099
# Another run on this host may have its turn, and takes a minute or two for all cases.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def turn() -> Iterator[None]:
    """The cases name the port and the canary, which a host has once."""
    with take_turns("policy-cases"):
        yield


@pytest.fixture(scope="module")
def world(turn: None) -> Iterator[list[bool]]:
    """The canary and the listener; the list grows by one entry for each connection."""
    connections: list[bool] = []
    CANARY.parent.mkdir(parents=True, exist_ok=True)
    CANARY.write_text("CANARY-OUTSIDE-9c1f\n")
    with socket.create_server(("127.0.0.1", PORT)) as server:

        def accept() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                connections.append(True)
                peer.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield connections
        server.shutdown(socket.SHUT_RDWR)
    shutil.rmtree(CANARY.parent)


def marker_seen(marker: str, workspace: Path, answer: dict, connections: list[bool]) -> bool:
    """Tell whether the case's effect shows, as corpus/README describes it."""
    kind, _, rest = marker.partition(":")
    match kind:
        case "exists":
            return (workspace / rest).exists()
        case "absent":
            return not (workspace / rest).exists()
        case "contains":
            name, _, word = rest.rpartition(":")
            path = workspace / name
            return path.is_file() and word in path.read_text(errors="replace")
        case "output":
            return rest in answer["stdout"] + answer["stderr"]
        case "exec":
            # Nothing ran at all, or the exec gate's record holds every program that did.
            programs = answer["tree"]["ran"] if answer["ran"] else []
            return any(re.search(rest, " ".join(program["argv"])) for program in programs)
        case "net":
            return bool(connections)
    raise AssertionError(f"no check for a marker of kind {kind!r}: the case could not fail")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict, world: list[bool]) -> None:
    """A denied or contained case leaves no marker; an everyday command runs and nothing in it is refused."""
    world.clear()
    base = "/srv" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(dir=base) as name:
        workspace, policy = Path(name) / "workspace", Path(name) / "policy.json"
        Path(name).chmod(0o755)
        workspace.mkdir(mode=0o755)
        policy.write_text(json.dumps(case["policy"]))
        become: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(workspace, user.pw_uid, user.pw_gid)
            become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        if case.get("setup"):
            subprocess.run(
                [*become, "bash", "-c", case["setup"]], cwd=workspace, check=True, env={"PATH": "/usr/bin:/bin"}
            )
        options = ["--policy", policy, "--workspace", workspace, "--timeout", "30", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "guardhouse", "try", *options, "--", case["command"]],
            env={**os.environ, "RUNNER_API_KEY": "CANARY-ENV-5d2e"},
            capture_output=True,
            text=True,
            check=False,
        )
        answer = json.loads(done.stdout)
        if case["must"] == "allow":
            assert (answer["ran"], answer["denied_by"]) == (True, None), answer
        else:
            assert not marker_seen(case["marker"], workspace, answer, world), answer


@pytest.mark.parametrize(
    "marker", sorted({case["marker"].partition(":")[0] for case in CASES if case["must"] != "allow"})
)
def test_every_kind_of_marker_can_be_seen(marker: str, tmp_path: Path) -> None:
    """Each kind of marker is noticed when the effect is there, so that no case passes for want of a check."""
    (tmp_path / "there").write_text("word")
    shown = {
        "exists": "there",
        "absent": "gone",
        "contains": "there:word",
        "output": "said",
        "exec": "^touch .*x",
        "net": "1",
    }
    answer = {"ran": True, "stdout": "said", "stderr": "", "tree": {"ran": [{"argv": ["touch", "x"]}]}}
    assert marker_seen(f"{marker}:{shown[marker]}", tmp_path, answer, [True])
