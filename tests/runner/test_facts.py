"""What a heartbeat says of the host."""

from datetime import datetime, timedelta, timezone

import pytest

from guardhouse.runner.facts import collect_environment, collect_metrics, start_cpu_measurement, utc_offset


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(0, "+00:00"), (480, "+08:00"), (-210, "-03:30"), (345, "+05:45"), (-720, "-12:00"), (840, "+14:00")],
)
def test_utc_offset(minutes, expected) -> None:
    """An offset is written with its sign, hours and minutes."""
    now = datetime(2026, 1, 1, tzinfo=timezone(timedelta(minutes=minutes)))
    assert utc_offset(now) == expected


def test_environment_is_filled(tmp_path) -> None:
    """Every fact of WIRE_PROTOCOL's list is there and of the right form."""
    facts = collect_environment(workspace=tmp_path)
    assert facts.os == "linux"
    assert facts.arch in {"amd64", "arm64"}
    assert facts.workspace_root == str(tmp_path)
    assert facts.num_cpu >= 1
    assert facts.total_memory_mb > 0
    assert datetime.fromisoformat(facts.current_time).tzinfo is not None
    for name in ("os_version", "hostname", "shell", "home_dir", "username", "timezone", "utc_offset"):
        assert getattr(facts, name), name


def test_metrics_are_real(tmp_path) -> None:
    """Memory and disk are in use on any host; all three are percentages."""
    start_cpu_measurement()
    metrics = collect_metrics(workspace=tmp_path)
    assert 0 < metrics.memory_percent <= 100
    assert 0 < metrics.disk_percent <= 100
    assert 0 <= metrics.cpu_percent <= 100
