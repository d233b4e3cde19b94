"""Hubs in processes of their own that end themselves with SIGKILL at one exact step of a task.

    python -m tests.support.dying_hub DIRECTORY [DATABASE]

reads lines of JSON, ``[PORT, STEP, COUNT]``, and forks a hub for each, one after the other (what a hub imports is read
once): writes ``{"pid"}``, ``{"url"}`` when it listens, and ``{"ended"}`` with its wait status. A hub dies when STEP of
`STEPS` has come for the COUNT-th time. The real hub does everything else; what stands around its functions here counts
and kills.
"""

import ctypes
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from starlette.websockets import WebSocket

from guardhouse.hub.config import HubConfig
from guardhouse.hub.gateway import intake
from guardhouse.hub.logs import configure_logs
from guardhouse.hub.server import open_hub
from guardhouse.hub.tasks.dispatch import Dispatcher
from guardhouse.wire.session import HubSession

PR_SET_PDEATHSIG = 1
# In the order in which a task passes them.
STEPS = (
    "task stored, not sent",
    "request sent",
    "result arrived, not stored",
    "result in an open transaction",
    "result stored, not acknowledged",
    "result acknowledged",
)


def die_at(step: str, count: int) -> None:
    """Let this process end itself at the ``count``-th time of a step."""
    times = itertools.count(1)

    def passes(here: str) -> None:
        if here == step and next(times) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any], here: str) -> Callable[..., Any]:
        def call(*args: Any, **values: Any) -> Any:
            passes(here)
            return function(*args, **values)

        return call

    send, receive, finish = WebSocket.send, WebSocket.receive, intake.finish_and_record

    async def send_and_die(self: WebSocket, message: Any) -> None:
        await send(self, message)
        if "text" in message:
            kind = json.loads(message["text"])["type"]
            passes({"task.request": "request sent", "task.result.ack": "result acknowledged"}.get(kind, ""))

    async def receive_and_die(self: WebSocket) -> Any:
        message = await receive(self)
        if message.get("text") and json.loads(message["text"])["type"] == "task.result":
            passes("result arrived, not stored")
        return message

    def finish_and_die(*args: Any, **values: Any) -> bool:
        done = finish(*args, **values)
        passes("result in an open transaction")
        return done

    for owner, name, instead in (
        (Dispatcher, "send", before(Dispatcher.send, "task stored, not sent")),
        (HubSession, "result_stored", before(HubSession.result_stored, "result stored, not acknowledged")),
        (WebSocket, "send", send_and_die),
        (WebSocket, "receive", receive_and_die),
        (intake, "finish_and_record", finish_and_die),
    ):
        setattr(owner, name, instead)


def say(**facts: Any) -> None:
    """Write one line, whole, whoever else writes to the same pipe."""
    os.write(1, json.dumps(facts).encode() + b"\n")


async def serve(config: HubConfig) -> None:
    """Be a hub until something kills it."""
    async with open_hub(config) as hub:
        say(url=hub.url)
        await trio.sleep_forever()


def main() -> None:
    """Fork a hub for each line."""
    configure_logs(level="error", log_format="text")
    directory, *database = sys.argv[1:]
    for line in sys.stdin:
        port, step, count = json.loads(line)
        pid = os.fork()
        if pid == 0:
            # SIGKILL, when whoever forked it is gone.
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
                os._exit(1)
            die_at(step, count)
            trio.run(serve, HubConfig(state_dir=Path(directory), port=port, database=database[0] if database else None))
        say(pid=pid)
        say(ended=os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
