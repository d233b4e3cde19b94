"""The log: one line an event, levels as asked for, and the token in none of them. Each in a process of its own."""

import subprocess
import sys

SECRET = "wnt_canary_log"
START = """
from guardhouse.runner.credential import Token
from guardhouse.runner.logs import get_logger, hide_in_logs, start_logging
start_logging("info")
log = get_logger()
"""


def logged(program: str) -> str:
    """What ``program`` writes to standard error once logging has been started."""
    done = subprocess.run([sys.executable, "-c", START + program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def test_the_token_is_taken_out_wherever_it_stands() -> None:
    """In the event, in a value, inside an object: every line says [token] instead."""
    said = logged(
        f"hide_in_logs(Token({SECRET!r}))\n"
        f"log.info('to /ws?token={SECRET}', url='wss://h/?token={SECRET}', more={{'a': [{SECRET!r}]}})"
    )
    assert SECRET not in said
    assert said.count("[token]") == 3


def test_an_event_is_one_line() -> None:
    """A newline in what a platform sent cannot forge a second line."""
    assert len(logged(r"log.warning('ignored', error='first\nlevel=info event=forged')").splitlines()) == 1


def test_levels() -> None:
    """What is below the level is not written."""
    said = logged("log.debug('quiet'); log.error('loud')")
    assert "quiet" not in said
    assert "event=loud" in said
