"""Commands an SRE would type, run bare and through hub, runner and wall, and compared to the byte.

Each runs in a directory prepared by `prepare`. Where the two may differ, `differs` says in words why, and `expect`
states what ours answers instead; everything else must be the same stdout, stderr and exit status.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["COMMANDS", "Command", "prepare"]


@dataclass(frozen=True)
class Command:
    """One command text. ``differs`` is empty where ours must equal plain ``bash -c`` in every byte."""

    name: str
    text: str
    differs: str = ""
    expect_stdout: bytes | None = None
    expect_exit: int | None = None


def prepare(directory: Path) -> None:
    """Fill ``directory`` with the files that the commands read; the same bytes for both runs."""
    (directory / "numbers").write_text("".join(f"{n}\n" for n in range(1, 101)))
    (directory / "access.log").write_text(
        "".join(f"10.0.0.{n % 7} GET /item/{n} {200 if n % 5 else 500} {n * 13 % 997}ms\n" for n in range(1, 2001))
    )
    (directory / "words.txt").write_text("beta\nalpha\ngamma\nalpha\n")
    (directory / "unicode.txt").write_text("žluťoučký kůň 🐎\n日本語のログ\nמבחן\n", encoding="utf-8")
    (directory / "binary.bin").write_bytes(bytes(range(256)) * 16)
    (directory / "with space").mkdir()
    (directory / "with space" / "it's here.txt").write_text("found\n")
    (directory / "tree/a/b").mkdir(parents=True)
    (directory / "tree/a/one.conf").write_text("x=1\n")
    (directory / "tree/a/b/two.conf").write_text("y=2\n")
    (directory / "no-newline").write_text("last line without end")


COMMANDS: Final[tuple[Command, ...]] = (
    Command("echo", "echo hello"),
    Command("no output", "true"),
    Command("failure", "false"),
    Command("own exit status", "exit 42"),
    Command("both streams", "echo out; echo err >&2; exit 3"),
    Command("pipeline", "sort words.txt | uniq -c | sort -rn"),
    Command(
        "pipeline over a log", "awk '$4 == 500 {print $1}' access.log | sort | uniq -c | sort -k1,1nr -k2 | head -3"
    ),
    Command("slowest requests", "sed 's/ms$//' access.log | sort -k5,5n | tail -n 5 | cut -d' ' -f3,5"),
    Command("grep with context", "grep -n -B1 -A1 '/item/77 ' access.log"),
    Command("grep without a match", "grep nothing-like-it access.log"),
    Command("count lines", "wc -l access.log numbers words.txt"),
    Command("system file", "grep '^ID=' /etc/os-release"),
    Command("list a directory", "ls -1 /usr | sort"),
    Command("kernel and machine", "uname -srm; nproc; getconf PAGE_SIZE"),
    Command("who am I", "id -u; id -g"),
    Command("where am I", "pwd; pwd -P"),
    Command("mounted root", "df -P / | awk 'NR==2 {print $6}'"),
    Command("process header", "ps -eo comm,pid | head -n 1 | tr -s ' '"),
    Command("memory header", "free -m | awk 'NR==1'"),
    Command("memory total", "awk '/MemTotal/ {print $2, $3}' /proc/meminfo"),
    Command("for loop", 'for i in 1 2 3; do echo "n=$i"; done'),
    Command("while read", "n=0; while read -r l; do n=$((n + l)); done < numbers; echo $n"),
    Command("until and arithmetic", "i=0; until (( i >= 3 )); do (( ++i )); done; echo $i"),
    Command("case", 'for f in a.log b.txt; do case $f in *.log) echo log;; *) echo "other $f";; esac; done'),
    Command("function", "double() { local x=$1; echo $((x * 2)); }; double 21"),
    Command("array", 'a=(one "two three" four); echo ${#a[@]} "${a[1]}" "${a[@]: -1}"'),
    Command("here-document", "name=world; cat <<EOF\nhello $name\n$(echo nested)\nEOF"),
    Command("quoted here-document", "cat <<'EOF'\n$HOME stays $(as it is)\nEOF"),
    Command("here-string", 'tr a-z A-Z <<< "shout"'),
    Command("process substitution", "diff <(sort words.txt) <(sort -u words.txt)"),
    Command("quoting", """printf '%s|' "it's" 'a "b"' $'tab\\there' back\\ slash "a  b"; echo"""),
    Command("names with blanks", """cat "with space/it's here.txt"; find . -name '* *' | sort"""),
    Command("find and xargs", "find tree -name '*.conf' -print0 | sort -z | xargs -0 grep -H ="),
    Command("unicode", "cat unicode.txt; wc -m < unicode.txt; echo '☃ снег'"),
    Command("binary output", "cat binary.bin"),
    Command("binary through a pipeline", "gzip -nc binary.bin | gunzip | cmp - binary.bin && echo same"),
    Command("no newline at the end", "cat no-newline; printf '%s' x"),
    Command("reads stdin", "cat; echo after"),
    Command("read at end of file", 'read -r line; echo "status $? line [$line]"'),
    Command("is it a terminal", "test -t 0 || test -t 1 || echo none"),
    Command("write and read back", "echo one > out.txt && echo two >> out.txt && cat out.txt && rm out.txt"),
    Command("directories and links", "mkdir -p d/e && ln -s e d/link && readlink d/link && ls -F d && rm -r d"),
    Command("temporary file", 't=$(mktemp) && echo kept > "$t" && cat "$t" && rm "$t"'),
    Command("tar there and back", "tar cf - tree | tar tf - | sort"),
    Command("tee", "echo both | tee copy.txt | cat; cat copy.txt; rm copy.txt"),
    Command("pipe status", "set -o pipefail; false | true; echo $? ${PIPESTATUS[*]:-}"),
    Command("errexit", "set -e; echo before; false; echo never"),
    Command("trap at exit", "trap 'echo bye' EXIT; exit 5"),
    Command("command not found", "no-such-program-here --flag"),
    Command("not executable", "./words.txt"),
    Command("syntax error", "if true; then echo x"),
    Command("broken pipe", "yes | head -n 3; echo ${PIPESTATUS[0]}"),
    Command("inner time limit", "timeout 0.2 sleep 5; echo $?"),
    Command("ends itself by TERM", "echo going; kill -TERM $$; sleep 5"),
    Command("ends itself by KILL", "kill -KILL $$"),
    Command("background and wait", "(sleep 0.1; echo child) & wait; echo parent"),
    Command("many short programs", "for i in $(seq 40); do /bin/true; done; echo done"),
    Command("python", "python3 -c 'import sys, hashlib; print(hashlib.sha256(b\"x\").hexdigest()); sys.exit(7)'"),
    Command("long line", "head -c 200000 /dev/zero | tr '\\0' x | fold -w 70000 | wc -lc"),
    Command("one megabyte", "seq 1 150000"),
    Command("interleaved streams", "for i in 1 2 3; do echo o$i; echo e$i >&2; done"),
    Command("positional parameters", 'echo "$0 $#"'),
    Command("date of the epoch", "date -u -d @0 +%FT%TZ"),
    Command(
        "a child that outlives its parent",
        "(sleep 60 > /dev/null 2>&1 &); echo parent done",
    ),
    Command(
        "a background child that holds the output",
        "sleep 60 & echo started",
        differs="plain bash returns and leaves the child running, so whoever reads the pipe waits for it; ours ends the"
        " command when its shell ends, kills what is left and says how many it killed",
        expect_stdout=b"started\n",
        expect_exit=0,
    ),
    Command(
        "one hundred megabytes",
        "head -c 104857600 /dev/zero | tr '\\0' y",
        differs="a captured stream is kept up to 10 MiB; the result says how many bytes were dropped",
        expect_stdout=b"y" * (10 * 1024 * 1024),
        expect_exit=0,
    ),
)
