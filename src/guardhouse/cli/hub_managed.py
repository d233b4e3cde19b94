"""The options of `guardhouse hub` for managed sandboxes. Wiring only."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from guardhouse.hub.managed.settings import ManagedSettings

__all__ = ["managed_options", "managed_settings"]

_MEBIBYTE = 1024 * 1024


def managed_options(option: Callable[..., Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return what gives a command the options, each made by ``option``."""
    made = (
        option("--managed-sandbox", is_flag=True, help="Run managed sandboxes for sessions on this host."),
        option("--managed-dir", type=click.Path(path_type=Path), help="Where their files are; a path without links."),
        option("--managed-user", metavar="NAME", help="As root: the account that they run as, if not guardhouse."),
        option("--managed-idle", type=click.FloatRange(1), default=600, help="Seconds after which one is frozen."),
        option(
            "--managed-reclaim", type=click.FloatRange(1), default=604_800, help="Seconds after which its files go."
        ),
        option("--managed-size", type=click.IntRange(1), default=1_024, metavar="MIB", help="What each may hold."),
        option("--managed-files", type=click.IntRange(1), default=100_000, help="Files that each may hold."),
        option("--managed-tasks", type=click.IntRange(1), default=32, help="Tasks that run or wait in each."),
        option("--managed-running", type=click.IntRange(1), default=8, help="Sandboxes that run at a time."),
        option("--managed-frozen", type=click.IntRange(0), default=8, help="Frozen ones that stay in memory; 0: none."),
        option("--managed-count", type=click.IntRange(1), default=50, help="Sandboxes in all, frozen ones too."),
        option("--managed-total", type=click.IntRange(1), default=20_480, metavar="MIB", help="What all may hold."),
    )

    def decorate(command: Any) -> Any:
        for one in reversed(made):
            command = one(command)
        return command

    return decorate


def managed_settings(
    state_dir: Path,
    *,
    managed_dir: Path | None,
    managed_user: str | None,
    managed_idle: float,
    managed_reclaim: float,
    managed_size: int,
    managed_files: int,
    managed_tasks: int,
    managed_running: int,
    managed_frozen: int,
    managed_count: int,
    managed_total: int,
) -> ManagedSettings:
    """Return the options as settings; without a directory one beside the hub's state.

    Raises:
        SetupError: they cannot be used.
    """
    beside = state_dir.absolute().with_name(f"{state_dir.absolute().name}-sandboxes")
    return ManagedSettings(
        directory=managed_dir.absolute() if managed_dir is not None else beside,
        run_as=managed_user if os.geteuid() == 0 else None,
        idle_s=managed_idle,
        reclaim_s=managed_reclaim,
        size_bytes=managed_size * _MEBIBYTE,
        files=managed_files,
        tasks=managed_tasks,
        running=managed_running,
        frozen=managed_frozen,
        sandboxes=managed_count,
        total_bytes=managed_total * _MEBIBYTE,
    )
