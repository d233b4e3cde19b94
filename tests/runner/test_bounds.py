"""Quotas, ages and networks from texts."""

import pytest

from guardhouse.runner.bounds import (
    WorkspaceBounds,
    parse_age,
    parse_fetch_size,
    parse_fetch_timeout,
    parse_file_count,
    parse_networks,
    parse_size,
)
from guardhouse.worker.settings import FilesSettings


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_age, "90", 90.0),
        (parse_age, "7d", 604_800.0),
        (parse_size, "20G", 20 * 1024**3),
        (parse_size, "0", 0),
        (parse_file_count, "100000", 100_000),
        (parse_fetch_timeout, "30", 30.0),
        (parse_fetch_size, "16M", 16 * 1024**2),
        (parse_networks, "10.0.0.0/8", ("10.0.0.0/8",)),
        (parse_networks, "10.0.0.0/8:fd00::/8:169.254.169.254/32", ("10.0.0.0/8", "fd00::/8", "169.254.169.254/32")),
        (parse_networks, "fd00::/8,192.168.1.0/24", ("fd00::/8", "192.168.1.0/24")),
    ],
)
def test_values(parse, text, value) -> None:
    """Each text is read as what it says."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_age, "soon"),
        (parse_age, "1w"),
        (parse_size, "-1"),
        (parse_size, "1 G"),
        (parse_file_count, "1e6"),
        (parse_fetch_timeout, "0"),
        (parse_fetch_timeout, "121"),
        (parse_fetch_size, "17M"),
        (parse_fetch_size, "0"),
        (parse_networks, "10.0.0.1/8"),
        (parse_networks, "10.0.0.0"),
        (parse_networks, "10.0.0.0/8:example.org"),
        (parse_networks, ""),
        (parse_networks, "::/129"),
    ],
)
def test_what_is_no_value(parse, text) -> None:
    """A text that is none is refused with what to write."""
    with pytest.raises(ValueError, match=r"is no|is out of range"):
        parse(text)


def test_names_are_the_workers() -> None:
    """Every bound is a setting of the files worker, with its default."""
    for name, value in WorkspaceBounds().as_settings().items():
        assert getattr(FilesSettings(), name) == value
