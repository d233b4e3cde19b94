"""What the runner is made of and told by: no profile lets a command change it, even where the account owns it."""
# ruff: noqa: E501 - one attack a line

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.bundle import Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.facts import Surroundings
from guardhouse.sandbox.load import load_profile

DIRECTORY = shipped_directory("sandbox")
TRUSTED_PATH = "/usr/bin:/bin"


@dataclass
class Place:
    """A host directory of the account's own, with an installation, a policy and a configuration two levels down."""

    top: Path
    client: DirectClient

    def run(self, profile: str, text: str) -> tuple[int, str]:
        reading, writing = os.pipe()
        try:
            request = LaunchRequest(profile=profile, argv=("bash", "-c", f"cd {self.top}; {text}"), timeout_s=60)
            identifier = self.client.launch(request, stdout_fd=writing, stderr_fd=writing)
            outcome = self.client.wait(identifier)
        finally:
            os.close(writing)
        with open(reading, "rb") as pipe:
            return outcome.exit_code, pipe.read().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    # Not below /tmp: commands have that to themselves. /var/tmp is the host's in profile operate.
    top = Path(tempfile.mkdtemp(prefix="guardhouse-guarded-", dir="/var/tmp"))
    top.chmod(0o755)
    for directory in ("opt/app/code", "opt/app/etc", "opt/free", "ws/inner"):
        (top / directory).mkdir(parents=True)
    for file in ("opt/app/code/module.py", "opt/app/policy.yaml", "opt/app/etc/config.yaml", "opt/free/file",
                 "ws/inner/policy.yaml", "ws/file"):  # fmt: skip
        (top / file).write_text("ours\n")
    if os.geteuid() == 0:
        for path in (top, *top.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    workspace = top / "ws"
    around = Surroundings(
        protected_paths=(f"{top}/opt/app/etc/config.yaml",),
        guarded_paths=(f"{top}/opt/app/code", f"{top}/opt/app/policy.yaml", f"{workspace}/inner/policy.yaml"),
    )
    bundle = compile_bundle(
        [load_profile(name, directory=DIRECTORY) for name in ("operate", "observe", "isolate", "files_worker")],
        identity=Identity(entry.pw_uid, entry.pw_gid, (entry.pw_gid,), entry.pw_name, "/tmp"),
        workspace=str(workspace), features=probe_host(), trusted_path=TRUSTED_PATH, around=around,
    )  # fmt: skip
    with DirectClient(start_launcher(bundle)) as client:
        yield Place(top, client)
    shutil.rmtree(top, ignore_errors=True)


ATTACKS = [
    pytest.param("echo evil > opt/app/code/module.py", "echo good > opt/free/file", id="overwrite code"),
    pytest.param("touch opt/app/code/new.py", "touch opt/free/new.py", id="add code"),
    pytest.param("rm opt/app/code/module.py", "touch opt/free/x && rm opt/free/x", id="remove code"),
    pytest.param("echo evil >> opt/app/policy.yaml", "echo good >> opt/free/file", id="change a policy"),
    pytest.param("mv opt/app/policy.yaml opt/app/old", "mv opt/free/file opt/free/old && mv opt/free/old opt/free/file", id="rename a policy"),
    pytest.param("rm -f opt/app/policy.yaml", "touch opt/free/y && rm -f opt/free/y", id="remove a policy"),
    pytest.param("mv opt/app opt/gone && mkdir -p opt/app/code", "mkdir opt/other && mv opt/other opt/gone && rmdir opt/gone", id="rename its directory"),
    pytest.param("mv opt gone", "mkdir other && mv other gone && rmdir gone", id="rename the directory above"),
    pytest.param("mv opt/app/code opt/app/old", "mkdir opt/app/z && mv opt/app/z opt/app/zz && rmdir opt/app/zz", id="rename the code's directory"),
    pytest.param("cat opt/app/etc/config.yaml", "cat opt/app/policy.yaml", id="read the configuration"),
    pytest.param("mv opt/app/etc opt/app/old", "mkdir opt/app/e && rmdir opt/app/e", id="rename the configuration's directory"),
    pytest.param("ln -f opt/free/file opt/app/policy.yaml", "ln opt/free/file opt/free/link && rm opt/free/link", id="hard link over a policy"),
    pytest.param("chmod 777 opt/app/code/module.py", "chmod 755 opt/free/file", id="change its mode"),
    pytest.param("echo evil > ws/inner/policy.yaml", "echo good > ws/file", id="a policy inside the workspace"),
    pytest.param("mv ws/inner ws/old", "mkdir ws/d && mv ws/d ws/e && rmdir ws/e", id="rename its directory in the workspace"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "twin"), ATTACKS)
def test_operate_cannot_change_what_judges_it(place: Place, attack: str, twin: str) -> None:
    """The account owns all of it, and the profile may change the host: the attack fails all the same, the twin works."""
    status, said = place.run("operate", twin)
    assert status == 0, said
    status, said = place.run("operate", attack)
    assert status != 0, said
    assert (place.top / "opt/app/code/module.py").read_text() == "ours\n"
    assert (place.top / "opt/app/policy.yaml").read_text() == "ours\n"
    assert (place.top / "ws/inner/policy.yaml").read_text() == "ours\n"


@pytest.mark.parametrize("profile", ["observe", "isolate"])
def test_a_policy_inside_the_workspace_is_guarded_by_every_profile(place: Place, profile: str) -> None:
    """The workspace stays writable beside it."""
    status, said = place.run(profile, f"cd {place.top}/ws && echo evil > inner/policy.yaml")
    assert status != 0, said
    status, said = place.run(profile, f"cd {place.top}/ws && echo good > inner/file && cat inner/policy.yaml")
    assert (status, said) == (0, "ours\n")


def test_what_is_hidden_stays_hidden(place: Place) -> None:
    """Binding the directories on the way shows nothing again that a mask covers."""
    for masked in ("/etc/shadow", "/root"):
        status, said = place.run("operate", f"test -r {masked} && ls {masked}")
        assert status != 0, said
