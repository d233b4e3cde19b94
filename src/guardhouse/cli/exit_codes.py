"""What each exit status of the `guardhouse` command means; docs/cli.md prints this table.

124 to 126 and 128+n follow coreutils' timeout(1) and env(1), so that scripts need no special case.
"""

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit statuses of our own; `exec` and `try` otherwise return the command's own status."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_AUTHORIZED = 4
    UNAVAILABLE = 5
    TIMED_OUT = 124
    SETUP = 125
    DENIED = 126
    INTERRUPTED = 130
