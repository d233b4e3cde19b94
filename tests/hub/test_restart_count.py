"""A real hub is killed under load and started again: every task of the run is counted.

The measurement of `bench/connected.py` in small: processes of simulated runners that keep a record of what they
started, 16 callers, ``kill -9`` in the middle, the same state directory again.
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

PROGRAM = Path(__file__).parents[2] / "bench" / "connected.py"
RUNNERS = 40
SMALL = ["--runners", str(RUNNERS), "--listed", str(RUNNERS), "--idle", "0", "--spread", "0", "--tasks", "16"]
NEVER = (
    "started_twice",
    "started_and_not_stored",
    "acknowledged_and_not_stored",
    "stored_twice_for_one_request",
    "ended_twice",
    "results_lost",
)


@pytest.mark.timeout(360)
async def test_no_task_is_lost_or_run_twice_over_a_kill():
    """Each task ends once and runs at most once; a request that was repeated to the next hub is one task."""
    # A task that was stored as sent and not on the wire yet waits two minutes for its end: those are not waited for.
    words = [sys.executable, str(PROGRAM), *SMALL, "--ends", "started", "--ends-wait", "30", "--json"]
    run = partial(trio.run_process, words, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    with trio.fail_after(300):
        done = await run()
    assert done.returncode == 0, done.stdout.decode()
    found = json.loads(done.stdout.decode().splitlines()[-1])
    tasks = found["tasks"]
    assert found["connect"]["connected"] == RUNNERS
    assert {name: tasks[name] for name in NEVER} == dict.fromkeys(NEVER, 0), tasks
    assert tasks["stored"] == tasks["asked"] == tasks["started"] + tasks["never_started"], tasks
    assert tasks["without_an_end"] == tasks["never_started"], tasks
    # Runners send what they cannot know to be stored a second time.
    assert tasks["resent_results"] > 0, tasks
