"""Under the shipped allow-list the everyday commands of somebody on call run, and what they are bent to do does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.policy import decide, load_policy
from guardhouse.values import Verdict
from tests.gate.everyday import SETUP
from tests.gate.gates import Gate

POLICY = load_policy((shipped_directory("policies") / "read_only.yaml").read_text(encoding="utf-8"), name="read_only")
SCRIPT = "printf '#!/bin/sh\\ntouch @@\\n' > s; cp s ls; chmod +x s ls"

EVERYDAY = [
    "ls -la logs | wc -l",
    "for f in logs/*; do ls $f; done",
    "grep -c ERROR logs/app.log",
    'for w in INFO ERROR; do echo "$w $(grep -c "$w" logs/app.log)"; done',
    "tail -n 2 logs/app.log | head -n 1",
    "cut -d' ' -f9 logs/access.log | sort | uniq -c | sort -rn | head -5",
    "find . -name '*.log' -type f -print | sort",
    "find logs -size -100k -printf '%f\\n' | sort",
    "stat -c %s data.csv; file -b data.csv",
    "sha256sum data.csv in.txt | cut -c1-20 | uniq",
    "diff -u data.csv in.txt && echo same",
    "jq -r '.items[].metadata.name' pods.json",
    "x=$(jq -r '.items | length' pods.json); [ \"$x\" -eq 2 ] && echo two",
    'dir=etc; cat "$dir"/app.conf | tr a-z A-Z',
    'while read -r line; do echo "> $line"; done < etc/app.conf',
    "case $(uname -s) in Linux) echo penguin;; esac",
    "df -P / | tail -n 1 | wc -l",
    "du -s logs | wc -l",
    "uname -m | tr -d _ | wc -l",
    "date -u -d @0 +%F",
    "basename $PWD/logs; dirname a/b/c",
    "nl -ba data.csv | tac",
    "paste -d: data.csv in.txt | head -2",
    "comm -12 <(sort data.csv) <(sort in.txt)",
    "printf '%s\\n' 3 1 2 | sort -n | tr '\\n' ' '",
    "if grep -q ERROR logs/app.log; then echo bad; else echo good; fi",
    "seq 3 | base64 | base64 -d",
    "od -An -tx1 x; hexdump -C x | head -1",
    "readlink -f logs >/dev/null && echo ok",
    "getent passwd root | cut -d: -f1",
    "id -u >/dev/null; nproc >/dev/null; uptime >/dev/null; free -m >/dev/null; echo host",
    "column() { cat; }; column < data.csv",
    "cat <<E | wc -l\n$(ls logs)\nE",
    "ls /nowhere 2>/dev/null || echo none",
]
BENT = [
    "sort -o @@ data.csv",
    "sort --outp=@@ data.csv",
    "seq 50000 | sort -S 32k --compress-program=$PWD/s >/dev/null",
    "uniq data.csv @@",
    "find . -maxdepth 0 -fprint @@",
    "find . -maxdepth 0 -exec touch @@ ';'",
    "find . -maxdepth 0 -fls @@",
    "f=-fprintf; find . -maxdepth 0 $f @@ x",
    'set -- -o @@; sort "$@" data.csv',
    "o=(-o @@); sort data.csv ${o[@]}",
    "diff -l data.csv in.txt; ./s",
    "date -f ./s; touch @@",
    "touch -r x @@",
    "jq -n 'input' -L . pods.json; touch @@",
    "cat data.csv | tee @@",
    "x=tee; cat data.csv | $x @@",
    "cp x @@",
    "ls() { command touch @@; }; ls",
    "PATH=.:$PATH; ls; ./ls",
    "hash -p ./s ls; ls",
    "BASH_ENV=./s bash -c :",
    "env touch @@",
    "xargs touch <<< @@",
    "awk 'BEGIN{print > \"@@\"}'",
    "sed -n 'w @@' data.csv",
    "/lib64/ld-linux-x86-64.so.2 /usr/bin/touch @@",
    "exec -a ls touch @@",
    "LD_PRELOAD=./s ls; . ./s",
    'python3 -c \'open("@@","w")\'',
    "tail -n 1 data.csv > >(touch @@)",
    "split -l 1 data.csv @@",
    "dd if=x of=@@",
]


@pytest.fixture(scope="module")
def read_only(gate_workspace: Path) -> Iterator[Gate]:
    """A launcher with the gate under policies/read_only.yaml."""
    gate = Gate(gate_workspace, POLICY)
    yield gate
    gate.close()


def prepare(wall: Gate, count: int, marker: str) -> Path:
    """Make the usual files in ``count`` directories of a new one."""
    where = wall.fresh_directory()
    copies = "".join(f"; cp -r 0 {number}" for number in range(1, count))
    made = wall.run(f"mkdir 0; (cd 0; {SETUP}; {SCRIPT.replace('@@', marker)}){copies}", where=where, timeout_s=60)
    assert (where / str(count - 1) / "s").exists(), made.output
    return where


def test_what_somebody_on_call_types_runs(read_only: Gate, bare_wall: Gate) -> None:
    """No text is denied by gate one, and all run to the output that they have without a policy."""
    assert [text for text in EVERYDAY if decide(POLICY, text).verdict is Verdict.DENY] == []
    where = prepare(bare_wall, 1, "FINE")
    whole = "cd 0\n" + "\n".join(f"(\n{text}\n)\necho '--' $?" for text in EVERYDAY)
    got, wanted = read_only.run(whole, where=where, timeout_s=60), bare_wall.run(whole, where=where, timeout_s=60)
    assert got.output.split("--") == wanted.output.split("--")
    assert wanted.output.count("--") >= len(EVERYDAY)


def test_what_it_is_bent_to_does_not(read_only: Gate, bare_wall: Gate, open_gate: Gate) -> None:
    """None of them makes its file under the policy; without one every one of them does."""
    for gate, marker in ((read_only, "PWNED"), (open_gate, "FINE")):
        where = prepare(bare_wall, len(BENT), marker)
        whole = "\n".join(f"(cd {n}\n{text.replace('@@', marker)}\n) </dev/null" for n, text in enumerate(BENT))
        done = gate.run(whole, where=where, timeout_s=60)
        made = [text for n, text in enumerate(BENT) if list((where / str(n)).glob(f"{marker}*"))]
        assert sorted(set(() if gate is read_only else BENT) ^ set(made)) == [], done.output
