"""Errors on their way out of trio."""

import pytest
import trio

from guardhouse.errors import SetupError
from guardhouse.runner.event_loop import run_in_trio


async def _raise_nested(error: Exception) -> None:
    async with trio.open_nursery(), trio.open_nursery():
        await trio.lowlevel.checkpoint()
        raise error


def test_an_error_of_ours_comes_out_by_itself() -> None:
    """However many nurseries it passed, the command line sees the error and its words."""
    with pytest.raises(SetupError, match="this one"):
        run_in_trio(_raise_nested, SetupError("this one"))


def test_a_defect_keeps_its_group() -> None:
    """Anything else is a defect and keeps its tracebacks."""
    with pytest.raises(ExceptionGroup):
        run_in_trio(_raise_nested, ValueError("a defect"))
