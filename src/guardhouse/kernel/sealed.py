"""Memory files that nobody can change: how a bundle, or a large request, is handed to another process.

Knows no content. No ctypes here: the runner imports it as well.
"""

import fcntl
import os

__all__ = ["read_sealed", "seal_memory"]


def seal_memory(name: str, content: bytes) -> int:
    """Return a memory file that holds ``content`` and that nobody, its owner included, can change any more."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_sealed(descriptor: int, *, limit_bytes: int) -> bytes:
    """Return the content of a memory file whose size and bytes are sealed.

    Raises:
        ValueError: it is not sealed against writing and shrinking, or holds more than ``limit_bytes``.
    """
    needed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & needed != needed:
        raise ValueError("descriptor is not a sealed memory file")
    size = os.fstat(descriptor).st_size
    if size > limit_bytes:
        raise ValueError(f"memory file holds {size} bytes, the limit is {limit_bytes}")
    content = b""
    while len(content) < size:
        content += os.pread(descriptor, size - len(content), len(content))
    return content
