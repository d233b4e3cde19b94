"""What a command ran and was refused, as the report that its init gets: bounded, in plain values for JSON.

Decides nothing and asks nobody. Runs in the exec gate's monitor.
"""

from typing import Any, Final

from guardhouse import limits
from guardhouse.errors import InvariantError
from guardhouse.launcher.gate.judge import Judgement
from guardhouse.launcher.gate.tree import ExecRecord, ProcessTree

__all__ = ["Refusals", "as_json", "judgement_of", "report_of", "size_bytes"]

# Of one record in the report without its texts: keys, numbers, punctuation.
_RECORD_BYTES: Final = 320
# In JSON a character outside ASCII takes up to twelve bytes, a control character six.
_BYTES_A_CHAR: Final = 6
_BYTES_AN_ODD_CHAR: Final = 12


class Refusals:
    """The programs of one command that were not let to run, as many as the report has room for.

    Attributes:
        left_out: how many more there were.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.left_out = 0
        self._bytes = 0

    def note(self, tid: int, parent: ExecRecord | None, judgement: Judgement, *, killed: bool, at_s: float) -> None:
        """Take in one refusal, at ``at_s`` seconds since the command's start.

        Args:
            parent: the program whose process wanted to run it.
            killed: at the event; otherwise its exec failed.
        """
        self._bytes += size_bytes(judgement)
        if len(self.entries) >= limits.GATE_MAX_RECORDS or self._bytes > limits.GATE_MAX_REPORT_BYTES:
            self.left_out += 1
            return
        self.entries.append(
            {
                "pid": tid,
                "parent": None if parent is None else parent.index,
                "killed": killed,
                "at_s": round(at_s, 6),
                **as_json(judgement),
            }
        )


def report_of(tree: ProcessTree, refusals: Refusals) -> dict[str, Any]:
    """Return the record of a command that has ended."""
    ran = [
        {
            "index": record.index,
            "parent": record.parent,
            "pid": record.pid,
            "started_s": round(record.started_s, 6),
            "ended_s": None if record.ended_s is None else round(record.ended_s, 6),
            "exit_status": record.exit_status,
            "signal": record.signal,
            "cpu_s": round(record.cpu_s, 6),
            "peak_memory_bytes": record.peak_memory_bytes,
            **as_json(judgement_of(record)),
        }
        for record in tree.records
    ]
    return {"ran": ran, "refused": refusals.entries, "left_out": refusals.left_out + tree.left_out}


def judgement_of(record: ExecRecord) -> Judgement:
    """Return what the judge said of a program that ran."""
    if not isinstance(record.judgement, Judgement):
        raise InvariantError(f"the record of process {record.pid} has no judgement")
    return record.judgement


def as_json(judgement: Judgement) -> dict[str, Any]:
    """Return what the report says of a judgement, in plain values."""
    return {
        "path": judgement.path,
        "argv": judgement.argv,
        "verdict": judgement.verdict.value,
        "because": judgement.because,
        "rule": judgement.rule,
        "place": judgement.place,
        "interpreter": judgement.interpreter,
    }


def size_bytes(judgement: Judgement) -> int:
    """Return how much a judgement may take in the report at most."""
    size = _RECORD_BYTES + 4 * len(judgement.argv)
    texts = (judgement.path, judgement.because, judgement.rule, judgement.place, judgement.interpreter, *judgement.argv)
    for text in texts:
        if text.isascii() and text.isprintable():
            size += 2 * len(text)
        elif text.isascii():
            size += _BYTES_A_CHAR * len(text)
        else:
            size += _BYTES_AN_ODD_CHAR * len(text)
    return size
