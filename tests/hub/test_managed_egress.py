"""What a managed sandbox reaches by the account's allow-list, end to end: hub, runner, wall, proxy and real servers."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_allow_list_is_all_that_a_managed_sandbox_reaches() -> None:
    """The listed name at its port, and nothing else: not by name, address, port, proxy, fetching, or old list."""
    missing = [name for name in ("unshare", "ip", "mount") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {missing or 'nothing more'}: network and mount namespaces with own addresses")
    directory = Path(tempfile.mkdtemp(prefix="guardhouse-managed-egress-"))
    directory.chmod(0o711)
    try:
        words = ["unshare", "--net", "--mount", "--propagation", "private", "--", sys.executable]
        found = subprocess.run(
            [*words, "-m", "tests.support.managed_world", str(directory)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    assert found.returncode == 0, found.stdout[-2_000:] + found.stderr[-4_000:]
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["listed"] == "GOT from 93.184.216.34\n", told
    assert "from 93.184.216.34" in told["webfetch listed"], told
    refused = {
        name: text for name, text in told.items() if name not in ("listed", "webfetch listed", "seen", "in memory")
    }
    assert len(refused) == 10
    for name, text in refused.items():
        assert "GOT" not in text, (name, text)
        assert "from 93." not in text, (name, text)
    # The servers' own word: two requests came to the listed one, and none to any other.
    assert json.loads(told["seen"]) == [2, 0, 0, 0]
