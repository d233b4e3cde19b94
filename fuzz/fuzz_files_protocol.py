"""Any bytes as frames to the files worker's parsers and handlers: a result, a refusal, or a PeerError; nothing else.

The input is what a client sends: frames one after the other. Operations run on an empty workspace that is
made anew now and then; what they may write stays in it.
"""

import contextlib
import os
import shutil
import tempfile

from driver import main
from guardhouse.errors import PeerError, Refusal
from guardhouse.worker import protocol
from guardhouse.worker.handlers import Session, serve
from guardhouse.worker.settings import FilesSettings
from guardhouse.workspace import open_workspace

ROOT = tempfile.mkdtemp(prefix="guardhouse-fuzz-")
OUTSIDE = os.path.join(ROOT, "outside")
INSIDE = os.path.join(ROOT, "workspace")
RUNS_A_TREE = 500
state = {"runs": 0}


def fuzz_one(data: bytes) -> None:
    if state["runs"] % RUNS_A_TREE == 0:
        _renew()
    state["runs"] += 1
    fd = os.open(INSIDE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        session = Session(open_workspace(fd, root_path=INSIDE), FilesSettings())
        with contextlib.suppress(PeerError):
            _serve_all(session, data)
        session.temporaries.close()
    finally:
        os.close(fd)
    assert os.listdir(OUTSIDE) == ["canary"]


def _serve_all(session: Session, data: bytes) -> None:
    at = 0
    while at + protocol.LENGTHS.size <= len(data):
        header_size, body_size = protocol.parse_lengths(data[at : at + protocol.LENGTHS.size])
        at += protocol.LENGTHS.size
        header, body = data[at : at + header_size], data[at + header_size : at + header_size + body_size]
        at += header_size + body_size
        request = protocol.parse_request(header)
        with contextlib.suppress(Refusal, PeerError):
            served = serve(session, request.operation, request.args, body)
            assert served.result is not None


def _renew() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    os.makedirs(os.path.join(INSIDE, "a"))
    os.makedirs(OUTSIDE)
    with open(os.path.join(OUTSIDE, "canary"), "wb") as canary:
        canary.write(b"alive")
    with open(os.path.join(INSIDE, "a", "f"), "wb") as file:
        file.write(b"one\ntwo\n")
    os.symlink("../outside", os.path.join(INSIDE, "out"))


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
