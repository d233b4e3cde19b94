"""Every number that bounds something from outside, with its unit in the name and its source.

One place, so that an auditor sees what an outsider can make us hold. Imports nothing.
"""

from typing import Final

# WIRE_PROTOCOL "Transport".
WELCOME_TIMEOUT_S: Final = 5.0
HEARTBEAT_INTERVAL_S: Final = 30.0
IDLE_TIMEOUT_S: Final = 60.0
OFFLINE_AFTER_S: Final = 90.0

# Degraded (SEED_FEATURES S30 to S33): the seed's three timeouts of more than 20 s, and half an hour's quiet.
DEGRADED_TIMEOUTS: Final = 3
DEGRADED_TIMEOUT_LONGER_THAN_S: Final = 20.0
DEGRADED_TIMEOUTS_QUIET_S: Final = 1_800.0
# Ours: a command starts within 0.1 s on a busy host, a slot from nothing within 0.5 s (bench/spawn).
DEGRADED_DELAY_MS: Final = 2_000
# Tasks beyond the runner's own --max-tasks: somebody waits for a whole round of commands.
DEGRADED_TASKS_WAITING: Final = 8
# Approvals expire by the minute, join signatures and provider tokens allow a minute: half of that is worth a word.
DEGRADED_CLOCK_SKEW_MS: Final = 30_000

# Reconnect: full jitter between 0 and a cap that grows with the time away (runner/reconnect.py).
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

# wire: what one message may hold. A `list` of 100,000 files has four nodes an entry (FIGURES "End to end and load").
TASK_RESULT_MAX_NODES: Final = 500_000
WIRE_ID_MAX_CHARS: Final = 256
WIRE_NAME_MAX_CHARS: Final = 1_024
WIRE_TEXT_MAX_CHARS: Final = 65_536
WIRE_LABELS_MAX: Final = 256
# PATH_MAX of limits.h is 4,096 bytes; a path may be named relative to several roots, so eight times that.
WIRE_PATH_MAX_CHARS: Final = 32_768
# Output that a runner may have on its way, unacknowledged, for each stream of each task (guardhouse.v1).
OUTPUT_WINDOW_BYTES: Final = 512 * 1024
# What a hub may raise that to, so that it cannot make a runner hold any amount; and the same for held output.
OUTPUT_WINDOW_MAX_BYTES: Final = 8 * OUTPUT_WINDOW_BYTES
# Tasks that a runner may hold at once, running or not yet acknowledged: the longest list of a hello.
HELD_TASKS_MAX: Final = 20_000
# Ids of finished tasks that a runner keeps, so that a repeated request is never started again.
FINISHED_TASKS_REMEMBERED: Final = 10_000
# Results that a plain-protocol runner keeps for a repeated request: nothing tells it that one arrived.
PLAIN_RESULTS_REMEMBERED: Final = 64

# Workspace. One answer must fit MESSAGE_MAX_BYTES in base64 and TASK_RESULT_MAX_NODES; what is left out is counted.
READ_MAX_BYTES: Final = 16 * 1024 * 1024
WRITE_MAX_BYTES: Final = 23 * 1024 * 1024
EDIT_MAX_BYTES: Final = 16 * 1024 * 1024
# What `stat` reads for a checksum: as large a file as an upload can make, a few seconds' work.
STAT_CHECKSUM_MAX_BYTES: Final = 2 * 1024 * 1024 * 1024
LIST_MAX_ENTRIES: Final = 100_000
GLOB_MAX_MATCHES: Final = 100_000
GREP_MAX_MATCHES: Final = 10_000
GREP_LINE_MAX_BYTES: Final = 2_000
NAMES_MAX_BYTES: Final = 12 * 1024 * 1024
PATTERN_MAX_BYTES: Final = 4_096
# One request to the files worker, and how long it may take when the task itself says nothing.
WORKER_FRAME_MAX_BYTES: Final = 32 * 1024 * 1024
WORKER_REQUEST_TIMEOUT_S: Final = 120.0
WORKER_CANCEL_GRACE_S: Final = 1.0

# Policy documents: 10,000 rules in the long form are about 3 MB and 150,000 nodes.
POLICY_DOCUMENT_MAX_CHARS: Final = 8 * 1024 * 1024
POLICY_DOCUMENT_MAX_DEPTH: Final = 24
POLICY_DOCUMENT_MAX_NODES: Final = 500_000
POLICY_RULES_MAX: Final = 50_000
POLICY_INCLUDE_MAX_DEPTH: Final = 8
POLICY_PATTERN_MAX_CHARS: Final = 1_024
# Steps of an automaton's positions that one question about all values of an unknown word may take before the answer
# is "undecided": about 0.1 s, measured at 2 to 4 million a second.
POLICY_UNKNOWN_MAX_STEPS: Final = 250_000
# Such questions that one text may ask, equal ones counted once; past it, its unknown words are undecided.
POLICY_UNKNOWN_MAX_QUESTIONS: Final = 400
# The same for a comparison or lint of whole policies before it says that it could not finish: half a minute.
POLICY_COMPARE_MAX_STEPS: Final = 60_000_000
# Memory of one RE2 set and its lazily built automaton; above it RE2 says so and each rule is asked by itself.
POLICY_MATCHER_MAX_BYTES: Final = 64 * 1024 * 1024

# Shell reader (gate one). Constructs within constructs; each level costs about ten of Python's 1,000 frames.
SHELL_DEPTH_MAX: Final = 32
# Texts within texts (eval, bash -c, trap) and wrappers around wrappers (env nice timeout …).
SHELL_TEXT_LEVELS_MAX: Final = 8
SHELL_WRAPPERS_MAX: Final = 16
SHELL_COMMANDS_MAX: Final = 8_192
SHELL_WORDS_MAX: Final = 65_536
# Texts up to this length are remembered, this many of them; both bound the cache's memory.
# A reading takes up to 600 bytes for each character of its text, so the cache stays below 40 MB.
SHELL_CACHE_TEXT_CHARS: Final = 512
SHELL_CACHE_ENTRIES: Final = 128
# What a second reader is asked about: tree-sitter-bash took 32 s for 120 kB of open here-documents, quadratic.
SHELL_SECOND_READER_MAX_BYTES: Final = 16 * 1024
# bashlex manages 260 lines of 50 characters a second, and loops for ever on some: no answer by then means none.
SHELL_PARSER_TIMEOUT_S: Final = 2.0
# 0.3 s usually; 4 s and more in user-mode Linux, where a system call costs 60 times as much.
SHELL_PARSER_START_TIMEOUT_S: Final = 60.0

# Launcher. One request is one datagram; a longer body travels in a sealed memory file of at most this size:
# the longest command text with every byte escaped, and room for the rest.
LAUNCH_BODY_MAX_BYTES: Final = 2 * 1024 * 1024
LAUNCH_DATAGRAM_MAX_BYTES: Final = 64 * 1024
LAUNCH_ARGV_MAX_WORDS: Final = 4096
LAUNCH_ENVIRONMENT_MAX_ENTRIES: Final = 64
LAUNCH_WORKDIR_MAX_BYTES: Final = 4096  # PATH_MAX of linux/limits.h
LAUNCH_GRACE_MAX_S: Final = 60.0
LAUNCH_SLOTS_MAX: Final = 64  # commands at a time
DESCRIPTORS_MAX: Final = 65_536  # of one process of ours; commands have 4,096 (sandbox/profiles/base.yaml)
SLOT_CLONE_TIMEOUT_S: Final = 5.0  # a clone takes 1 ms; meanwhile the launcher waits, and its time limits with it
SLOT_PREPARE_TIMEOUT_S: Final = 15.0  # cgroup moves cost 11 ms each when idle (FIGURES.md), far more under load
SLOT_IDLE_TIMEOUT_S: Final = 60.0
SLOT_COMMANDS_MAX: Final = 1000  # then a fresh pid 1: bounds whatever an interpreter gathers over time
STOP_KILL_TIMEOUT_S: Final = 2.0  # an init that has not killed its namespace by then is killed itself
LAUNCH_BUNDLE_MAX_BYTES: Final = 16 * 1024 * 1024
LAUNCHER_START_TIMEOUT_S: Final = 120.0  # one that ends is noticed at once; 40 s on an emulated processor under load

# Skills (S173: 100 MB upload; one message holds less). Ratio: text packs about 4:1, a bomb up to 1,032:1 (deflate).
SKILL_ARCHIVE_MAX_BYTES: Final = 23 * 1024 * 1024
SKILL_FILE_MAX_BYTES: Final = 100 * 1024 * 1024
SKILL_TOTAL_MAX_BYTES: Final = 200 * 1024 * 1024
# Of a tar archive, which the hub holds unpacked while it writes it anew as zip.
SKILL_TAR_TOTAL_MAX_BYTES: Final = 64 * 1024 * 1024
SKILL_ENTRIES_MAX: Final = 2_000
SKILL_RATIO_MAX: Final = 100
SKILL_RATIO_FREE_BYTES: Final = 1024 * 1024
SKILL_DEPTH_MAX: Final = 32
SKILL_FRONT_MATTER_MAX_BYTES: Final = 64 * 1024
# The files worker's RLIMIT_FSIZE (sandbox/profiles/files_worker.yaml).
UPLOAD_MAX_BYTES: Final = 2 * 1024 * 1024 * 1024

# File streams (guardhouse.v1). A part travels as base64 between other messages, which wait for it: 1.4 MB at most.
FILE_PART_MAX_BYTES: Final = 1024 * 1024
# Downloads that a runner remembers at once, each with up to two parts; one that it forgot is read from the start.
FILE_TRANSFERS_MAX: Final = 16
# The hub: transfers at once, and how long one waits for a runner that is away or reads a large file anew.
HUB_TRANSFERS_MAX: Final = 64
FILE_CALL_TIMEOUT_S: Final = 600.0
FILE_RECONNECT_WAIT_S: Final = 45.0
FILE_BODY_IDLE_S: Final = 60.0

# Redaction. A secret's recognisable part fits this window from its anchor (the widest is a JWT header of 1,000);
# it is also how much of a stream may be held back. What the operator names may be longer, up to the value's own bound.
REDACTION_WINDOW_BYTES: Final = 2_048
REDACTION_VALUE_MIN_BYTES: Final = 5
REDACTION_VALUE_MAX_BYTES: Final = 8_192
REDACTION_VALUES_MAX: Final = 500

# Exec gate: what one exec may carry and still be judged; more is refused. execve(2) allows 2 MiB by default.
GATE_MAX_ARGUMENTS: Final = 65_536
GATE_MAX_ARGUMENT_BYTES: Final = 2 * 1024 * 1024
GATE_MAX_RECORDS: Final = 10_000
# Of the programs that ran, and once more of those that were refused: what is left out is counted. Together with the
# rest of an outcome it fits into one message (LAUNCH_BODY_MAX_BYTES).
GATE_MAX_REPORT_BYTES: Final = 512 * 1024

# Web fetch (S139-S144). The body's bound counts decoded bytes; text packs up to about 20:1 with gzip, a bomb 1,032:1.
FETCH_BODY_MAX_BYTES: Final = 5 * 1024 * 1024
FETCH_RATIO_MAX: Final = 200
FETCH_RATIO_FREE_BYTES: Final = 1024 * 1024
# What the operator may raise it to: a page's text of up to twice the size must fit one frame of the worker.
FETCH_BODY_CEILING_BYTES: Final = 16 * 1024 * 1024
FETCH_BODY_FLOOR_BYTES: Final = 1024
# What a server may send besides the body as sent: its headers (h11 takes 100 KiB) and framing.
FETCH_FRAMING_MAX_BYTES: Final = 1024 * 1024
FETCH_REDIRECTS_MAX: Final = 10
FETCH_URL_MAX_CHARS: Final = 8_192
FETCH_ERROR_EXCERPT_CHARS: Final = 1_000
FETCH_CONNECT_TIMEOUT_S: Final = 10.0  # for each address of a name, within the whole time limit
FETCH_WORKERS_MAX: Final = 4
FETCH_WORKER_REQUESTS_MAX: Final = 50  # then a fresh one: bounds what pages could gather in it

# Approvals. Bounds of the issue's own making: people answer a handful of questions, and each holds a process.
APPROVAL_ARGV_MAX_WORDS: Final = 8_192
APPROVAL_TIMEOUT_DEFAULT_S: Final = 900.0
APPROVAL_TIMEOUT_MAX_S: Final = 86_400.0
APPROVALS_OPEN_MAX: Final = 1_000
# Distinct questions of one command, answered or not: they also bound how long its time limit can stand still.
APPROVALS_A_COMMAND_MAX: Final = 64

# MCP servers that tasks call (docs/mcp.md).
MCP_CONNECT_TIMEOUT_DEFAULT_S: Final = 10.0  # the seed platform's default (SEED_FEATURES S150)
MCP_SESSIONS_MAX: Final = 16  # at once; each is a process of ours of about 70 MiB, and a server's where it is local
MCP_IDLE_S: Final = 300.0  # then a session is closed; the next call opens another
MCP_MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024  # one message of a server
MCP_TOOLS_MAX: Final = 2_000  # of one server; what is left out is counted
MCP_TOOL_PAGES_MAX: Final = 100
MCP_SERVER_WORDS_BYTES: Final = 4_096  # of a local server's stderr: kept for the text of a failure

# Egress proxy. Connections of one command served at a time (more wait in the kernel's queue), and of all together:
# each holds two descriptors, so a quarter of the process's limit is the most, and an eighth of that for one command.
EGRESS_CONNECTIONS_MAX: Final = 64
EGRESS_CONNECTIONS_TOTAL_MAX: Final = 512
EGRESS_BACKLOG: Final = 128
EGRESS_HEAD_MAX_BYTES: Final = 64 * 1024  # of a request or response head; browsers send up to 16 KiB
EGRESS_HEAD_TIMEOUT_S: Final = 30.0
EGRESS_HELLO_MAX_BYTES: Final = 64 * 1024  # of a TLS ClientHello with its records; real ones have 200 to 4,000
EGRESS_RESOLVE_TIMEOUT_S: Final = 10.0
EGRESS_LOOKUPS_MAX: Final = 4  # of one command at a time
EGRESS_LOOKUPS_TOTAL_MAX: Final = 32  # of all: each holds a thread until the name service gives up, often 30 s
EGRESS_ADDRESSES_MAX: Final = 16
EGRESS_CONNECT_TIMEOUT_S: Final = 10.0  # for the last address of a name
EGRESS_NEXT_ADDRESS_S: Final = 2.5  # for each one before it
EGRESS_IDLE_TIMEOUT_S: Final = 300.0
EGRESS_DRAIN_S: Final = 1.0  # what a command that has ended had written is still passed on for so long
EGRESS_CHUNK_BYTES: Final = 64 * 1024
# Of the allowed and once more of the refused ones. With the texts' bound the record of a command stays below 1 MB.
EGRESS_RECORDS_MAX: Final = 250
EGRESS_RECORD_TEXT_MAX_CHARS: Final = 600
APPROVAL_WHY_MAX_CHARS: Final = 4_096
# Commands of one text that a person approved; a text with more is asked about again at the exec gate.
LAUNCH_APPROVED_MAX: Final = 256
# Parts of one task that a runner tells the duration of (`TaskResult.spans`).
SPANS_MAX: Final = 16
