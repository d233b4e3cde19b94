"""What the runner and the launcher say to each other: typed values to datagrams and back, checked strictly.

One SOCK_SEQPACKET datagram is one message: a JSON object behind one byte that says where it is (``J``: here;
``M``: in a sealed memory file, the first descriptor that came along). A request names a profile and parameters;
there is no way to say "mount", "filter" or "uid" in it, so a taken-over runner cannot ask for more than the
launcher's bundle holds.

Knows no socket. Imported by the runner's client and by the launcher: standard library only.
"""

from guardhouse.launcher.messages.kinds import (
    AnswerQuestion,
    Exited,
    Launch,
    Message,
    ProxyListening,
    Question,
    QuestionOver,
    Ready,
    Refused,
    Started,
    StartWorker,
    Stop,
    WorkerStarted,
)
from guardhouse.launcher.messages.request import (
    CommandOutcome,
    LaunchError,
    LaunchRequest,
    StopReason,
    check_launch_request,
)
from guardhouse.launcher.messages.text import parse_message, render_message

__all__ = [
    "AnswerQuestion",
    "CommandOutcome",
    "Exited",
    "Launch",
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
