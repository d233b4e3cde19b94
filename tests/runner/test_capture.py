"""What is kept of a command's output."""

from hypothesis import given
from hypothesis import strategies as st

from guardhouse.runner.capture import TAIL_BYTES, Capture


@given(chunks=st.lists(st.binary(max_size=40), max_size=20), limit_bytes=st.integers(0, 200))
def test_kept_is_a_prefix_and_nothing_is_uncounted(chunks, limit_bytes) -> None:
    """What is kept is the output's prefix up to the limit, and kept plus dropped is everything."""
    capture = Capture(limit_bytes=limit_bytes)
    streamed = b"".join(capture.add(chunk) for chunk in chunks)
    whole = b"".join(chunks)
    assert capture.content == streamed == whole[:limit_bytes]
    assert capture.kept_bytes + capture.dropped_bytes == len(whole)


def test_note_says_how_much_was_dropped() -> None:
    """A full capture says how many bytes it dropped and what to do; an unfilled one says nothing."""
    capture = Capture(limit_bytes=4)
    capture.add(b"1234")
    assert capture.dropped_note("stdout") is None
    capture.add(b"56")
    assert "2 bytes of stdout were dropped past the limit of 4 bytes" in str(capture.dropped_note("stdout"))


def test_tail_is_whole_lines_of_the_end():
    """The last 16 KiB however little is kept, without the line that it would cut; all of it while it fits."""
    capture = Capture(limit_bytes=0)
    capture.add(b"first\nsecond")
    assert capture.tail == b"first\nsecond"
    capture.add(b"x" * TAIL_BYTES + b"\nlast line\n")
    assert capture.tail == b"last line\n"
    through = Capture(limit_bytes=None)
    through.add(b"a\n")
    assert through.tail == b"a\n"
