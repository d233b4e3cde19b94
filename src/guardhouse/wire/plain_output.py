"""Output for a plain platform: text pieces without numbers, and credit from the socket instead of the peer.

Runs in the runner, inside its session.
"""

from codecs import IncrementalDecoder, getincrementaldecoder

from guardhouse import limits
from guardhouse.values import Stream
from guardhouse.wire.messages import TaskOutput

__all__ = ["PlainOutput"]

_DECODER = getincrementaldecoder("utf-8")


class PlainOutput:
    """Decodes each stream on its own, so that a character cut between two reads stays one character."""

    def __init__(self) -> None:
        self._decoders: dict[tuple[str, Stream], IncrementalDecoder] = {}
        self._waiting: dict[str, int] = {}

    def reset(self) -> None:
        """Forget half characters and what waited for the socket: the connection is gone."""
        self._decoders.clear()
        self._waiting.clear()

    def waiting(self, task_id: str) -> int:
        """Return the characters of a task that were queued and not yet written; never more than its bytes."""
        return self._waiting.get(task_id, 0)

    def written(self, piece: TaskOutput) -> None:
        """Note that a piece was written."""
        left = self.waiting(piece.task_id) - len(piece.data)
        if left > 0:
            self._waiting[piece.task_id] = left
        else:
            self._waiting.pop(piece.task_id, None)

    def pieces(self, task_id: str, stream: Stream, data: bytes) -> list[TaskOutput]:
        """Return ``data`` as text, U+FFFD for each bad byte; half a character waits for its rest."""
        decoder = self._decoders.setdefault((task_id, stream), _DECODER("replace"))
        found = []
        for start in range(0, len(data), limits.OUTPUT_CHUNK_MAX_BYTES):
            text = decoder.decode(data[start : start + limits.OUTPUT_CHUNK_MAX_BYTES])
            if text:
                self._waiting[task_id] = self.waiting(task_id) + len(text)
                found.append(TaskOutput(task_id=task_id, stream=stream, data=text))
        return found

    def ending(self, task_id: str) -> list[TaskOutput]:
        """Return what was left of half characters when the command ended."""
        found = []
        for stream in Stream:
            decoder = self._decoders.pop((task_id, stream), None)
            text = decoder.decode(b"", final=True) if decoder is not None else ""
            if text:
                found.append(TaskOutput(task_id=task_id, stream=stream, data=text))
        return found
