"""The log: one line an event, levels as asked for, and the token in none of them."""

import pytest
import structlog

from guardhouse.runner import logs
from guardhouse.runner.credential import Token

SECRET = "wnt_canary_log"


@pytest.fixture
def log(monkeypatch, capsys):
    monkeypatch.setattr(logs, "_secrets", [])
    logs.start_logging("info")
    yield logs.get_logger()
    structlog.reset_defaults()


def test_the_token_is_taken_out_wherever_it_stands(log, capsys) -> None:
    """In the event, in a value, inside an object: every line says [token] instead."""
    logs.hide_in_logs(Token(SECRET))
    event = f"went to /ws?token={SECRET}"
    log.info(event, url=f"wss://h/?token={SECRET}", more={"a": [SECRET]})
    said = capsys.readouterr().err
    assert SECRET not in said
    assert said.count("[token]") == 3


def test_an_event_is_one_line(log, capsys) -> None:
    """A newline in what a platform sent cannot forge a second line."""
    log.warning("ignored", error="first\nlevel=info event=forged")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_levels(log, capsys) -> None:
    """What is below the level is not written."""
    log.debug("quiet")
    log.error("loud")
    said = capsys.readouterr().err
    assert "quiet" not in said
    assert "event=loud" in said
