"""Programs of every kind behave under the gate as beside it: threads, set-uid, core dumps, tracers, other tables."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.gate.gates import Gate, without_numbers

JAVA = """
import java.util.*;
public class Storm {
    public static void main(String[] words) throws Exception {
        List<Thread> threads = new ArrayList<>();
        int[] sum = new int[1];
        for (int i = 0; i < 8; i++) {
            Thread thread = new Thread(() -> {
                try {
                    Process child = new ProcessBuilder("sh", "-c", "exit 3").start();
                    synchronized (sum) { sum[0] += child.waitFor(); }
                } catch (Exception error) { error.printStackTrace(); }
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) thread.join();
        System.out.println(sum[0]);
    }
}
"""

GO = """
package main

import (
	"fmt"
	"os/exec"
	"sync"
)

func main() {
	var group sync.WaitGroup
	var lock sync.Mutex
	ended := 0
	for i := 0; i < 32; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			if exec.Command("true").Run() == nil {
				lock.Lock()
				ended++
				lock.Unlock()
			}
		}()
	}
	group.Wait()
	fmt.Println(ended)
}
"""

NODE = """
const { Worker, isMainThread, parentPort } = require("worker_threads");
const { spawnSync } = require("child_process");
if (isMainThread) {
  let ended = 0, sum = 0;
  for (let i = 0; i < 4; i++)
    new Worker(__filename).on("message", (n) => { sum += n; if (++ended === 4) console.log(sum); });
} else {
  parentPort.postMessage(spawnSync("sh", ["-c", "exit 5"]).status);
}
"""


def same(text: str, gated: Gate, bare: Gate, **more: object) -> str:
    """Run ``text`` behind and beside the gate; return the output, which with the end is the same."""
    wanted, got = bare.run(text, **more), gated.run(text, **more)
    ends = [(without_numbers(done.output), done.outcome.exit_code, done.outcome.signal) for done in (wanted, got)]
    assert ends[1] == ends[0]
    return got.output


def test_java(deny_gate: Gate, bare_wall: Gate) -> None:
    """A virtual machine with its own threads, each of which starts a program through its helper."""
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("javac is not installed here (Debian: default-jdk-headless)")
    made = deny_gate.fresh_directory()
    (made / "Storm.java").write_text(JAVA)
    subprocess.run([compiler, "-J-Xshare:auto", "Storm.java"], cwd=made, check=True)
    text = f"java -XX:+UseSerialGC -Xmx64m -cp {made} Storm"
    assert same(text, deny_gate, bare_wall, timeout_s=100) == "24\n"


def test_go(deny_gate: Gate, bare_wall: Gate, tmp_path: Path) -> None:
    """Goroutines on many threads fork and exec at once. Long form: a program of our own; short: the tool itself."""
    # Where its own packages install it, and where distributions do.
    tool = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin:/usr/lib/go/bin")
    if tool is None:
        pytest.skip("go is not installed here (Debian: golang-go)")
    if not os.environ.get("GUARDHOUSE_LONG_TESTS"):
        # Itself a Go program, with a runtime of many threads.
        assert same(f"{tool} version", deny_gate, bare_wall).startswith("go version")
        return
    made = deny_gate.fresh_directory()
    (tmp_path / "storm.go").write_text(GO)
    environment = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    subprocess.run([tool, "build", "-o", made / "storm", "storm.go"], cwd=tmp_path, env=environment, check=True)
    assert same(f"{made}/storm", deny_gate, bare_wall, timeout_s=100) == "32\n"


def test_node(deny_gate: Gate, bare_wall: Gate) -> None:
    """Workers of node, each of which starts a program and waits for it."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed here (Debian: nodejs)")
    made = deny_gate.fresh_directory()
    (made / "storm.js").write_text(NODE)
    assert same(f"node {made}/storm.js", deny_gate, bare_wall, timeout_s=100) == "20\n"


def test_setuid_programs_gain_nothing_and_run(deny_gate: Gate, bare_wall: Gate) -> None:
    """A set-uid file runs as the caller (no_new_privs), with the gate as without; it is judged like any other."""
    found = [path for path in map(Path, ("/bin/su", "/usr/bin/passwd", "/usr/bin/newgrp")) if path.exists()]
    found = [path for path in found if path.stat().st_mode & 0o4000]
    if not found:
        pytest.skip("none of su, passwd and newgrp is set-uid here")
    output = same(f"{found[0]} --help; echo $?; {found[0]} --help >/dev/null 2>&1; id -u", deny_gate, bare_wall)
    assert output.splitlines()[-1] != "0"


@pytest.mark.parametrize("number", ["SEGV", "ABRT", "QUIT"])
def test_core_dumps(number: str, deny_gate: Gate, bare_wall: Gate) -> None:
    """A program that dies with a core dump dies so under the gate, and its parent sees it."""
    text = (
        f"ulimit -c unlimited 2>/dev/null; sh -c 'kill -{number} $$' 2>/dev/null; echo $?;"
        " python3 -c 'import os, signal; p = os.fork(); p or os.abort(); print(os.waitpid(p, 0)[1] & 127)'"
    )
    same(text, deny_gate, bare_wall)


@pytest.mark.parametrize(
    "text",
    [
        "strace -f -o /dev/null sh -c 'true; touch PWNED' >/dev/null 2>&1; ls",
        "gdb -batch -ex run --args /usr/bin/touch PWNED >/dev/null 2>&1; ls",
        "strace -f -o /dev/null touch FINE >/dev/null 2>&1; touch FINE; ls",
    ],
)
def test_a_tracer_inside_does_not_open_the_gate(text: str, deny_gate: Gate) -> None:
    """Strace and gdb cannot trace in there; what they start is judged, and what is allowed beside them runs."""
    done = deny_gate.run(text)
    assert "PWNED" not in done.output
    assert ("FINE" in done.output) == ("FINE" in text)


def _elf32() -> bytes:
    """Return a program of 32 bits that ends with status 42 by the 32-bit table: mov eax, 1; mov ebx, 42; int 0x80."""
    code = b"\xb8\x01\x00\x00\x00\xbb\x2a\x00\x00\x00\xcd\x80"
    base, headers = 0x08048000, 52 + 32
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    # elf(5): ET_EXEC, EM_386, entry behind the headers; one PT_LOAD of the whole file, readable and executable.
    header = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = headers + len(code)
    load = struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000)
    return ident + header + load + code


def test_a_32_bit_program_is_refused_and_the_rest_goes_on(deny_gate: Gate) -> None:
    """Its system calls are of a table that no profile lists: the shell says so, and goes on."""
    where = deny_gate.fresh_directory()
    program = where / "small"
    program.write_bytes(_elf32())
    program.chmod(0o755)
    done = deny_gate.run("./small; echo $?; echo on", where=where)
    lines = done.output.splitlines()
    assert lines[-1] == "on"
    assert "42" not in lines
    assert done.outcome.exit_code == 0
    (refused,) = done.refused
    assert str(refused["path"]).endswith("/small")
    assert "32 bits" in str(refused["because"])
    assert refused["killed"] is False
    assert "Permission denied" in done.output
    assert "126" in lines


def test_busybox_and_static_programs(deny_gate: Gate, bare_wall: Gate) -> None:
    """A static multi-call shell runs what it is allowed, and its applet is judged as what it is."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed here (Debian: busybox-static)")
    assert same(f"{busybox} sh -c 'busybox echo a; {busybox} true; echo $?'", deny_gate, bare_wall) == "a\n0\n"
    assert "PWNED" not in deny_gate.run(f"{busybox} touch PWNED; ls").output
