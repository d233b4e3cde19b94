"""Line ends are counted right whatever the lines look like."""

from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.workspace.line_count import count_line_ends


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.integers(0, 200), max_size=40),
    times=st.integers(1, 20),
    start=st.integers(0, 3000),
    end=st.integers(0, 60_000),
    mutable=st.booleans(),
)
def test_as_counting_would(*, lines: list[int], times: int, start: int, end: int, mutable: bool) -> None:
    """Long and short lines, from and to anywhere, in both kinds of buffers; the buffer stays as it was."""
    whole = b"".join(b"x" * size + b"\n" for size in lines) * times
    block = bytearray(whole) if mutable else whole
    end = min(end, len(whole))
    start = min(start, end)
    assert count_line_ends(block, start, end) == whole[start:end].count(b"\n")
    assert block == whole
