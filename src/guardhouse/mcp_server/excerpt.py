"""Machine output within a budget: head and tail with exact counts of what is between, fenced as machine's data. Pure.

A token is taken for four bytes of UTF-8, which is what common tokenizers make of English and logs within a third.
"""

import secrets
from dataclasses import dataclass
from typing import Final

__all__ = ["BYTES_PER_TOKEN", "Excerpt", "fence", "take_excerpt"]

BYTES_PER_TOKEN: Final = 4
# Of what fits, so much is the end: the reason for a failure is most often there.
_TAIL_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text, or its head and tail.

    Attributes:
        text: what is shown, with one line in the middle that says what is not.
        bytes_total: of the whole, in UTF-8.
        bytes_left_out: between head and tail.
        lines_left_out: line ends between head and tail.
        head_bytes: where the left-out part begins.
    """

    text: str
    bytes_total: int
    bytes_left_out: int = 0
    lines_left_out: int = 0
    head_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.bytes_left_out


def take_excerpt(text: str, *, budget_tokens: int, how_to_read_on: str = "") -> Excerpt:
    """Return ``text`` whole when it fits the budget, else its first and last lines.

    Args:
        budget_tokens: at least 1.
        how_to_read_on: is put into the line in the middle.
    """
    data = text.encode("utf-8", "replace")
    budget = max(1, budget_tokens) * BYTES_PER_TOKEN
    if len(data) <= budget:
        return Excerpt(text, len(data))
    tail_size = int(budget * _TAIL_SHARE)
    head = _whole_lines_from_the_start(data[: budget - tail_size])
    tail = _whole_lines_to_the_end(data[len(data) - tail_size :])
    between = data[len(head) : len(data) - len(tail)]
    lines = between.count(b"\n")
    note = f"[… {len(between)} bytes, {lines} lines left out{'; ' + how_to_read_on if how_to_read_on else ''} …]"
    shown = head.decode("utf-8", "replace") + f"\n{note}\n" + tail.decode("utf-8", "replace")
    return Excerpt(shown, len(data), len(between), lines, len(head))


def _whole_lines_from_the_start(data: bytes) -> bytes:
    """Cut at the last line end; where there is none, at the last whole character."""
    cut = data.rfind(b"\n") + 1
    return data[:cut] if cut else data.decode("utf-8", "ignore").encode("utf-8")


def _whole_lines_to_the_end(data: bytes) -> bytes:
    cut = data.find(b"\n") + 1
    if 0 < cut < len(data):
        return data[cut:]
    start = 0
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]


def fence(text: str, *, source: str) -> str:
    """Return ``text`` between two marks that it cannot know, so that a model can tell a machine's words from ours."""
    mark = secrets.token_hex(4)
    return f"<untrusted-output {mark} from {source}>\n{text}\n</untrusted-output {mark}>"
