"""What ``ps`` shows of the calling process, in place of the command line that it was cloned with.

Knows no process but its own. Runs in the processes that the launcher clones.
"""

import ctypes
import os
from typing import Final

from guardhouse.kernel.syscalls import declare

__all__ = ["set_title"]

_PR_SET_NAME: Final = 15
_NAME_MAX_BYTES: Final = 15  # TASK_COMM_LEN without its NUL
# Of /proc/PID/stat behind the name's closing bracket: arg_start and arg_end are fields 48 and 49 of proc(5).
_ARG_START: Final = 45
_ARG_END: Final = 46
_STAT_MAX_BYTES: Final = 4096  # 52 numbers of at most 20 digits, and a name

_prctl = declare("prctl", ctypes.c_int, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def set_title(title: str) -> None:
    """Show ``title`` as this process's name and command line, cut to the space there is."""
    text = title.encode("ascii")
    _prctl(_PR_SET_NAME, text[:_NAME_MAX_BYTES], 0, 0, 0)
    # Not open(): its buffers and codecs are pages that every clone would have to itself.
    descriptor = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(descriptor, _STAT_MAX_BYTES).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if not 0 < start < end:
        return
    # SAFE: the kernel says that this process's argument strings stand there, in its own writable stack; nothing
    # reads them any more, and no byte beyond them is touched.
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text[: end - start - 1], len(text[: end - start - 1]))
