"""Every number that bounds something from outside, with its unit in the name and its source.

One place, so that an auditor sees what an outsider can make us hold. Imports nothing.
"""

from typing import Final

# WIRE_PROTOCOL "Transport".
WELCOME_TIMEOUT_S: Final = 5.0
HEARTBEAT_INTERVAL_S: Final = 30.0
IDLE_TIMEOUT_S: Final = 60.0
OFFLINE_AFTER_S: Final = 90.0

# Reconnect: full jitter between 0 and a cap that doubles (AWS Architecture Blog, "Exponential Backoff And Jitter").
RECONNECT_FIRST_S: Final = 1.0
RECONNECT_MAX_S: Final = 300.0

# The seed's figure for one captured stream, WIRE_PROTOCOL "Large output".
CAPTURE_LIMIT_BYTES: Final = 10 * 1024 * 1024
INLINE_LIMIT_CHARS: Final = 30_000
PREVIEW_LINES: Final = 20
PREVIEW_CHARS: Final = 8_000

# WIRE_PROTOCOL "Operations".
BASH_TIMEOUT_DEFAULT_S: Final = 120.0
BASH_TIMEOUT_MAX_S: Final = 24 * 3600.0
BASH_TIMEOUT_EXIT_CODE: Final = 124
STOP_GRACE_S: Final = 10.0
DRAIN_TIMEOUT_S: Final = 30.0

# MAX_ARG_STRLEN of execve(2): one argument, terminating NUL included, is at most 32 pages of 4 KiB.
COMMAND_TEXT_MAX_BYTES: Final = 131_071

# One message either way: the largest legitimate one is a write or a skill of this size in base64 plus its envelope.
MESSAGE_MAX_BYTES: Final = 32 * 1024 * 1024
MESSAGE_MAX_DEPTH: Final = 64
MESSAGE_MAX_NODES: Final = 200_000
OUTPUT_CHUNK_MAX_BYTES: Final = 64 * 1024
