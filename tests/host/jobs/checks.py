"""What jobs share: claims with their outcome on one line each, and a launcher with bounds that a test can reach."""

import json
import os
import pwd
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import HostFeatures, probe_host
from guardhouse.sandbox.bundle import Bundle, Identity
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.facts import Surroundings
from guardhouse.sandbox.load import load_profile

__all__ = ["GUARDHOUSE", "Checks", "commands_account", "make_bundle", "make_workspace"]

GUARDHOUSE = "/opt/guardhouse/bin/guardhouse"
TRUSTED_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class Checks:
    """Collects claims; `finish` gives the job's exit status."""

    def __init__(self) -> None:
        self._failed = 0
        self._count = 0

    def that(self, claim: str, held: object, said: object = "") -> None:
        """Write one claim down; ``said`` is shown when it does not hold."""
        self._count += 1
        self._failed += not held
        line = f"  ok    {claim}" if held else f"  FAIL  {claim}: {said}"
        print(line, flush=True)

    def equal(self, claim: str, found: object, wanted: object) -> None:
        """Claim that two values are equal."""
        self.that(claim, found == wanted, f"found {found!r}, wanted {wanted!r}")

    def fact(self, name: str, value: object) -> None:
        """Write down something measured."""
        print(f"  fact  {name}: {json.dumps(value, default=str)}", flush=True)

    def finish(self) -> int:
        """Return 0 when every claim held."""
        print(f"  {self._count - self._failed} of {self._count} claims held", flush=True)
        return 1 if self._failed else 0


def commands_account() -> Identity:
    """Return who commands run as: this user, or as root the service's account."""
    entry = pwd.getpwnam("guardhouse") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return Identity(entry.pw_uid, entry.pw_gid, (), entry.pw_name, entry.pw_dir)


def make_workspace() -> Path:
    """Make an empty workspace that the commands' account owns."""
    found = Path(tempfile.mkdtemp(prefix="workspace-", dir="/tmp"))
    account = commands_account()
    if os.geteuid() == 0:
        os.chown(found, account.uid, account.gid)
    return found


def make_bundle(
    profiles: Iterable[str | Path], workspace: Path, *, features: HostFeatures | None = None, **parameters: int
) -> Bundle:
    """Compile profiles for this host; ``parameters`` replace limits (`Surroundings.parameters`)."""
    directory = shipped_directory("sandbox")
    return compile_bundle(
        [load_profile(str(name), directory=directory) for name in profiles],
        identity=commands_account(),
        workspace=str(workspace),
        features=features or probe_host(),
        trusted_path=TRUSTED_PATH,
        around=Surroundings(parameters=parameters),
    )


if __name__ == "__main__":
    sys.exit("checks.py is imported by jobs")
