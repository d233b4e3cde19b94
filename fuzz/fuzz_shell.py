"""Any bytes as shell text: the reader answers, in time, within its limits, and says the same in other clothes.

Claims: no exception; linear time; every span lies inside the text; a literal word's pattern is its value; the same text
with blanks around it, or with a comment behind it, names the same commands.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from driver import main
from guardhouse.policy.shell import ShellReading, read_command

# A megabyte a second would be a tenth of this; the rest is for a busy machine.
SECONDS_FOR_EACH_CHARACTER = 5e-5


def named(reading: ShellReading) -> list[tuple[str | None, ...]]:
    return [tuple(word.value for word in command.words) for command in reading.commands]


def fuzz_one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    started = time.perf_counter()
    reading = read_command(text, second=None)
    spent = time.perf_counter() - started
    assert spent < 0.25 + SECONDS_FOR_EACH_CHARACTER * len(text), f"took {spent:.2f} s for {len(text)} characters"
    places = [undecided.span for undecided in reading.undecided]
    for command in reading.commands:
        places.append(command.span)
        assert command.words, "a command without words"
        for word in command.words:
            places.append(word.span)
            assert (word.value is None) == (word.undecided_because is not None)
            assert word.value is None or word.pattern == (word.value,)
    assert all(0 <= start <= end <= len(text) for start, end in places), places
    if reading.undecided:
        return
    again = read_command(f"\t {text} ", second=None)
    assert again.undecided or named(again) == named(reading), "blanks around the text change what it runs"
    if not text.endswith("\n") and "<<" not in text:
        commented = read_command(f"{text} # pwn; $(pwn", second=None)
        assert commented.undecided or named(commented) == named(reading), "a comment changes what the text runs"


if __name__ == "__main__":
    main(fuzz_one, __file__)
