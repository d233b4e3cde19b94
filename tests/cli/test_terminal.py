"""What a command prints cannot take over the terminal of whoever looks at it; a pipe gets every byte."""

import os
import pty
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.cli.terminal import HarmlessText, plain_lines

ATTACKS = {
    "title": "\x1b]0;root@bank\x07",
    "title, closed by ST": "\x1b]2;x\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "link": "\x1b]8;;https://evil.example\x07here\x1b]8;;\x07",
    "answer as if typed": "\x1b[21t\x1b[6n\x05\x1b[c\x1bZ",
    "status in DECRQSS": "\x1bP$q\nid\n\x1b\\",
    "clear and write over": "\x1b[2J\x1b[1;1Hall is well",
    "one line up": "\x1b[A\x1b[2Kno error",
    "alternate screen": "\x1b[?1049h",
    "mouse": "\x1b[?1003h",
    "bracketed paste off": "\x1b[?2004l",
    "keys redefined": '\x1b[0;59;"rm -rf /";13p',
    "C1 in UTF-8": "\x9b2J\x9d0;x\x9c",
    "backspaces": "rm -rf /\b\b\b\b\b\b\b\bls      ",
    "bell, shift out": "\x07\x0e",
    "concealed": "\x1b[8mhidden",
    "concealed among colours": "\x1b[1;31;8mhidden",
    "private SGR": "\x1b[>4;2m",
    "reordered": "access = '\u202euser\u2066' admin\u2069",
    "reset": "\x1bc",
    "begun and never ended": "\x1b[3",
}
HARMLESS = {
    "text": "a\tb\r\nc ä € 🙂\n",
    "colours": "\x1b[1;31mred\x1b[0m \x1b[38;5;8mgrey\x1b[m \x1b[48;2;8;8;8mdark\x1b[49;39m\x1b[0m",
}
OBEYED = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066", "\u2069"} - {"\n", "\t", "\r", "\x1b"}


def harmless(text: str | bytes, *, piece: int = 1_000) -> str:
    """Return what is shown of ``text`` that comes in pieces."""
    maker, data = HarmlessText(), text.encode() if isinstance(text, str) else text
    shown = b"".join(maker.feed(data[place : place + piece]) for place in range(0, len(data), piece))
    return (shown + maker.finish()).decode()


@pytest.mark.parametrize("piece", [1, 2, 3, 1_000])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_is_spelt_out(attack, piece):
    """However it is cut, nothing is left that a terminal would obey, and a person sees what was tried."""
    shown = harmless(attack, piece=piece)
    assert not OBEYED & set(shown)
    assert "\x1b" not in shown.removesuffix("\x1b[0m")
    assert "\\x" in shown or "\\u" in shown


@pytest.mark.parametrize("piece", [1, 3, 1_000])
@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_text_and_colours_stay(text, piece):
    """The twin: lines, tabs, carriage returns, any script and colours come through unchanged."""
    assert harmless(text, piece=piece) == text


def test_colour_that_is_left_on_ends_with_the_output():
    """The next prompt is not the command's to paint."""
    assert harmless("\x1b[31mred") == "\x1b[31mred\x1b[0m"


def test_bytes_that_are_no_text_are_spelt():
    """A byte that is no UTF-8 could be a control character of another encoding."""
    assert harmless(b"a\x9b2Jb\xff") == "a\\x9b2Jb\\xff"


@given(st.binary(max_size=200), st.integers(1, 7))
def test_whatever_comes_the_shown_is_the_same_and_harmless(data, piece):
    """Pieces change nothing; an escape only ever begins a colour."""
    shown = harmless(data, piece=piece)
    assert shown == harmless(data)
    assert not OBEYED & set(shown)
    assert all(rest[0] == "[" and "m" in rest for rest in shown.split("\x1b")[1:])


def test_lines_about_a_command_are_plain():
    """Reasons and denials repeat words of the command's."""
    assert plain_lines("denied: \x1b]0;x\x07\nnext") == "denied: \\x1b]0;x\\x07\nnext"


SAYS = r"printf '\033]0;owned\007\033[32mgreen\033[0m\n'"
TRY = [sys.executable, "-m", "guardhouse", "try", "--policy", "trusted_machine", "--profile", "isolate"]


def on_a_terminal(*words: str) -> bytes:
    """Return what a terminal is sent by a program that has it as its output."""
    master, slave = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(master, 4096):
                chunks.append(data)
        except OSError:
            return  # EIO: nobody has the other side any more

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, timeout=90, check=False)
    os.close(slave)
    reader.join(30)
    os.close(master)
    assert done.returncode == 0, chunks
    return b"".join(chunks)


def test_try_shows_a_terminal_what_is_harmless_and_a_pipe_every_byte():
    """The attack on a real pseudo-terminal, its twins by --raw and through a pipe."""
    assert on_a_terminal(*TRY, "--", SAYS) == b"\\x1b]0;owned\\x07\x1b[32mgreen\x1b[0m\r\n"
    assert on_a_terminal(*TRY, "--raw", "--", SAYS) == b"\x1b]0;owned\x07\x1b[32mgreen\x1b[0m\r\n"
    piped = subprocess.run([*TRY, "--", SAYS], capture_output=True, timeout=90, check=True)
    assert piped.stdout == b"\x1b]0;owned\x07\x1b[32mgreen\x1b[0m\n"
