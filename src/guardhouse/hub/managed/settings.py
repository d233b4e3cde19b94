"""How many managed sandboxes a hub has, how large, how long, and what they may reach. Pure. Runs in the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from guardhouse.errors import SetupError

__all__ = ["Domain", "ManagedSettings"]

GIBIBYTE: Final = 1024**3


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A public name that commands of managed sandboxes may connect to; ``*.name`` is everything below it."""

    domain: str
    ports: tuple[int, ...] = (443,)


@dataclass(frozen=True, kw_only=True)
class ManagedSettings:
    """What `guardhouse hub --managed-sandbox` was started with.

    Attributes:
        directory: holds a directory for each sandbox; another than the hub's state.
        run_as: as root, the account that runners and commands of sandboxes run as; None leaves it to the runner.
        idle_s: without a task for so long, a sandbox is frozen: its runner is stopped where it is, or ended, its files
            stay.
        reclaim_s: frozen for so long, its files are deleted.
        size_bytes, files: of one workspace. Over it commands are ended; over twice the files go.
        tasks: that may run or wait in one sandbox; a quarter of them run side by side.
        running: sandboxes whose runner runs at the same time.
        frozen: sandboxes whose runner stays in memory while they are frozen; beyond it the longest frozen is ended.
        sandboxes, total_bytes: in all, the frozen ones too; beyond it there is no new one.
        start_s: how long a runner may take to come online.
    """

    directory: Path
    run_as: str | None = None
    idle_s: float = 600.0
    reclaim_s: float = 7 * 86_400.0
    size_bytes: int = GIBIBYTE
    files: int = 100_000
    tasks: int = 32
    running: int = 8
    frozen: int = 8
    sandboxes: int = 50
    total_bytes: int = 20 * GIBIBYTE
    start_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("idle_s", "reclaim_s", "size_bytes", "files", "tasks", "running", "sandboxes", "total_bytes"):
            if getattr(self, name) <= 0:
                raise SetupError(f"managed sandboxes: {name} must be more than 0, got {getattr(self, name)}")
        if self.frozen < 0:
            raise SetupError(f"managed sandboxes: frozen must be at least 0, got {self.frozen}")
        if not self.directory.is_absolute():
            raise SetupError(f"managed sandboxes: {str(self.directory)!r} is not an absolute path")
