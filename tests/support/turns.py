"""Let test runs on one host take turns where they would count or use the same thing: ports, files, processes."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["take_turns"]


@contextmanager
def take_turns(name: str) -> Iterator[None]:
    """Hold the host's one lock of ``name`` for the duration; waits for whoever holds it, whatever account that is."""
    path = Path(tempfile.gettempdir()) / f"guardhouse-{name}.lock"
    try:
        # Without O_CREAT: in a sticky directory the kernel refuses that for another's file (fs.protected_regular).
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
