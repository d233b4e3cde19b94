"""What the runner and the launcher say to each other: typed values to datagrams and back, checked strictly.

One SOCK_SEQPACKET datagram is one message: a JSON object behind one byte that says where it is (``J``: here;
``M``: in a sealed memory file, the first descriptor that came along). A request names a profile and parameters;
there is no way to say "mount", "filter" or "uid" in it, so a taken-over runner cannot ask for more than the
launcher's bundle holds.

Knows no socket. Imported by the runner's client and by the launcher: standard library only.
"""

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from guardhouse import limits
from guardhouse.errors import PeerError, Refusal

__all__ = [
    "AnswerQuestion",
    "CommandOutcome",
    "Exited",
    "LaunchError",
    "LaunchRequest",
    "Message",
    "ProxyListening",
    "Question",
    "QuestionOver",
    "Ready",
    "Refused",
    "StartWorker",
    "Started",
    "Stop",
    "StopReason",
    "WorkerStarted",
    "check_launch_request",
    "parse_message",
    "render_message",
]

_QUESTION_TEXT_MAX_CHARS: Final = 65_536
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_PROFILE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")
_WORKER: Final = re.compile(r"[a-z][a-z_]{0,31}\Z")

# Names that change which code a program loads or how a shell starts: an allowed program would not be the program
# that the policy judged any more. The profile's own environment may set what it likes.
_CODE_LOADING: Final = re.compile(
    r"(?:LD_|DYLD_|GLIBC_|MALLOC_|PYTHON|PERL5?|RUBY|NODE_|JAVA_TOOL|_JAVA|LUA_|BASH|GIT_|GCONV|LOCPATH"
    r"|NLSPATH|HOSTALIASES|RES_OPTIONS|TMPDIR\Z|ENV\Z|IFS\Z|PATH\Z|HOME\Z|SHELL\Z|SHELLOPTS\Z|PS4\Z"
    r"|PROMPT_COMMAND\Z|CDPATH\Z|PWD\Z|OLDPWD\Z|USER\Z|LOGNAME\Z)"
)


class StopReason(StrEnum):
    """Why the runner ends a command."""

    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    OUTPUT_LIMIT = "output_limit"
    POLICY = "policy"


class LaunchError(Refusal):
    """The launcher did not start a command. ``layer`` names the layer of the wall, or the part of the request."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"command not started: {layer}: {why}")
        self.layer = layer
        self.why = why


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One command.

    Attributes:
        profile: name of a profile in the launcher's bundle.
        argv: the program, looked up in the bundle's trusted path when it has no ``/``, and its arguments.
        workdir: below the workspace, ``""`` for the workspace itself.
        environment: a few entries on top of the profile's own, which cannot be replaced.
        timeout_s: wall-clock seconds after which the whole tree is stopped and the exit code is 124.
        grace_s: seconds between SIGTERM and SIGKILL of a stopped tree.
        requester: who asked for it, for rules with conditions; None when nobody said.
        ask_timeout_s: how long a question of the exec gate may wait for its answer; 0: nobody can be asked.
        approved: commands that a person approved at gate one, each as the place of the rule and the argument vector:
            the exec gate asks about them no more. What a rule denies it denies all the same.
    """

    profile: str
    argv: tuple[str, ...]
    workdir: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    timeout_s: float = limits.BASH_TIMEOUT_DEFAULT_S
    grace_s: float = limits.STOP_GRACE_S
    requester: str | None = None
    ask_timeout_s: float = 0.0
    approved: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How one command ended.

    Attributes:
        exit_code: exit status; 128 + n for a signal n; 124 when timed out; 127 and 126 as a shell means them.
        signal: the signal that ended the main process, or None.
        duration_s: wall-clock, from the program's start to its end.
        cpu_user_s: of every process of the command that has ended, likewise ``cpu_system_s``.
        peak_memory_bytes: of the whole command where a cgroup counts it, else of its largest process; None
            where neither is known.
        denied_syscalls: how often each call was denied, where the profile counts.
        killed_descendants: processes that were still there when the main one had ended.
        execs: every program that ran (``ran``) or was refused (``refused``) as the exec gate saw it, and how many are
            left out (``left_out``); None without a gate.
        notes: layers that this host lacks, what was killed, hints.
        reason: one line for a person when something other than the command itself ended it.
    """

    exit_code: int
    signal: int | None
    timed_out: bool
    cancelled: bool
    duration_s: float
    cpu_user_s: float
    cpu_system_s: float
    peak_memory_bytes: int | None
    oom_killed: bool
    denied_syscalls: dict[str, int]
    killed_descendants: int
    notes: tuple[str, ...]
    reason: str | None
    execs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Runner: stop command ``id``."""

    id: int
    reason: StopReason


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Runner: start the worker ``kind`` (``files``) and send me its socket."""

    id: int
    kind: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Runner: start this; its three descriptors come along."""

    id: int
    request: LaunchRequest


@dataclass(frozen=True, slots=True)
class ProxyListening:
    """Launcher: the listening socket inside command ``id``'s own network namespace comes along: serve it.

    Comes before any other answer for ``id``, where the profile's network mode is ``domains``.
    """

    id: int


@dataclass(frozen=True, slots=True)
class Started:
    """Launcher: command ``id`` runs; ``pid`` as the launcher sees it."""

    id: int
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """Launcher: command ``id`` and everything it started is gone."""

    id: int
    outcome: CommandOutcome


@dataclass(frozen=True, slots=True)
class Refused:
    """Launcher: ``id`` was not started; ``layer`` and ``why`` as in `LaunchError`."""

    id: int
    layer: str
    why: str


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """Launcher: the worker's socket comes along."""

    id: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Launcher: the bundle is read and accepted, requests are served from now on. ``id`` is 0."""

    id: int


@dataclass(frozen=True, slots=True)
class Question:
    """Launcher: a process of command ``id`` waits at the exec gate until ``number`` is answered.

    Texts are as in the execution record, not redacted.
    """

    id: int
    number: int
    path: str
    argv: tuple[str, ...]
    started_by: str
    rule: str
    place: str
    because: str


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """Runner: what a person said to question ``number`` of command ``id``. ``why`` goes into the record."""

    id: int
    number: int
    allows: bool
    why: str


@dataclass(frozen=True, slots=True)
class QuestionOver:
    """Launcher: question ``number`` of command ``id`` needs no answer any more, and why."""

    id: int
    number: int
    why: str


Message = (
    Question
    | AnswerQuestion
    | QuestionOver
    | Launch
    | Stop
    | StartWorker
    | ProxyListening
    | Started
    | Exited
    | Refused
    | WorkerStarted
    | Ready
)

_KINDS: Final[dict[str, type]] = {
    "launch": Launch,
    "question": Question,
    "answer_question": AnswerQuestion,
    "question_over": QuestionOver,
    "stop": Stop,
    "start_worker": StartWorker,
    "proxy_listening": ProxyListening,
    "started": Started,
    "exited": Exited,
    "refused": Refused,
    "worker_started": WorkerStarted,
    "ready": Ready,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


# Made once: `json.dumps` and `json.loads` with options make a new one each time.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def render_message(message: Message) -> bytes:
    """Return the JSON body of ``message``."""
    # One level by hand, not `asdict`: it copies every list and string container below as well.
    body: dict[str, Any] = {"op": _NAMES[type(message)]}
    for name in type(message).__slots__:
        value = getattr(message, name)
        if isinstance(value, LaunchRequest | CommandOutcome):
            value = {key: getattr(value, key) for key in type(value).__slots__}
        body[name] = value
    return _ENCODER.encode(body).encode("ascii")


def parse_message(body: bytes) -> Message:
    """Return the message in ``body``, checked against every limit.

    Raises:
        PeerError: not JSON, an unknown or missing key, a wrong type, or a value beyond its limit.
    """
    if len(body) > limits.LAUNCH_BODY_MAX_BYTES:
        raise PeerError(
            f"launch message of {len(body)} bytes, the limit is {limits.LAUNCH_BODY_MAX_BYTES}", code="oversized"
        )
    try:
        raw = _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PeerError(f"launch message is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise PeerError(f"launch message must be an object, got {type(raw).__name__}")
    operation = raw.pop("op", None)
    kind = _KINDS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        raise PeerError(f"unknown launch operation: {operation!r}")
    reader = _Reader(raw, str(operation))
    identifier = reader.take_int("id", 0, 2**53)
    message: Message
    match operation:
        case "launch":
            message = Launch(identifier, _parse_request(reader.take_object("request")))
        case "stop":
            message = Stop(identifier, _parse_reason(reader.take_text("reason", 64)))
        case "start_worker":
            message = StartWorker(identifier, reader.take_matching("kind", _WORKER))
        case "proxy_listening":
            message = ProxyListening(identifier)
        case "started":
            message = Started(identifier, reader.take_int("pid", 1, 2**31))
        case "exited":
            message = Exited(identifier, _parse_outcome(reader.take_object("outcome")))
        case "refused":
            message = Refused(identifier, reader.take_text("layer", 256), reader.take_text("why", 16_384))
        case "ready":
            message = Ready(identifier)
        case "question":
            message = Question(
                identifier,
                reader.take_int("number", 1, 2**53),
                argv=reader.take_texts("argv"),
                **{
                    name: reader.take_text(name, _QUESTION_TEXT_MAX_CHARS)
                    for name in ("path", "started_by", "rule", "place", "because")
                },
            )
        case "answer_question":
            message = AnswerQuestion(
                identifier,
                reader.take_int("number", 1, 2**53),
                allows=reader.take_bool("allows"),
                why=reader.take_text("why", limits.APPROVAL_WHY_MAX_CHARS),
            )
        case "question_over":
            message = QuestionOver(
                identifier, reader.take_int("number", 1, 2**53), reader.take_text("why", limits.APPROVAL_WHY_MAX_CHARS)
            )
        case _:
            message = WorkerStarted(identifier, reader.take_int("pid", 1, 2**31))
    reader.finish()
    return message


def check_launch_request(request: LaunchRequest) -> None:
    """Raise PeerError where ``request`` is beyond a limit or could mean more than a profile and parameters."""
    if not _PROFILE.match(request.profile):
        raise PeerError(f"profile name {request.profile[:80]!r} is not lower-case letters, digits, '.', '_', '-'")
    _check_argv(request.argv)
    _check_workdir(request.workdir)
    _check_environment(request.environment)
    if not 0 < request.timeout_s <= limits.BASH_TIMEOUT_MAX_S:
        raise PeerError(f"timeout_s {request.timeout_s} is not above 0 and at most {limits.BASH_TIMEOUT_MAX_S}")
    if not 0 <= request.grace_s <= limits.LAUNCH_GRACE_MAX_S:
        raise PeerError(f"grace_s {request.grace_s} is not from 0 to {limits.LAUNCH_GRACE_MAX_S}")
    if not 0 <= request.ask_timeout_s <= limits.APPROVAL_TIMEOUT_MAX_S:
        raise PeerError(f"ask_timeout_s {request.ask_timeout_s} is not from 0 to {limits.APPROVAL_TIMEOUT_MAX_S}")
    if len(request.approved) > limits.LAUNCH_APPROVED_MAX or not all(len(words) > 1 for words in request.approved):
        raise PeerError(f"approved has more than {limits.LAUNCH_APPROVED_MAX} commands, or one without a word")


def _check_argv(argv: tuple[str, ...]) -> None:
    if not 1 <= len(argv) <= limits.LAUNCH_ARGV_MAX_WORDS:
        raise PeerError(f"argv has {len(argv)} words, from 1 to {limits.LAUNCH_ARGV_MAX_WORDS} are possible")
    if not argv[0]:
        raise PeerError("argv[0] is empty: it must name a program")
    for index, word in enumerate(argv):
        if "\0" in word:
            raise PeerError(f"argv[{index}] holds a NUL byte, which no argument can")
        if len(_encode(word, f"argv[{index}]")) > limits.COMMAND_TEXT_MAX_BYTES:
            raise PeerError(
                f"argv[{index}] is longer than {limits.COMMAND_TEXT_MAX_BYTES} bytes, the kernel's limit for one"
                " argument; put the text into a file in the workspace",
                code="oversized",
            )


def _check_workdir(workdir: str) -> None:
    if "\0" in workdir or len(_encode(workdir, "workdir")) > limits.LAUNCH_WORKDIR_MAX_BYTES:
        raise PeerError("workdir holds a NUL byte or is longer than a path can be")
    if workdir.startswith("/") or ".." in workdir.split("/"):
        raise PeerError(f"path escapes workspace: workdir {workdir!r} must be relative and without '..'")


def _check_environment(environment: dict[str, str]) -> None:
    if len(environment) > limits.LAUNCH_ENVIRONMENT_MAX_ENTRIES:
        raise PeerError(
            f"environment has {len(environment)} entries, the limit is {limits.LAUNCH_ENVIRONMENT_MAX_ENTRIES}"
        )
    for name, value in environment.items():
        if not _NAME.match(name):
            raise PeerError(f"environment name {name[:80]!r} is not letters, digits and '_'")
        if _CODE_LOADING.match(name):
            raise PeerError(
                f"environment entry {name!r} refused: it can change which code a program runs;"
                " set it in the profile's environment if it is meant"
            )
        if "\0" in value or len(_encode(value, name)) > limits.COMMAND_TEXT_MAX_BYTES - len(name) - 1:
            raise PeerError(f"environment entry {name!r} holds a NUL byte or is too long")


def _encode(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PeerError(f"{what} holds a lone surrogate that stands for no byte") from error


def _parse_reason(text: str) -> StopReason:
    try:
        return StopReason(text)
    except ValueError as error:
        raise PeerError(f"unknown stop reason: {text!r}; known: {', '.join(StopReason)}") from error


def _parse_request(raw: dict[str, Any]) -> LaunchRequest:
    reader = _Reader(raw, "launch.request")
    request = LaunchRequest(
        profile=reader.take_text("profile", 64),
        argv=reader.take_texts("argv"),
        workdir=reader.take_text("workdir", limits.LAUNCH_WORKDIR_MAX_BYTES),
        environment=reader.take_table("environment", str),
        timeout_s=reader.take_number("timeout_s"),
        grace_s=reader.take_number("grace_s"),
        requester=reader.take_optional_text("requester"),
        ask_timeout_s=reader.take_number("ask_timeout_s"),
        approved=reader.take_text_lists("approved"),
    )
    reader.finish()
    check_launch_request(request)
    return request


def _parse_outcome(raw: dict[str, Any]) -> CommandOutcome:
    reader = _Reader(raw, "exited.outcome")
    outcome = CommandOutcome(
        exit_code=reader.take_int("exit_code", 0, 255),
        signal=reader.take_optional_int("signal"),
        timed_out=reader.take_bool("timed_out"),
        cancelled=reader.take_bool("cancelled"),
        duration_s=reader.take_number("duration_s"),
        cpu_user_s=reader.take_number("cpu_user_s"),
        cpu_system_s=reader.take_number("cpu_system_s"),
        peak_memory_bytes=reader.take_optional_int("peak_memory_bytes"),
        oom_killed=reader.take_bool("oom_killed"),
        denied_syscalls=reader.take_table("denied_syscalls", int),
        killed_descendants=reader.take_int("killed_descendants", 0, 2**53),
        notes=reader.take_texts("notes"),
        reason=reader.take_optional_text("reason"),
        execs=reader.take_optional_object("execs"),
    )
    reader.finish()
    return outcome


class _Reader:
    """Takes typed values out of one JSON object; `finish` refuses what is left over."""

    def __init__(self, raw: dict[str, Any], place: str) -> None:
        self._raw = raw
        self._place = place

    def _take(self, key: str) -> Any:
        if key not in self._raw:
            raise PeerError(f"{self._place} lacks {key!r}")
        return self._raw.pop(key)

    def _wrong(self, key: str, expected: str, value: Any) -> PeerError:
        return PeerError(f"{self._place}.{key} must be {expected}, got {type(value).__name__}")

    def finish(self) -> None:
        if self._raw:
            raise PeerError(f"{self._place} has unknown keys: {', '.join(sorted(self._raw))}")

    def take_int(self, key: str, least: int, most: int) -> int:
        value = self._take(key)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(key, f"a whole number from {least} to {most}", value)
        return value

    def take_optional_int(self, key: str) -> int | None:
        if self._raw.get(key, 0) is None:
            del self._raw[key]
            return None
        return self.take_int(key, 0, 2**63)

    def take_number(self, key: str) -> float:
        value = self._take(key)
        if type(value) not in (int, float) or not abs(value) < 2**53:
            raise self._wrong(key, "a finite number", value)
        return float(value)

    def take_bool(self, key: str) -> bool:
        value = self._take(key)
        if type(value) is not bool:
            raise self._wrong(key, "true or false", value)
        return value

    def take_text(self, key: str, most_chars: int) -> str:
        value = self._take(key)
        if type(value) is not str or len(value) > most_chars:
            raise self._wrong(key, f"text of at most {most_chars} characters", value)
        return value

    def take_optional_text(self, key: str) -> str | None:
        if self._raw.get(key, "") is None:
            del self._raw[key]
            return None
        return self.take_text(key, 16_384)

    def take_optional_object(self, key: str) -> dict[str, Any] | None:
        if self._raw.get(key, 0) is None:
            del self._raw[key]
            return None
        return self.take_object(key)

    def take_matching(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.take_text(key, 256)
        if not pattern.match(value):
            raise PeerError(f"{self._place}.{key} {value!r} is not a name")
        return value

    def take_texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(type(item) is str for item in value):
            raise self._wrong(key, "a list of texts", value)
        return tuple(value)

    def take_text_lists(self, key: str) -> tuple[tuple[str, ...], ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(
            isinstance(words, list) and all(type(word) is str for word in words) for words in value
        ):
            raise self._wrong(key, "a list of lists of texts", value)
        return tuple(tuple(words) for words in value)

    def take_object(self, key: str) -> dict[str, Any]:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def take_table(self, key: str, kind: type) -> dict[str, Any]:
        value = self.take_object(key)
        if not all(type(item) is kind for item in value.values()):
            raise self._wrong(key, f"an object of {kind.__name__}", value)
        return value
