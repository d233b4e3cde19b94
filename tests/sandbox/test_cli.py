"""`guardhouse sandbox` and `guardhouse doctor` answer people and programs, with documented exit statuses."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from guardhouse.cli.doctor import WITHOUT_GATE, doctor
from guardhouse.cli.sandbox import sandbox
from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.sandbox.load import load_process
from guardhouse.sandbox.profile import LAYERS

from .conftest import SHIPPED


def invoke(command, *arguments):
    return CliRunner().invoke(command, arguments)


def test_show_in_words_and_as_json():
    """Show prints words for people, one object for programs, and the filter alone when asked."""
    assert "Files covered" in invoke(sandbox, "show", "observe").output
    assert json.loads(invoke(sandbox, "show", "observe", "--json").output)["network"]["mode"] == "host"
    assert invoke(sandbox, "show", "isolate", "--filter", "aarch64").output.startswith(
        "filter of profile isolate on aarch64"
    )


def test_list_names_every_shipped_profile():
    """List has each profile with its summary."""
    assert set(json.loads(invoke(sandbox, "list", "--json").output)["profiles"]) == set(SHIPPED)


OWN = ("init", "keeper", "launcher", "monitor", "runner")


@pytest.mark.parametrize("name", OWN)
def test_show_names_every_entry_of_our_own_processes(name):
    """An auditor reads capabilities, calls, paths and layers of each, with the reasons; --json has the same."""
    process = load_process(name, directory=shipped_directory("sandbox"))
    text = invoke(sandbox, "show", name).output
    for word in [*process.capabilities, *process.syscalls, *process.requires, *process.may_lack]:
        assert word in text
    for entry in (*process.paths, *process.syscalls.values()):
        assert (entry.reason if hasattr(entry, "reason") else entry).why in text
    said = json.loads(invoke(sandbox, "show", name, "--json").output)
    assert said["capabilities"] == sorted(process.capabilities)
    assert invoke(sandbox, "show", name, "--filter", "x86_64").output.startswith(f"filter of process {name} on x86_64")


def test_list_and_doctor_name_our_own_processes():
    """Both say which processes confine themselves; doctor says with what."""
    assert set(json.loads(invoke(sandbox, "list", "--json").output)["own_processes"]) == set(OWN)
    told = json.loads(invoke(doctor, "--json").output)
    assert set(told["own_processes"]) == set(OWN)
    # Whether a hub could freeze idle sandboxes: by one of the two, or why by none; the person is told the same.
    freezing = told["managed_freezing"]
    assert freezing["cgroup_version"] in (1, 2) or freezing["why"]
    word = "in memory, by cgroup v" if freezing["cgroup_version"] else "ends the runners of idle managed sandboxes: "
    assert word in invoke(doctor).output
    assert "runner         confines itself" in invoke(doctor).output


@pytest.mark.parametrize(
    ("first", "second", "status"), [("isolate", "observe", 1), ("isolate", "isolate", 0), ("observe", "operate", 1)]
)
def test_diff_says_by_its_status_whether_anything_widens(first, second, status):
    """Exit status 1 when the second permits something that the first does not."""
    done = invoke(sandbox, "diff", first, second, "--json")
    assert done.exit_code == status
    assert json.loads(done.output)["widens"] is bool(status)


def test_compile_check_is_clean():
    """The committed filters are up to date and libseccomp compiles each of them rightly."""
    done = invoke(sandbox, "compile", "--check")
    assert done.exit_code == 0, done.output


def test_compile_check_notices_a_stale_text(tmp_path):
    """A changed or missing text is named, with exit status 1; writing them anew mends it."""
    from shutil import copytree

    copytree(shipped_directory("sandbox"), tmp_path / "sandbox")
    text = tmp_path / "sandbox" / "compiled" / "isolate.x86_64.txt"
    text.write_text(text.read_text().replace("read: allow", "read: allow when quiet", 1))
    directory = ("--directory", str(tmp_path / "sandbox"))
    done = invoke(sandbox, "compile", "--check", *directory)
    assert (done.exit_code, "isolate.x86_64.txt" in done.output) == (1, True)
    assert invoke(sandbox, "compile", *directory).exit_code == 0
    assert invoke(sandbox, "compile", "--check", *directory).exit_code == 0


def test_try_keeps_output_and_status():
    """Try runs the command behind the wall, with its own output and exit status."""
    code = "from guardhouse.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "sandbox", "try", "isolate", "--", "bash", "-c", "echo out; ls /home || exit 3"],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (3, "out\n"), done.stderr


def test_doctor_lists_every_layer_and_profile():
    """Doctor --json has each layer and profile; its status is that of the profile chosen."""
    done = invoke(doctor, "--json", "--profile", "isolate")
    said = json.loads(done.output)
    assert set(said["layers"]) == set(LAYERS)
    assert set(said["profiles"]) == set(SHIPPED)
    assert done.exit_code == (0 if said["runs"] else 1)
    assert invoke(doctor).exit_code in (0, 1)


def test_doctor_says_what_becomes_of_undecided_commands(tmp_path, monkeypatch):
    """With a gate and without one: refused by default, allowed files alone where a profile permits it by name."""
    profile = tmp_path / "untraced.yaml"
    profile.write_text(
        "profile: untraced\nsummary: for the test\nextends: observe\n"
        "exec_gate: {fallback: allowed_files, why: these hosts forbid tracing}\n"
    )
    features = probe_host()
    for why, first in (
        ("", "execs are followed here"),
        ("kernel.yama.ptrace_scope=3", "execs cannot be followed here"),
    ):
        found = replace(features, layers={**features.layers, "exec_gate": why, "landlock": ""}, landlock_abi=4)
        monkeypatch.setattr("guardhouse.cli.doctor.probe_host", lambda found=found: found)
        said = invoke(doctor, "--profile", str(profile)).output
        assert first in said
        assert "is refused: " in said
        assert "whatever their arguments: untraced\n" in said
        assert ("lets a profile run it" in said) is bool(why)
        fallbacks = json.loads(invoke(doctor, "--json", "--profile", str(profile)).output)["without_exec_gate"]
        assert fallbacks["untraced"] == "allowed_files"
        assert fallbacks["observe"] == "refused"


def test_doctor_says_what_the_notifications_are_good_for(tmp_path, monkeypatch):
    """Arguments are judged where a caller's words can be read; otherwise it is files alone, or no record at all."""
    profile = tmp_path / "untraced.yaml"
    profile.write_text(
        "profile: untraced\nsummary: for the test\nextends: observe\n"
        "exec_gate: {fallback: judged_arguments, why: these hosts forbid tracing}\n"
    )
    features = replace(probe_host(), landlock_abi=4)
    without_gate = {**features.layers, "exec_gate": "no ptrace here", "landlock": ""}
    for notices, words, effect, said in (
        ("", "", "judged_arguments", "by seccomp notification"),
        ("", "no right (EPERM)", "allowed_files", "is no more than 'allowed_files'"),
        ("no user_notif", "", "allowed_files", "without a record of what it started"),
    ):
        found = replace(features, layers=without_gate, exec_notices=notices, caller_words=words)
        monkeypatch.setattr("guardhouse.cli.doctor.probe_host", lambda found=found: found)
        printed = invoke(doctor, "--profile", str(profile)).output
        assert said in printed
        assert f"{WITHOUT_GATE[effect]}: untraced\n" in printed


def test_probe_leaves_nothing_behind():
    """Probing twice gives the same answer, and no child, descriptor or mount of ours is left."""
    before = _ours()
    first, second = probe_host(), probe_host()
    assert first == second
    assert set(first.layers) == set(LAYERS)
    assert _ours() == before


def _ours():
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    return children, sorted(os.listdir("/proc/self/fd")), Path("/proc/self/mountinfo").read_text()
