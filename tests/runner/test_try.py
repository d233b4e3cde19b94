"""`guardhouse try` as a process: the command's own output and status, denials, the JSON object, both kinds of user."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.support.reachable import reachable_python_path
from tests.support.runner_process import ACCOUNT, make_directory, remove_directory


@pytest.fixture(scope="module")
def policy():
    directory = make_directory()
    yield str(directory / "policy.yaml")
    remove_directory(directory)


def try_(policy, *arguments, **more) -> subprocess.CompletedProcess:
    account = ("--run-as", ACCOUNT) if ACCOUNT is not None else ()
    command = [sys.executable, "-m", "guardhouse", "try", "--policy", policy, *account, *arguments]
    return subprocess.run(command, capture_output=True, timeout=180, check=False, **more)


def test_output_and_status_are_the_commands_own(policy) -> None:
    """Bytes of both streams and the exit status come through exactly."""
    done = try_(policy, "--", r"printf 'a\377\000b'; printf 'e\376' >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"a\xff\x00b", b"e\xfe", 7)


def test_a_signal_is_128_plus_its_number(policy) -> None:
    """A command that is killed ends as a shell would say it."""
    assert try_(policy, "--", "kill -KILL $$").returncode == 137


def test_denied_is_126_with_the_reason(policy) -> None:
    """A denied command writes nothing to standard output and says why on standard error."""
    done = try_(policy, "--", "forbidden thing")
    assert (done.stdout, done.returncode) == (b"", 126)
    assert b"command denied: 'forbidden thing' matches 'forbidden *'" in done.stderr


def test_json_of_a_command_that_ran(policy) -> None:
    """The object has every promised key; bytes that are no text are there exactly as well."""
    done = try_(policy, "--json", "--", r"printf '\377'; echo e >&2; exit 3")
    said = json.loads(done.stdout)
    assert done.returncode == 3
    assert {
        key: said[key] for key in ("verdict", "ran", "denied_by", "exit_code", "stdout", "stderr", "timed_out")
    } == {
        "verdict": "allow",
        "ran": True,
        "denied_by": None,
        "exit_code": 3,
        "stdout": "\ufffd",
        "stderr": "e\n",
        "timed_out": False,
    }
    assert base64.b64decode(said["stdout_b64"]) == b"\xff"


def test_json_of_a_denied_command(policy) -> None:
    """The object names gate, rule and place."""
    done = try_(policy, "--json", "--", "echo a; forbidden thing")
    said = json.loads(done.stdout)
    assert done.returncode == 126
    assert (said["verdict"], said["ran"], said["exit_code"]) == ("deny", False, 126)
    assert said["denied_by"]["gate"] == "policy"
    assert said["denied_by"]["rule"] == "forbidden *"
    assert said["denied_by"]["place"].endswith("policy.yaml:4:5")


def test_time_limit_is_124(policy) -> None:
    """The whole tree is ended at the time limit."""
    began_s = time.monotonic()
    done = try_(policy, "--timeout", "1", "--", "sleep 311 & sleep 311")
    assert done.returncode == 124
    assert time.monotonic() - began_s < 100
    assert json.loads(try_(policy, "--json", "--timeout", "0.5", "--", "sleep 311").stdout)["timed_out"] is True


def test_standard_input_is_empty(policy) -> None:
    """A command that reads standard input gets its end at once, whatever ours is."""
    assert try_(policy, "--", "wc -c", input=b"not for you").stdout == b"0\n"


def test_large_output_comes_whole(policy) -> None:
    """Output is passed on as it comes, without a limit of ours."""
    done = try_(policy, "--", "head -c 20000000 /dev/zero")
    assert (len(done.stdout), done.returncode) == (20_000_000, 0)


def test_a_closed_pipe_ends_the_command(policy) -> None:
    """`guardhouse try … | head -1` ends like the command itself would."""
    account = f"--run-as {ACCOUNT}" if ACCOUNT is not None else ""
    line = f"{sys.executable} -m guardhouse try --policy {policy} {account} -- yes | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=120, check=False)
    assert done.stdout == b"y\n"


def test_the_default_workspace_is_empty_and_removed(policy) -> None:
    """Without --workspace the command has an empty directory of its own that is gone afterwards."""
    done = try_(policy, "--", "pwd; ls -A; touch f && mkdir -p d/e && echo written")
    place = done.stdout.decode().splitlines()[0]
    assert done.stdout.decode().splitlines()[1:] == ["written"]
    assert not os.path.exists(place)


def test_a_named_workspace_is_kept(policy) -> None:
    """With --workspace the command works there and its files stay."""
    directory = make_directory()
    place = directory.with_name(directory.name + "-workspace")
    done = try_(policy, "--workspace", str(place), "--", "echo kept > f; pwd")
    assert done.stdout.decode() == f"{place}\n"
    assert (place / "f").read_text() == "kept\n"
    remove_directory(directory)


def test_a_workspace_that_cannot_be_used_is_said(policy, tmp_path) -> None:
    """A missing workspace is exit status 125 and named."""
    done = try_(policy, "--workspace", str(tmp_path / "absent"), "--", "true")
    assert done.returncode == 125
    assert b"absent does not exist" in done.stderr


def test_an_unknown_policy_is_said() -> None:
    """A policy that is not shipped is exit status 125 and named."""
    done = try_("no_such_policy", "--", "true")
    assert done.returncode == 125
    assert b"no shipped policy is called 'no_such_policy'" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user first")
def test_as_an_ordinary_user(policy) -> None:
    """An ordinary user needs no root: the same command runs in a user namespace."""
    with tempfile.TemporaryDirectory(dir="/srv") as name:
        Path(name).chmod(0o755)
        _try_as_ordinary_user(policy, Path(name))


def _try_as_ordinary_user(policy, place: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": reachable_python_path(place),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    interpreter = str(Path(sys.executable).resolve())
    command = [interpreter, "-m", "guardhouse", "try", "--policy", policy, "--", "id -un; exit 4"]
    done = subprocess.run(
        command, capture_output=True, timeout=180, check=False, user=ACCOUNT, group=0xFFFE, extra_groups=[],
        env=environment, cwd="/",
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"{ACCOUNT}\n".encode(), 4), done.stderr


SECRET = "ghp_" + "aB3" * 12
PIECES = "k=ghp_aB3; for n in 1 2 3 4 5 6 7 8 9 10 11; do k=${k}aB3; done"


def test_secrets_are_taken_out(policy, tmp_path) -> None:
    """Known shapes and named values leave neither stream, however they were written; the twin stays as it is."""
    named = tmp_path / "values"
    named.write_text("DB_WORD=correct-horse-battery\n")
    named.chmod(0o600)
    split = (
        f"{PIECES}; printf '%s' \"${{k:0:9}}\"; printf '%s\\n' \"${{k:9}}\"; echo correct-horse-battery >&2; echo plain"
    )
    done = try_(policy, "--redact-file", str(named), "--", split)
    assert done.returncode == 0, done.stderr
    assert SECRET.encode() not in done.stdout
    assert done.stdout == b"[redacted: github_token]\nplain\n"
    assert done.stderr == b"[redacted: db_word]\n"


def test_json_is_redacted(policy) -> None:
    """No key of the object holds the secret: not the output, not the decision, not the programs that ran."""
    done = try_(policy, "--json", "--", f"echo {SECRET}; printf '{SECRET}\\n\\377'; /bin/echo {SECRET}")
    assert done.returncode == 0, done.stderr
    assert SECRET.encode() not in done.stdout
    said = json.loads(done.stdout)
    assert said["stdout"].count("[redacted: github_token]") == 3
    assert SECRET.encode() not in base64.b64decode(said["stdout_b64"])


def test_denial_is_redacted(policy) -> None:
    """The refusal quotes the command, but not the secret in it."""
    done = try_(policy, "--", f"forbidden {SECRET}")
    assert done.returncode == 126
    assert SECRET.encode() not in done.stderr
    assert b"[redacted: github_token]" in done.stderr
