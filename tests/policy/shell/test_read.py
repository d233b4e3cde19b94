"""What the reader says of words, redirections, wrappers, builtins and its own limits."""

# ruff: noqa: E501 - tables of shell texts are read as rows

import shutil
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse import limits
from guardhouse.policy.shell import ShellReading, read_command
from guardhouse.policy.shell.builtins import BUILTINS
from guardhouse.policy.shell.read import _read
from guardhouse.policy.shell.wrappers import WRAPPERS


def argvs(text: str) -> list[tuple[str, ...] | None]:
    return [command.argv for command in read_command(text, second=None).commands]


def reasons(text: str) -> list[str]:
    return [undecided.because for undecided in read_command(text, second=None).undecided]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a 'b c' d", ["a", "b c", "d"]),
        ("a\\ b c", ["a b", "c"]),
        (r"""p "a\"b\$c\`d\\e\f" """, ["p", 'a"b$c`d\\e\\f']),
        (r"p $'a\tb\x41\101\u0042\'\\\q'", ["p", "a\tbAAB'\\\\q"]),
        ('p $"x y"', ["p", "x y"]),
        ("p ''\"\"", ["p", ""]),
        ("p a''b\"\"c", ["p", "abc"]),
        ("p a#b \\#", ["p", "a#b", "#"]),
        ("p a\\\nb", ["p", "ab"]),
        ('p "a\\\nb"', ["p", "ab"]),
        ("p 'a\\\nb'", ["p", "a\\\nb"]),
        ("p 'a\nb'", ["p", "a\nb"]),
        ("p a=b {} {a} @{1} a^ x,y HEAD~1", ["p", "a=b", "{}", "{a}", "@{1}", "a^", "x,y", "HEAD~1"]),
        ("p [ ] !", ["p", "[", "]", "!"]),
        ("p é\u00a0b", ["p", "é\u00a0b"]),
        ("p a\rb", ["p", "a\rb"]),
        ('p "$" $ a$', ["p", "$", "$", "a$"]),
    ],
)
def test_exact_values(text: str, values: list[str]) -> None:
    """A literal word has the value that bash gives it."""
    reading = read_command(text, second=None)
    assert [word.value for word in reading.commands[0].words] == values
    assert reading.is_understood


@pytest.mark.parametrize(
    ("word", "pattern", "may_split"),
    [
        ('"$x"', ("", None), False),
        ("$x", (None,), True),
        ("a$x.b", ("a", None, ".b"), True),
        ('"a${x}b"', ("a", None, "b"), False),
        ("*.log", (None, ".log"), True),
        ("a?b", ("a", None, "b"), True),
        ("f[0-9]x", ("f", None), True),
        ("{a,b}c", (None,), True),
        ("x{1..3}", ("x", None), True),
        ("~/x", (None, "/x"), False),
        ('"$@"', ("", None), True),
        ("$#", (None,), False),
        ("$((1+1))", (None,), False),
        ("$(id)", (None,), True),
        ('"$(id)"', ("", None), False),
        ("<(id)", ("/dev/fd/", None), False),
        ("$'\\xff'", (None,), False),
    ],
)
def test_unknown_words(word: str, pattern: tuple[str | None, ...], *, may_split: bool) -> None:
    """A word that is not literal keeps the pieces that are known, and says whether it may split."""
    last = read_command(f"p {word}", second=None).commands[-1]
    found = next(one for one in (last, *read_command(f"p {word}", second=None).commands) if len(one.words) > 1)
    read = found.words[1]
    assert read.value is None
    assert read.undecided_because
    assert tuple(piece for piece in read.pattern if piece != "") == tuple(piece for piece in pattern if piece != "")
    assert read.may_split is may_split


@pytest.mark.parametrize(
    ("text", "kind", "fd", "target"),
    [
        ("p > o", "write", None, "o"),
        ("p 2>> o", "append", 2, "o"),
        ("p >| o", "write", None, "o"),
        ("p <> o", "read_write", None, "o"),
        ("p < o", "read", None, "o"),
        ("p &> o", "write", None, "o"),
        ("p &>> o", "append", None, "o"),
        ("p >& o", "write", None, "o"),
        ("p 1>& o", "write", 1, "o"),
        ("p 2>&1", "dup", 2, "1"),
        ("p 0000000001>&f", "write", 1, "f"),
        ("p {fd}>&f", "write", None, "f"),
        ("p 2>&f", "dup", 2, "f"),
        ("p 2>&-", "dup", 2, "-"),
        ("p {fd}> o", "write", None, "o"),
        ("p <<< o", "herestring", None, "o"),
        ("p <<E\nE", "heredoc", None, "E"),
    ],
)
def test_redirections(text: str, kind: str, fd: int | None, target: str) -> None:
    """Every form of redirection is judged as a read, a write or neither."""
    (redirection,) = read_command(text, second=None).commands[0].redirections
    assert (redirection.kind, redirection.fd, redirection.target and redirection.target.value) == (kind, fd, target)


def test_network_redirection() -> None:
    """A redirection by which bash opens a connection is marked and undecided; its twin to a file is neither."""
    reading = read_command("p > /dev/tcp/127.0.0.1/80", second=None)
    assert reading.commands[0].redirections[0].network
    assert reading.undecided
    assert not read_command("p > /dev/null", second=None).undecided


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("env A=1 nice -n 5 timeout -k 1 5 ls -l", ("ls", "-l")),
        ("sudo -u root -- ls", ("ls",)),
        ("nohup bash -c 'id; ls /'", ("ls", "/")),
        ("find . -name x -exec ls -l \\;", ("ls", "-l")),
        ("flock /tmp/l -c 'ls -a'", ("ls", "-a")),
        ("watch -n 1 ls -a", ("ls", "-a")),
        ("/usr/bin/env ls", ("ls",)),
        ("xargs -n1 ls", None),
        ("command env ls", ("ls",)),
        ("exec -c ls", ("ls",)),
        ("doas ls", ("ls",)),
        ("chroot /x ls", ("ls",)),
        ("stdbuf -oL ls", ("ls",)),
        ("eval 'eval \"ls -a\"'", ("ls", "-a")),
        ("trap 'ls -a' EXIT", ("ls", "-a")),
    ],
)
def test_unwrapped(text: str, wrapped: tuple[str, ...] | None) -> None:
    """What a wrapper runs is a command of its own, beside the wrapper."""
    reading = read_command(text, second=None)
    last = next(command for command in reading.commands if command.via and command.words[0].value == "ls")
    assert last.argv == wrapped
    assert any(step.startswith(("wrapper", "eval", "trap")) for step in last.via)


@pytest.mark.parametrize(
    "text",
    [
        "env $x ls", "env --unknown ls", "env -S 'ls'", "timeout $t ls", "sudo -s ls", "su root", "bash -c \"$x\"", "bash",
        "bash -i", "bash script.sh", "find $x -name y", "xargs bash -c", "parallel ls", "zsh -c ls", "exec -a ls ./x",
        "/lib64/ld-linux-x86-64.so.2 ./x", "unshare -R / ls", "nice --unknown ls", "sh -c \"echo $'x'\"", "strace -o '|ls' id",
    ],
)  # fmt: skip
def test_wrapped_undecided(text: str) -> None:
    """A wrapper whose options or words are not known leaves the text undecided."""
    assert read_command(text, second=None).undecided


@pytest.mark.parametrize(
    ("text", "resolution"),
    [
        ("ls", "program"), ("echo", "builtin"), ("./echo", "program"), ("env echo", "program"),
        ("f() { id; }; f", "function"), ("id && f() { ls; }; f", "function_or_program"), ("f; f() { id; }", "function_or_program"),
        ("(f() { id; }); f", "function_or_program"), ("f() { id; } | ls; f", "function_or_program"),
        ("f() { id; }; unset -f f; f", "function_or_program"), ("f() { id; } & f", "function_or_program"),
    ],
)  # fmt: skip
def test_resolution(text: str, resolution: str) -> None:
    """A name is a function only where a definition has certainly run before."""
    reading = read_command(text, second=None)
    found = [command for command in reading.commands if command.words[0].value in ("f", "echo", "./echo")]
    command = found[-1] if found else reading.commands[-1]
    if text.startswith("f;"):
        command = found[0]
    assert command.resolution == resolution


def test_function_bodies_are_named() -> None:
    """Commands of a function's body are named with the way to them, called or not."""
    reading = read_command("f() { rm -rf x; }", second=None)
    assert [command.argv for command in reading.commands] == [("rm", "-rf", "x")]
    assert reading.commands[0].via == ("function body f",)
    assert reading.functions == ("f",)


def test_denied_command_is_named_before_unreadable_text() -> None:
    """What stands before a place that cannot be read is still named."""
    reading = read_command("rm -rf x; echo ${x!}", second=None)
    assert reading.commands[0].argv == ("rm", "-rf", "x")
    assert reading.undecided


@pytest.mark.parametrize(
    "text",
    ["PATH=. ls", "LD_PRELOAD=x ls", "IFS=x; ls", "export GIT_PAGER=x", "FOO=1 ls", "read PATH", "for PATH in a; do ls; done",
     "printf -v PATH x", "declare PATH=x", "unset PATH", "((PATH=1))", ": ${PATH:=x}", "mapfile BASH_CMDS", "env PATH=x ls",
     "{PATH}>x ls", "coproc PATH { ls; }", "getopts a PATH", "PATH+=x", "PATH=(a)", "LC_ALL=ja_JP.SJIS ls"],
)  # fmt: skip
def test_dangerous_variables(text: str) -> None:
    """Setting a variable that changes what later words mean is undecided, however it is set."""
    assert read_command(text, second=None).undecided


@pytest.mark.parametrize(
    "text", ["x=1; ls", "LC_ALL=C ls", "TZ=UTC ls", "IFS=, read a b", "SECONDS=0", "x=$(id); ls", "read -r line"]
)
def test_harmless_variables(text: str) -> None:
    """Its twin: a variable that means nothing to the shell or to a program is no reason to hesitate."""
    assert read_command(text, second=None).is_understood


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (">&'$(id)'", "expands the file name"),
        ('echo "$${x:-$(id)}"', "second half"),
        ('echo "${x#a<(id)}"', "quote or substitution inside"),
        ("bash ''", "runs the text of a file"),
        ("jobs -x -x ls", "in a form that is not read"),
        ("x=(a); declare x=$y", "array"),
    ],
)
def test_found_by_fuzzing(text: str, why: str) -> None:
    """What the fuzz targets found in earlier versions stays undecided, and says why."""
    assert any(why in reason for reason in reasons(text))


@pytest.mark.parametrize(
    "text",
    [": 'a[$(id)]'; echo $((_))", "w=-p; wait $w 'a[$(id)]'", "select x in a; do echo $((REPLY)); done",
     "read x; [ $x ]", "x='-v a[$(id)]'; test $x"],
)  # fmt: skip
def test_text_evaluated_indirectly(text: str) -> None:
    """A value that a person or a command chose is never taken for a number."""
    assert reasons(text)


@pytest.mark.parametrize("text", ["ls & p=$!; wait $p", "n=3; [ $n -gt 2 ] && ls", "sleep 1 & wait $!"])
def test_numbers_are_followed(text: str) -> None:
    """Its twin: a variable that can only hold a number is one."""
    assert read_command(text, second=None).is_understood


def test_builtins_of_bash_are_programs_to_sh() -> None:
    """``sh`` may not have bash's builtins: the name is a program then, and judged as either."""
    (_, inner) = read_command("sh -c 'mapfile -C id x'", second=None).commands
    assert inner.resolution == "program"
    assert reasons("sh -c 'mapfile -C id x'")


def test_closing_redirection_ends_at_its_dash() -> None:
    """``2>&-ls`` runs ``ls``: found by the differential target."""
    assert argvs("2>&-ls -l") == [("ls", "-l")]


def test_every_builtin_is_reviewed() -> None:
    """The table holds every builtin that this machine's bash has."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("bash is not installed here")
    listed = subprocess.run([bash, "-c", "compgen -b"], capture_output=True, text=True, check=True).stdout.split()
    assert set(listed) - set(BUILTINS) == set()


def test_wrapper_letters_are_disjoint() -> None:
    """No option of a wrapper is in two classes at once."""
    for name, wrapper in WRAPPERS.items():
        classes = [set(wrapper.flags), set(wrapper.values), set(wrapper.none), set(wrapper.refuse), set(wrapper.text)]
        assert sum(map(len, classes)) == len(set().union(*classes)), name


NASTY = [
    "a'${'", "(" * 50_000, "$(" * 20_000, "`" * 20_000, "{ " * 40_000, '"$(' * 20_000, "<<E\n" * 20_000, "if " * 30_000,
    "case a in " * 10_000, "${x:-" * 20_000, "env " * 30_000, "x[1\n" * 30_000, "eval " * 20_000, "$((" * 20_000, "[[ " * 30_000,
    "[[ " + "! " * 60_000, "time " * 25_000, "coproc " * 15_000, "a[" * 40_000, "f() { " * 15_000, "\\\n" * 60_000, "! " * 60_000,
    "find " + "-exec " * 20_000, "export " + "a=b " * 30_000, "cat <<E\n" + "x\n" * 60_000, "$'" + "\\a" * 60_000, "'" + "a" * 130_000,
    "a`" * 40_000, "\x00", "\ud800", "x" * 200_000, "f(){ a;};" * 10_000, "a;" * 60_000, "((a" * 20_000, "<(" * 30_000,
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=[f"{text[:8]!r}*{len(text)}" for text in NASTY])
def test_time_and_limits(text: str) -> None:
    """Nothing hangs or raises: a text of the greatest length takes under a second and a half on a busy machine."""
    started = time.process_time()
    reading = _read(text)[0]
    assert time.process_time() - started < 1.5
    assert isinstance(reading, ShellReading)


def test_time_grows_linearly() -> None:
    """Eight times the text takes about eight times as long."""
    line = "if grep -q \"$x\" 'a b' 2>/dev/null; then ls -l | cat > out; fi\n"

    def spent(count: int) -> float:
        text = line * count
        best = 1e9
        for _ in range(3):
            started = time.process_time()
            _read(text)
            best = min(best, time.process_time() - started)
        return best

    assert spent(800) < 16 * spent(100)


def test_deep_stack() -> None:
    """A caller that is deep in its own stack gets an answer too."""

    def dive(depth: int) -> ShellReading:
        return dive(depth - 1) if depth else _read("echo " + "$(" * 30 + "id" + ")" * 30)[0]

    assert dive(sys.getrecursionlimit() - 200).undecided


@given(st.text(alphabet=st.sampled_from(list("ab12 \t\n;&|<>()[]{}$`'\"\\=#!*?~,./-+@%^:éx\r")), max_size=60))
@settings(max_examples=1_500, deadline=None)
def test_any_text_reads(text: str) -> None:
    """Any text reads; its spans lie inside it; blanks around it change nothing."""
    reading = read_command(text, second=None)
    for command in reading.commands:
        assert 0 <= command.span[0] <= command.span[1] <= len(text)
    if not reading.undecided:
        spaced = read_command(f" {text}\t", second=None)
        if not spaced.undecided:
            assert [c.argv for c in spaced.commands] == [c.argv for c in reading.commands]


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_characters="\x00\x01\x7f", exclude_categories=["Cs"]), max_size=8),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=400, deadline=None)
def test_quoted_words_round_trip(words: list[str]) -> None:
    """Words in single quotes come back as they are."""
    text = " ".join("'" + word.replace("'", "'\\''") + "'" for word in ["p", *words])
    assert read_command(text, second=None).commands[0].argv == ("p", *words)


@given(st.lists(st.text(alphabet="abcXYZ019_./:@%+,-", min_size=1, max_size=8), min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
def test_short_way_agrees(words: list[str]) -> None:
    """The short way for plain words says what the grammar says."""
    text = " ".join(words)
    short, long = _read(text)[0], _read(f"{text} # a comment")[0]
    assert [c.words for c in short.commands] == [c.words for c in long.commands]
    assert [c.resolution for c in short.commands] == [c.resolution for c in long.commands]
    assert len(short.undecided) == len(long.undecided)


def test_empty() -> None:
    """Blank and comment-only texts are understood and do nothing."""
    assert all(read_command(text, second=None).is_empty for text in ("", " \t", "\n\n", "# a", " # a\n"))
    assert not any(read_command(text, second=None).is_empty for text in ("[[ -f x ]]", "((1))", "# a\n((1))"))


def test_length_limit() -> None:
    """One byte more than an argument can hold is undecided; the longest text is not."""
    assert read_command("a" * limits.COMMAND_TEXT_MAX_BYTES, second=None).is_understood
    assert reasons("a" * (limits.COMMAND_TEXT_MAX_BYTES + 1))
