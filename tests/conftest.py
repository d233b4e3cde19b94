"""What holds for every test: Hypothesis measures no time, and what needs programs from a registry is run by hand."""

import os

import pytest
from hypothesis import settings

from tests.support.long_first import in_order

# A loaded machine is no defect of what is tested.
settings.register_profile("guardhouse", deadline=None)
settings.load_profile("guardhouse")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long modules; leave out what is marked ``by_hand`` where its variable is not set.

    The suite downloads no program of somebody else's; each such test has one beside it that goes the same way without.
    """
    left_out = [
        item for item in items if any(mark.args[0] not in os.environ for mark in item.iter_markers(name="by_hand"))
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items[:] = in_order(items)
