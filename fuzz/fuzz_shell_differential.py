"""Random shell text run under real bash (and dash), what ran compared with what gate one's reader named.

Runs by hand or in CI: ``python fuzz/fuzz_shell_differential.py --count 20000 --seed 1 [--shell dash]``. Needs a C
compiler and unprivileged user namespaces. The text runs as ``nobody`` in namespaces of its own (user, mount, pid,
network), with every file system read-only but empty ones in memory, and with nothing on ``PATH`` but stubs that write
down their arguments. A finding is one of: a stub ran that the reader neither named nor left undecided; it ran with
arguments that no named command has; a file appeared that no named redirection writes; the reader raised or took long.
"""

# ruff: noqa: E501 - tables of shell fragments are read as rows

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from guardhouse.policy.shell import ShellReading, Word, read_command

STUBS = 24
# What the snippets of tests/policy/shell/snippets.jsonl call.
RECORDED_NAMES = ["pwn", "ls", "id", "cat", "grep", "kubectl", "awk"]
# Real wrappers, which start nothing but stubs there.
RECORDED_TOOLS = [
    "env",
    "nice",
    "timeout",
    "xargs",
    "find",
    "nohup",
    "setsid",
    "stdbuf",
    "flock",
    "ionice",
    "taskset",
    "chrt",
    "bash",
    "sh",
    "dash",
    "time",
    "setarch",
    "linux64",
    "watch",
    "script",
]
SLOW_S = 0.25

STUB_SOURCE = r"""
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  static char line[1 << 16];
  size_t used = 0;
  for (int i = 0; i < argc; i++) {
    size_t size = strlen(argv[i]) + 1;
    if (used + size + 3 > sizeof line) break;
    memcpy(line + used, argv[i], size);
    used += size;
  }
  memcpy(line + used, "\xfe\xff\xfe", 3);
  used += 3;
  /* Before the log is opened: where the text has closed standard output, the log would become it. */
  (void)!write(1, "3\n", 2);
  int log = open("/tmp/log", O_WRONLY | O_APPEND | O_CREAT, 0666);
  if (log >= 0) (void)!write(log, line, used);
  return strchr(argv[0], '9') != 0;
}
"""

# Runs inside the namespaces: one text a line of JSON in, what ran a line of JSON out.
RUNNER = r"""
import json, os, signal, subprocess, sys, shutil
stub, shell, names, tools = sys.argv[1:5]
os.makedirs("/tmp/bin")
for tool in tools.split(",") if tools else ():
    for place in ("/usr/bin/", "/bin/"):
        if os.path.exists(place + tool):
            os.symlink(place + tool, "/tmp/bin/" + tool)
            break
for name in names.split(","):
    shutil.copy(stub, "/tmp/bin/" + name)
    os.chmod("/tmp/bin/" + name, 0o755)
environment = {"PATH": "/tmp/bin", "HOME": "/tmp/home", "LC_ALL": "C.UTF-8"}
for line in sys.stdin:
    text = json.loads(line)
    shutil.rmtree("/tmp/work", ignore_errors=True)
    os.mkdir("/tmp/work")
    open("/tmp/log", "wb").close()
    timed_out = False
    child = subprocess.Popen([shell, "-c", text], cwd="/tmp/work", env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        child.wait(timeout=2)
    except subprocess.TimeoutExpired:
        timed_out = True
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
    with open("/tmp/log", "rb") as log:
        entries = log.read().split(b"\xfe\xff\xfe")[:-1]
    ran = [entry.decode("utf-8", "surrogateescape").split("\0")[:-1] for entry in entries]
    files = []
    for folder, _, names in os.walk("/tmp/work"):
        files += [os.path.relpath(os.path.join(folder, name), "/tmp/work") for name in names]
    print(json.dumps({"ran": ran, "files": files[:50], "status": child.returncode, "timed_out": timed_out}), flush=True)
"""


class Generator:
    """Random shell text, biased towards what readers get wrong."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.next_stub = 0
        self.depth = 0

    def text(self) -> str:
        self.next_stub = self.random.randrange(STUBS)
        self.depth = 0
        text = self.list(self.random.choice([1, 1, 2, 2, 3]))
        if self.random.random() < 0.25:
            text = self.mutate(text)
        return text

    def mutate(self, text: str) -> str:
        for _ in range(self.random.choice([1, 1, 2, 3])):
            at = self.random.randrange(len(text) + 1)
            kind = self.random.randrange(4)
            if kind == 0:
                text = (
                    text[:at]
                    + self.random.choice([*list("'\"\\$`(){}[]<>|&;\n #!~*?=:,-+@%/^\t\r1xé"), "\\\n"])
                    + text[at:]
                )
            elif kind == 1:
                text = text[:at] + text[at + 1 :]
            elif kind == 2:
                end = min(len(text), at + self.random.randrange(1, 9))
                text = text[:end] + text[at:end] + text[end:]
            else:
                other = self.random.randrange(len(text) + 1)
                text = text[: min(at, other)] + self.atom() + text[min(at, other) :]
        return text

    def atom(self) -> str:
        return self.random.choice(
            [
                "$(",
                "${",
                "$((",
                "((",
                "<(",
                "<<E\n",
                "\nE\n",
                "[[ ",
                " ]]",
                "case x in x)",
                " esac",
                ";;",
                "'",
                "$'",
                '$"',
                "`",
                " do ",
                " done",
                "{ ",
                " }",
                "&>",
                ">&",
                "|&",
                "# ",
                "\\\n",
                "\\",
                "function f ",
                "f() ",
                "; ",
                "if ",
                " then ",
                " fi",
            ]
        )

    def stub(self) -> str:
        self.next_stub = (self.next_stub + 1) % STUBS
        name = f"s{self.next_stub:02d}"
        roll = self.random.random()
        if roll < 0.8:
            return name
        return self.random.choice(
            [
                f"'{name}'",
                f'"{name}"',
                f"s\\{name[1:]}",
                f"s''{name[1:]}",
                f's"{name[1:]}"',
                f"$'{name}'",
                f"s\\\n{name[1:]}",
                f"$'\\x73{name[1:]}'",
                f'$"{name}"',
                f"{name}$(:)",
                f"${{u:-{name}}}",
            ]
        )

    def command(self) -> str:
        self.depth += 1
        try:
            if self.depth > 6:
                return self.stub()
            return self.random.choices(
                [
                    self.simple,
                    self.pipeline,
                    self.group,
                    self.subshell,
                    self.conditional,
                    self.loop,
                    self.case,
                    self.test,
                    self.arithmetic,
                    self.function,
                    self.builtin,
                    self.assignment,
                    self.coproc,
                ],
                weights=[40, 6, 4, 4, 4, 5, 4, 4, 3, 3, 8, 5, 1],
            )[0]()
        finally:
            self.depth -= 1

    def list(self, count: int) -> str:
        parts = [self.command()]
        for _ in range(count - 1):
            parts.append(
                self.random.choice(
                    ["; ", "\n", " && ", " || ", " & ", ";", "&", " ;\n", " &&\n", " # c'\n", " ; # $(\n", " \\\n; "]
                )
            )
            parts.append(self.command())
        return "".join(parts)

    def simple(self) -> str:
        parts: list[str] = []
        bodies = ""
        if self.random.random() < 0.12:
            parts.append(self.assignment())
        if self.random.random() < 0.05:
            parts.append(self.redirection()[0])
        parts.append(self.stub())
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])):
            if self.random.random() < 0.2:
                redirection, body = self.redirection()
                parts.append(redirection)
                bodies += body
            else:
                parts.append(self.word())
        text = self.random.choice([" ", " ", " ", "\t", " \\\n"]).join(parts)
        return text + bodies

    def pipeline(self) -> str:
        bar = self.random.choice([" | ", "|", " |& ", " |\n"])
        return self.random.choice(["", "", "! ", "time ", "time -p "]) + self.command() + bar + self.command()

    def group(self) -> str:
        return "{ " + self.list(self.random.choice([1, 2])) + self.random.choice(["; }", "\n}", " ;}"]) + self.tail()

    def subshell(self) -> str:
        return (
            self.random.choice(["(", "( "])
            + self.list(self.random.choice([1, 2]))
            + self.random.choice([")", " )", "\n)"])
            + self.tail()
        )

    def tail(self) -> str:
        return self.random.choice(["", "", "", " > f1", " 2>&1", " < /dev/null"])

    def conditional(self) -> str:
        other = self.random.choice(
            ["", "; else " + self.command(), "; elif " + self.command() + "; then " + self.command()]
        )
        return f"if {self.command()}; then {self.command()}{other}; fi"

    def loop(self) -> str:
        return self.random.choice(
            [
                lambda: f"for i in {self.word()} {self.word()}; do {self.list(1)}; done",
                lambda: f"for i in 1 2\ndo {self.list(1)}\ndone",
                lambda: f"while ! {self.command()}; do {self.command()}; break; done",
                lambda: f"until {self.command()}; do break; done",
                lambda: f"for ((i=0;i<1;i++)); do {self.command()}; done",
                lambda: f"for i in a; {{ {self.command()}; }}",
                lambda: f"select i in a; do {self.command()}; break; done <<< 1",
            ]
        )()

    def case(self) -> str:
        end = self.random.choice([";;", ";&", ";;&"])
        return (
            f"case {self.word()} in {self.random.choice(['', '('])}{self.random.choice(['*', 'a|*', self.word(), '[a-z]*'])})"
            f"{self.random.choice(['', ' '])}{self.command()} {end} {self.random.choice(['b) ' + self.command() + ';; ', '', 'b) ;; '])}esac"
        )

    def test(self) -> str:
        return self.random.choice(
            [
                lambda: f"[[ {self.word()} == {self.word()} ]]",
                lambda: f"[[ -n {self.word()} && {self.word()} ]]",
                lambda: f"[[ ! ( {self.word()} < {self.word()} || -f {self.word()} ) ]]",
                lambda: f"[[ {self.word()} =~ (a|{self.simple_word()})+$ ]]",
                lambda: f"[[ {self.arithmetic_text()} -eq 1 ]]",
                lambda: f"[ {self.word()} = {self.word()} ]",
                lambda: f"test -n {self.word()}",
                lambda: f"[ -v {self.subscripted()} ]",
            ]
        )()

    def arithmetic(self) -> str:
        return f"(( {self.arithmetic_text()} ))"

    def arithmetic_text(self) -> str:
        return self.random.choice(
            [
                "1+1",
                "x",
                "x++",
                "x=3",
                "a[0]",
                "$x",
                "${x}",
                "${#x}",
                "(1+2)*3",
                "1 ? 2 : 3",
                f"a[$({self.command()})]",
                f"$({self.command()})",
                f"`{self.stub()}`",
                "x[1]++",
                "y",
                "16#ff",
                "$((1+x))",
                "1 << 2",
                "x,y",
                "z",
            ]
        )

    def subscripted(self) -> str:
        return self.random.choice([f"'a[$({self.stub()})]'", "a", "'a[0]'", f'"a[$({self.stub()})]"'])

    def function(self) -> str:
        name = self.random.choice(["f", "g", self.stub()])
        head = self.random.choice(
            [f"{name}() ", f"{name} ( ) ", f"function {name} ", f"function {name}() ", f"{name}()\n"]
        )
        body = self.random.choice([self.group, self.subshell])()
        return head + body + self.random.choice(["; ", "\n", " && ", " & "]) + f"{name} {self.word()}"

    def builtin(self) -> str:
        value = self.subscripted()
        return self.random.choice(
            [
                lambda: f"eval {self.quoted(self.command())}",
                lambda: f"eval {self.command()}",
                lambda: f"trap {self.quoted(self.command())} EXIT",
                lambda: f"trap {self.quoted(self.command())} DEBUG; :",
                lambda: f"printf -v {value} 1",
                lambda: f"read {value} <<< 1",
                lambda: f"read x <<< {self.word()}",
                lambda: f"declare {self.random.choice(['', '-a ', '-i ', '-A ', '-n ', '-x '])}x={self.word()}",
                lambda: f"declare -a x=({self.word()} {self.word()})",
                lambda: f"declare -a x='($({self.stub()}))'",
                lambda: f"export x={self.word()}",
                lambda: f"local x={self.word()}",
                lambda: f"let {self.quoted(self.arithmetic_text())}",
                lambda: f"unset {value}",
                lambda: f"command {self.stub()} {self.word()}",
                lambda: f"command -v {self.stub()}",
                lambda: f"builtin eval {self.stub()}",
                lambda: f"exec {self.stub()} {self.word()}",
                lambda: "set -- a b",
                lambda: f"x='a[$({self.stub()})]'; echo $((x))",
                lambda: f"x='$({self.stub()})'; echo ${{x@P}}",
                lambda: f"shopt -s extglob\n{self.command()}",
                lambda: f"shopt -s expand_aliases\nalias e={self.stub()}\ne",
                lambda: f"mapfile -C {self.stub()} -c 1 y <<< a",
                lambda: f"PS4='$({self.stub()})'; set -x; :",
                lambda: f"wait -p {value}",
                lambda: f"echo {self.word()}",
                lambda: f": {self.word()}",
                lambda: f"cd {self.word()}",
                lambda: "x=1; unset x",
                lambda: f"jobs -x {self.stub()}",
                lambda: f"compgen -C {self.stub()} x",
                lambda: f"compgen -W {self.quoted('$(' + self.stub() + ')')}",
                lambda: f"set -k; {self.simple()}",
                lambda: f"getopts {self.word()} {value}",
            ]
        )()

    def quoted(self, text: str) -> str:
        return self.random.choice(
            ["'" + text.replace("'", "'\\''") + "'", '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"']
        )

    def assignment(self) -> str:
        return self.random.choice(
            [
                lambda: f"x={self.word()}",
                lambda: f"x+={self.word()}",
                lambda: f"a=({self.word()} {self.word()})",
                lambda: f"a[{self.arithmetic_text()}]={self.word()}",
                lambda: "x=",
                lambda: f"y=x x={self.word()}",
                lambda: "x=1",
                lambda: f"a=([0]={self.word()} [1]=b)",
                lambda: f"PATH={self.word()}",
                lambda: f"IFS={self.word()}",
            ]
        )()

    def coproc(self) -> str:
        return (
            self.random.choice([f"coproc {self.simple()}", f"coproc N {self.group()}", f"coproc {self.subshell()}"])
            + "; wait"
        )

    def redirection(self) -> tuple[str, str]:
        return self.random.choice(
            [
                lambda: (f"> {self.target()}", ""),
                lambda: (f">> {self.target()}", ""),
                lambda: ("< /dev/null", ""),
                lambda: ("2>&1", ""),
                lambda: (f"&> {self.target()}", ""),
                lambda: (f">& {self.target()}", ""),
                lambda: (f"<<< {self.word()}", ""),
                lambda: (f"<> {self.target()}", ""),
                lambda: (f">| {self.target()}", ""),
                lambda: (f"&>> {self.target()}", ""),
                lambda: (f"{{fd}}> {self.target()}", ""),
                lambda: (f"3>{self.target()}", ""),
                lambda: ("2>&-", ""),
                lambda: (f"{self.random.choice(['1', '01', '0000000001', '2', '{fd}'])}>&{self.target()}", ""),
                lambda: (f"> >({self.command()})", ""),
                lambda: (f"< <({self.command()})", ""),
                self.heredoc,
                self.heredoc,
            ]
        )()

    def target(self) -> str:
        return self.random.choice(["f1", "'f2'", "f$x", '"f3"', f"f$({self.stub()})", "./f4", "f\\5", "~/f"])

    def heredoc(self) -> tuple[str, str]:
        operator = self.random.choice(["<<", "<<", "<<-"])
        delimiter, plain = self.random.choice(
            [("E", "E"), ("'E'", "E"), ('"E"', "E"), ("\\E", "E"), ("E\\F", "EF"), ("E''", "E"), ("-E", "-E")]
        )
        lines = [
            self.random.choice(
                [
                    "a",
                    f"$({self.command()})",
                    f"`{self.stub()}`",
                    f"${{x:-$({self.stub()})}}",
                    f"\\$({self.stub()})",
                    "'",
                    '"',
                    "EE",
                    " E",
                    f"\\\\$({self.stub()})",
                    f"$(({self.arithmetic_text()}))",
                    "#",
                    "a\\",
                    f"\tx{self.word()}",
                    "E)",
                ]
            )
            for _ in range(self.random.randrange(3))
        ]
        tab = "\t" if operator == "<<-" and self.random.random() < 0.5 else ""
        return operator + self.random.choice(["", " "]) + delimiter, "\n" + "".join(
            f"{tab}{line}\n" for line in lines
        ) + tab + plain + self.random.choice(["\n", "\n", ""])

    def simple_word(self) -> str:
        return self.random.choice(["a", "b1", "x.y", "-n", "a=b", "é", "1"])

    def word(self) -> str:
        self.depth += 1
        try:
            if self.depth > 7:
                return self.simple_word()
            return "".join(self.piece() for _ in range(self.random.choice([1, 1, 1, 2, 3])))
        finally:
            self.depth -= 1

    def piece(self) -> str:
        return self.random.choices(
            [
                self.simple_word,
                lambda: self.random.choice(["'q q'", "'$(x)'", "''", "'\\'", "'a;b'", "'#'", "'\n'"]),
                lambda: '"' + "".join(self.quoted_piece() for _ in range(self.random.choice([0, 1, 1, 2]))) + '"',
                lambda: self.random.choice(["\\a", "\\ ", "\\$", "\\'", '\\"', "\\\\", "\\`", "\\;", "\\#", "\\\n"]),
                lambda: self.random.choice(
                    [
                        "$'a'",
                        "$'\\''",
                        "$'\\n'",
                        "$'\\x41\\101\\u0041'",
                        "$'\\\\'",
                        "$'a\\qb'",
                        "$'\"'",
                        "$'\\e\\cA'",
                        "$'\\0z'y",
                    ]
                ),
                self.expansion,
                lambda: self.random.choice(
                    [
                        "*",
                        "?",
                        "[ab]",
                        "{a,b}",
                        "{1..3}",
                        "~",
                        "~/x",
                        "{}",
                        "{a}",
                        "a,b",
                        "@{1}",
                        "[",
                        "]",
                        "!",
                        "^",
                        "%",
                        "+",
                        ",",
                        ":~",
                        "=~",
                        "{",
                        "}",
                    ]
                ),
                lambda: self.random.choice(["#", "a#b", "%"]),
            ],
            weights=[30, 8, 14, 8, 8, 18, 8, 1],
        )[0]()

    def quoted_piece(self) -> str:
        return self.random.choices(
            [
                lambda: self.random.choice(
                    [
                        "a",
                        " ",
                        "'",
                        '\\"',
                        "\\\\",
                        "\\$",
                        "\\`",
                        "\\a",
                        "\\\n",
                        "#",
                        ";",
                        "*",
                        "~",
                        "!",
                        "é",
                        "\n",
                        "$",
                        "{",
                        "}",
                    ]
                ),
                self.expansion,
            ],
            weights=[5, 3],
        )[0]()

    def expansion(self) -> str:
        return self.random.choices(
            [
                lambda: self.random.choice(
                    [
                        "$x",
                        "${x}",
                        "$1",
                        "$@",
                        "$#",
                        "$?",
                        "$$",
                        "$",
                        "$%",
                        "$*",
                        "${#x}",
                        "${x[@]}",
                        "${!x}",
                        "$-",
                        "$_",
                        "${#}",
                        "${?}",
                    ]
                ),
                lambda: (
                    f"$({self.random.choice(['', ' ', chr(10)])}{self.list(self.random.choice([1, 1, 2]))}{self.random.choice(['', ' ', chr(10)])})"
                ),
                lambda: f"`{self.stub()} {self.simple_word()}`",
                lambda: f"`{self.stub()} \\`{self.stub()}\\``",
                lambda: f"$(({self.arithmetic_text()}))",
                lambda: f"$[{self.arithmetic_text()}]",
                lambda: (
                    f"${{x{self.random.choice([':-', '-', ':=', '=', ':+', '+', '#', '##', '%', '%%', '/', '//', '/#', '^', ',,', '^^'])}{self.word()}}}"
                ),
                lambda: f"${{x/{self.word()}/{self.word()}}}",
                lambda: f"${{x:{self.arithmetic_text()}:{self.arithmetic_text()}}}",
                lambda: f"${{x[{self.arithmetic_text()}]}}",
                lambda: f"${{x@{self.random.choice('QUaAEP')}}}",
                lambda: f"$(<{self.random.choice(['f1', '/dev/null'])})",
                lambda: f"<({self.command()})",
                lambda: f"$( {self.simple()} # )\n)",
                lambda: f"$({self.case()})",
            ],
            weights=[14, 14, 3, 2, 4, 2, 10, 3, 2, 2, 1, 1, 3, 1, 2],
        )[0]()


def fits(words: tuple[Word, ...], argv: list[str]) -> bool:
    """Whether a named command can have run with ``argv``."""
    expression = []
    for word in words:
        unknown = ".*" if word.may_split else "[^\0]*"
        one = "".join(unknown if piece is None else re.escape(piece) for piece in word.pattern)
        expression.append(f"(?:{one}\0)?" if word.may_split else f"{one}\0")
    return re.fullmatch("".join(expression), "".join(f"{value}\0" for value in argv), re.DOTALL) is not None


def judge(reading: ShellReading, outcome: dict, *, names_only: bool = False) -> str | None:
    """What is wrong with a reading, given what really happened; None when nothing is."""
    if not reading.is_understood:
        return None
    for argv in outcome["ran"]:
        named = [command for command in reading.commands if command.words[0].value == argv[0]]
        if not named:
            return f"ran {argv} and it is not named"
        if not names_only and not any(fits(command.words, argv) for command in named):
            return f"ran {argv} but the words named are {[word.pattern for word in named[0].words]}"
    targets = [
        one.target
        for one in reading.all_redirections()
        if one.kind in ("write", "append", "read_write") and one.target is not None
    ]
    for name in outcome["files"]:
        if not any(fits((target,), [form]) for target in targets for form in (name, f"./{name}")):
            return f"made the file {name!r}, which no redirection named writes"
    return None


class Confined:
    """A shell inside namespaces that runs one text at a time."""

    def __init__(self, shell: str, names: list[str], tools: list[str]) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("a C compiler is needed for the stubs")
        self.folder = Path(tempfile.mkdtemp(prefix="shell-stubs-"))
        self.folder.chmod(0o755)
        source = self.folder / "stub.c"
        source.write_text(STUB_SOURCE)
        subprocess.run([compiler, "-O1", "-static", "-o", str(self.folder / "stub"), str(source)], check=True)
        script = self.folder / "runner.py"
        script.write_text(RUNNER)
        inside = (
            # The stub is read before /tmp is covered.
            'exec 8<"$1" 7<"$2" && mount -o remount,ro,bind / && mount -t tmpfs none /tmp && mount -t tmpfs none /var/tmp'
            " && mount -t tmpfs none /dev/shm && mkdir /tmp/home && cat <&8 >/tmp/stub"
            ' && exec /usr/bin/python3 -I /proc/self/fd/7 /tmp/stub "$3" "$4" "$5"'
        )
        arguments = [str(self.folder / "stub"), str(script), shell, ",".join(names), ",".join(tools)]
        command = ["unshare", "-r", "-m", "-p", "-n", "-f", "--kill-child", "sh", "-c", inside, "inside", *arguments]
        if Path("/proc/self").stat().st_uid == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def run(self, text: str) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the confined shell died on {text!r}")
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def record(path: Path) -> int:
    """Write into a JSON lines file of snippets what real bash ran of each, in the order in which it started."""
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    confined = Confined("/bin/bash", RECORDED_NAMES, RECORDED_TOOLS)
    try:
        for row in rows:
            outcome = confined.run(row["snippet"])
            row["bash_runs"] = outcome["ran"]
            row["files"] = sorted(outcome["files"])
    finally:
        confined.close()
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"recorded {len(rows)} snippets, {sum(1 for row in rows if row['bash_runs'])} of which started something")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shell", choices=["bash", "dash"], default="bash")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--record", type=Path, help="fill in `bash_runs` of a file of snippets, and stop")
    options = parser.parse_args()
    generator = Generator(random.Random(options.seed))
    if options.record is not None:
        return record(options.record)
    confined = Confined(f"/bin/{options.shell}", [f"s{number:02d}" for number in range(STUBS)], [])
    tally: Counter[str] = Counter()
    try:
        for number in range(options.count):
            text = generator.text()
            if "\0" in text:
                continue
            started = time.process_time()
            if options.shell == "bash":
                reading = read_command(text, second=None)
            else:
                quoted = "'" + text.replace("'", "'\\''") + "'"
                reading = read_command(f"sh -c {quoted}", second=None)
            spent = time.process_time() - started
            outcome = confined.run(text)
            tally["run"] += 1
            tally["understood"] += reading.is_understood
            tally["programs started"] += len(outcome["ran"])
            tally["started under an understood text"] += len(outcome["ran"]) if reading.is_understood else 0
            wrong = judge(reading, outcome)
            if spent > SLOW_S:
                wrong = f"took {spent:.2f} s to read"
            if wrong is not None:
                tally["FOUND"] += 1
                print(f"seed {options.seed} number {number}: {wrong}\n  {text!r}", flush=True)
                if tally["FOUND"] >= (50 if options.keep_going else 1):
                    break
    finally:
        confined.close()
    print(dict(tally))
    return 1 if tally["FOUND"] else 0


if __name__ == "__main__":
    sys.exit(main())
