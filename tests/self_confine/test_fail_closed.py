"""A process of ours that cannot confine itself does not run, and says which layer and process."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guardhouse.errors import Refusal, SetupError
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.self_confine import SELF_STEPS, confine_process, plan_of
from guardhouse.launcher.start import start_launcher
from guardhouse.sandbox.bundle import Bundle
from tests.launcher.bundles import bundle, make_workspace

# One instruction that the kernel does not take: EINVAL.
NO_FILTER = b"\xff" * 8


@pytest.fixture
def whole() -> Iterator[Bundle]:
    # Not pytest's own directory, which is closed to the account of commands.
    with tempfile.TemporaryDirectory(prefix="guardhouse-fail-closed-") as name:
        Path(name).chmod(0o755)
        yield bundle(make_workspace(Path(name)))


def spoilt(found: Bundle, name: str) -> Bundle:
    plan = plan_of(found, name)
    broken = replace(plan, programs=dict.fromkeys(plan.programs, NO_FILTER))
    return replace(found, processes={**found.processes, name: broken})


def run(found: Bundle) -> int:
    with DirectClient(start_launcher(found)) as client:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            request = LaunchRequest(profile="isolate", argv=("true",), timeout_s=30)
            return client.wait(client.launch(request, stdout_fd=null, stderr_fd=null)).exit_code
        finally:
            os.close(null)


def test_launcher_that_cannot_put_up_its_filter_does_not_start(
    whole: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends, and its message names process, layer and step; with the whole bundle it serves (the twin)."""
    assert run(whole) == 0
    with pytest.raises(SetupError, match="the launcher did not start"):
        start_launcher(spoilt(whole, "launcher"))
    assert "seccomp: process 'launcher' cannot confine itself at step 'seccomp'" in capfd.readouterr().err


def test_launcher_without_a_plan_does_not_start(whole: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    """A bundle that says nothing of it is refused: there is no launcher without its own wall."""
    with pytest.raises(SetupError, match="the launcher did not start"):
        start_launcher(replace(whole, processes={}))
    assert "says nothing of process 'launcher'" in capfd.readouterr().err


def test_slot_that_cannot_put_up_its_filter_refuses_the_command(whole: Bundle) -> None:
    """The command is refused with the layer's name, and the launcher goes on."""
    with pytest.raises(Refusal, match="seccomp"):
        run(spoilt(whole, "init"))


@pytest.mark.parametrize("step", SELF_STEPS, ids=lambda step: step.name)
def test_every_step_that_fails_is_named(whole: Bundle, step: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step has a weaker second try: each failure is a SetupError with layer, process and step."""

    def fail(_plan: object) -> None:
        raise OSError(1, "no")

    broken = replace(step, run=fail)
    monkeypatch.setattr("guardhouse.launcher.self_confine.SELF_STEPS", (broken,))
    with pytest.raises(SetupError, match=f"^{broken.layer}: process 'launcher' .* step '{broken.name}'"):
        confine_process(plan_of(whole, "launcher"))
