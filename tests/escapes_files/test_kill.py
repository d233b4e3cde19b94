"""A worker that is killed in the middle of a write leaves the old content or the new, whole, and no litter for long."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.support.files import FilesWorker

KILLS = int(os.environ.get("GUARDHOUSE_KILLS", "20"))


@pytest.fixture(params=["openat2", "careful"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def test_killed_writes(method: str, tmp_path: Path) -> None:
    """Each file is whole after every kill, and the next worker has removed what the killed one left."""
    generator = random.Random(7)
    contents = [bytes([65 + number]) * 300_000 for number in range(26)]
    target = tmp_path / "deep" / "er" / "file.bin"
    files = FilesWorker(tmp_path, method=method)
    littered = 0
    try:
        files.write("deep/er/file.bin", contents[0])
        for _ in range(KILLS):
            delay_s = generator.uniform(0.0, 0.01)
            killer = threading.Thread(target=_kill_after, args=(files.pid, delay_s))
            killer.start()
            try:
                while True:
                    files.write("deep/er/file.bin", generator.choice(contents))
            except ConnectionError:
                killer.join()
            assert target.read_bytes() in contents
            littered += len(list(tmp_path.rglob(".guardhouse-tmp-*")))
            files.close()
            files.start()
            files.stat("deep")
            assert list(tmp_path.rglob(".guardhouse-tmp-*")) == []
            assert sorted(os.listdir(tmp_path / "deep" / "er")) == ["file.bin"]
            assert len(list((tmp_path / ".work" / "tmp").iterdir())) <= 1
    finally:
        files.close()
    assert littered > 0 or KILLS < 100, "no kill fell into a write, so the test shows nothing"


def _kill_after(pid: int, delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
