"""The execution tree in words: order, depth, ends and what is left out."""

from guardhouse.cli.exec_tree import refusal_lines, tree_lines


def ran(index: int, parent: int | None, path: str, **more: object) -> dict[str, object]:
    end = {"exit_status": 0, "signal": None, "started_s": 0.5, "ended_s": 1.0, "cpu_s": 0.002}
    end |= {"pid": 100 + index, "peak_memory_bytes": 3 * 2**19}
    return {"index": index, "parent": parent, "path": path, "argv": [path.rpartition("/")[2], "a b"], **end, **more}


REFUSED = {"parent": 1, "path": "/usr/bin/rm", "argv": ["rm", "x"], "because": "'rm x' matches '*'"}
EXECS = {
    "ran": [
        ran(0, None, "/usr/bin/bash"),
        ran(1, 0, "/usr/bin/env", exit_status=None),
        ran(2, 0, "/usr/bin/ls", exit_status=None, signal=13),
    ],
    "refused": [REFUSED],
    "left_out": 2,
}


def test_each_program_stands_below_the_one_that_started_it() -> None:
    """Depth follows parents, siblings keep their order, refused ones are marked, the rest is counted."""
    assert tree_lines(EXECS) == [
        "/usr/bin/bash: bash 'a b'  [pid 100, 0.500-1.000 s, exit 0, 2 ms CPU, 1.5 MiB]",
        "  /usr/bin/env: env 'a b'  [pid 101, 0.500-1.000 s, became the next, 2 ms CPU, 1.5 MiB]",
        "    REFUSED /usr/bin/rm: rm x  ('rm x' matches '*')",
        "  /usr/bin/ls: ls 'a b'  [pid 102, 0.500-1.000 s, signal 13, 2 ms CPU, 1.5 MiB]",
        "and 2 further programs that the record has no room for",
    ]


def test_words_of_a_program_are_plain() -> None:
    """An argument that is a terminal's control sequence is spelt out, and stays one line."""
    one = ran(0, None, "/usr/bin/true", argv=["true", "\x1b]0;owned\x07\nexit 0"])
    (line,) = tree_lines({"ran": [one], "refused": [], "left_out": 0})
    assert line.startswith(r"/usr/bin/true: true '\x1b]0;owned\x07\nexit 0'  [pid")


def test_a_deep_tree_needs_no_recursion() -> None:
    """Ten thousand programs, each started by the one before."""
    deep = {"ran": [ran(n, n - 1 if n else None, "/usr/bin/env") for n in range(10_000)], "refused": [], "left_out": 0}
    assert len(tree_lines(deep)) == 10_000


def test_refusals_are_told_and_bounded() -> None:
    """A person is told the first few refusals and how many more there were; without a gate nothing."""
    assert refusal_lines(None) == []
    lines = refusal_lines({"ran": [], "refused": [REFUSED] * 7, "left_out": 0})
    assert lines[0] == "the exec gate did not let /usr/bin/rm run: 'rm x' matches '*'"
    assert lines[-1].startswith("and 2 further programs")


def test_programs_that_only_notified_say_what_they_are_known_by() -> None:
    """Nobody knows ends and costs then; what a caller said is marked, and whose parent was not seen is shown."""
    unknown = {"exit_status": None, "ended_s": None, "cpu_s": None, "peak_memory_bytes": None}
    execs = {
        "ran": [
            ran(0, None, "/usr/bin/bash", words="program", **unknown),
            ran(1, 0, "/opt/tool", words="caller", **unknown),
            ran(3, 2, "/usr/bin/ls", words="program", **unknown),
        ],
        "refused": [{**REFUSED, "words": "caller"}],
        "left_out": 0,
        "unseen": 1,
    }
    assert tree_lines(execs) == [
        "/usr/bin/bash: bash 'a b'  [pid 100, from 0.500 s]",
        "  /opt/tool: tool 'a b'  [pid 101, from 0.500 s, as its caller said]",
        "    REFUSED /usr/bin/rm: rm x  ('rm x' matches '*', as its caller said)",
        "/usr/bin/ls: ls 'a b'  [pid 103, from 0.500 s]",
        "and 1 execs of which nothing could be read",
    ]
