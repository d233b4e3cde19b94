"""The order of the wall as docs/architecture.md tells it is the order in which it is built."""

import re
from pathlib import Path

from guardhouse.launcher.confine import STEPS
from guardhouse.launcher.prepare import PREPARE_STEPS

PAGE = Path(__file__).parents[2] / "docs/architecture.md"


def test_the_page_names_every_step_in_order() -> None:
    """Whoever moves, adds or takes away a step changes the page with it."""
    text = PAGE.read_text(encoding="utf-8").partition("## 4. The wall")[2].partition("## 5.")[0]
    prepared, _, started = text.partition("`STEPS`")
    for steps, part in ((PREPARE_STEPS, prepared.partition("`PREPARE_STEPS`")[2]), (STEPS, started)):
        told = re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", part))
        assert told == [step.name for step in steps]


def test_every_step_has_its_reason_and_its_layer() -> None:
    """A refusal names the layer of the step that failed."""
    for step in (*PREPARE_STEPS, *STEPS):
        assert step.layer
        assert len(step.why) > 10
