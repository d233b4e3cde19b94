"""What a heartbeat says of this host: facts on the first one of a connection, load on each.

The facts are context for whoever writes commands; nothing is decided by them. Runs in the runner.
"""

import os
import platform
import pwd
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

import psutil
import trio

from guardhouse.wire.messages import EnvironmentInfo, Metrics

__all__ = ["HostReporter", "collect_environment", "collect_metrics", "start_cpu_measurement", "utc_offset"]

# Go's names, as the seed's runner says them (WIRE_PROTOCOL, "environment").
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_MEBIBYTE: Final = 1024 * 1024
COLLECT_TIMEOUT_S: Final = 5.0

T = TypeVar("T")


class HostReporter:
    """Collects in a thread and gives up in time: a hung network file system answers statvfs(2) never."""

    def __init__(self, *, workspace: Path) -> None:
        self._workspace = workspace
        # One thread at most hangs; while it does, heartbeats go without what it was to say.
        self._limiter = trio.CapacityLimiter(1)
        start_cpu_measurement()

    async def environment(self) -> EnvironmentInfo | None:
        """Return this host's facts, None when it does not say them in time."""
        return await self._in_time(lambda: collect_environment(workspace=self._workspace))

    async def metrics(self) -> Metrics | None:
        """Return this host's load, None when it does not say it in time."""
        return await self._in_time(lambda: collect_metrics(workspace=self._workspace))

    async def _in_time(self, collect: Callable[[], T]) -> T | None:
        with trio.move_on_after(COLLECT_TIMEOUT_S):
            return await trio.to_thread.run_sync(collect, abandon_on_cancel=True, limiter=self._limiter)
        return None


def collect_environment(*, workspace: Path) -> EnvironmentInfo:
    """Return what this host is, as its own tools would say it."""
    now = datetime.now().astimezone()
    account = _account()
    return EnvironmentInfo(  # noqa: S604 - `shell` is a fact to report; nothing is started
        os=platform.system().lower(),
        os_version=_os_version(),
        arch=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        hostname=platform.node(),
        # Commands are run by bash whatever the account's login shell is.
        shell="/bin/bash",
        home_dir=account.pw_dir if account else "",
        workspace_root=str(workspace),
        username=account.pw_name if account else str(os.geteuid()),
        num_cpu=os.cpu_count() or 1,
        total_memory_mb=psutil.virtual_memory().total // _MEBIBYTE,
        current_time=now.isoformat(timespec="seconds"),
        timezone=time.tzname[time.localtime().tm_isdst > 0],
        utc_offset=utc_offset(now),
    )


def utc_offset(now: datetime) -> str:
    """Return the offset of ``now`` as ``+08:00``.

    Raises:
        ValueError: ``now`` carries no time zone.
    """
    offset = now.utcoffset()
    if offset is None:
        raise ValueError("a time without a zone has no offset")
    minutes = round(offset.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def start_cpu_measurement() -> None:
    """Take the first sample: `psutil.cpu_percent` answers 0.0 until it has two to compare."""
    psutil.cpu_percent(interval=None)


def collect_metrics(*, workspace: Path) -> Metrics:
    """Return the load in percent: CPU since the last call, memory, and the file system of the workspace."""
    return Metrics(
        cpu_percent=psutil.cpu_percent(interval=None),
        memory_percent=psutil.virtual_memory().percent,
        disk_percent=psutil.disk_usage(str(workspace)).percent,
    )


def _os_version() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_ID", "")
    except OSError:
        return ""


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None
