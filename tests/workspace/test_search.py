"""List, glob and grep: order, bounds, what is skipped, and the same answer as a plain reading of the rules."""

import fnmatch
import os
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.workspace import (
    Code,
    Workspace,
    WorkspaceRefusal,
    find_paths,
    line_search,
    list_directory,
    search_files,
)
from guardhouse.workspace.glob_pattern import GlobPattern


def tree(root: Path, *paths: str, content: bytes = b"") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.py", ["a.py", ".py"], ["a/b.py", "a.pyc"]),
        ("**/*.py", ["a.py", "x/a.py", "x/y/z.py"], ["a.txt"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("**", ["a", "a/b"], []),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("{a,b}.{c,d}", ["a.c", "b.d"], ["a.e", "{a,b}.c"]),
        ("{a,b/{c,d}}", ["a", "b/c", "b/d"], ["b", "c"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[!a-c]x", ["dx"], ["ax", "/x"]),
        ("[^a]x", ["bx"], ["ax"]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[+-0]", ["+", "0", "."], ["/", "1"]),
        ("?", ["a", "é", "\n"], ["", "ab", "/"]),
        (r"\*", ["*"], ["a"]),
        (r"[\]]", ["]"], ["\\"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("x,y}", ["x,y}"], ["x"]),
        ("***", ["a"], ["a/b"]),
        ("(a|b)+$", ["(a|b)+$"], ["a"]),
    ],
)
def test_glob_language(pattern: str, yes: list[str], no: list[str]) -> None:
    """Each construct matches what it says and nothing else."""
    compiled = GlobPattern(pattern)
    assert [name for name in yes if not compiled.matches(name.encode())] == []
    assert [name for name in no if compiled.matches(name.encode())] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "a[!", "{a", "{a,{b}", "\\", "[z-a]", "*" * 5000, "{" * 40 + "}" * 40])
def test_broken_globs_are_refused(pattern: str) -> None:
    """A glob that means nothing is refused with what is wrong."""
    with pytest.raises(WorkspaceRefusal, match="glob"):
        GlobPattern(pattern)


def test_names_that_are_not_utf8_never_break_a_match() -> None:
    """A range of characters says nothing of such a name; stars and plain bytes do."""
    with pytest.raises(WorkspaceRefusal):
        GlobPattern(b"[!a:\xad-z]?")
    assert not GlobPattern("[\u00e9-\u0101]").matches(b"\xff")
    assert GlobPattern("*").matches(b"\xff")
    assert GlobPattern(b"\xff?").matches(b"\xff\xfe")


def test_globs_are_linear() -> None:
    """A pattern made to backtrack costs no more than any other."""
    began = time.process_time()
    assert not GlobPattern("*a" * 500 + "b").matches(b"a" * 5000)
    assert not GlobPattern("**/" * 300 + "x").matches(b"a/" * 2000 + b"y")
    assert time.process_time() - began < 4


@given(
    st.lists(
        st.sampled_from(["a", "b", "*", "**", "/", "/", "**/", "?", "{a,b}", ".c", "\n", "é", "[ab]"]), max_size=6
    ),
    st.sampled_from([b"", b"a/", b"b/", b"a/b/", b"\xff/", "é/".encode(), b"a/a/a/"]),
)
@settings(max_examples=1000, deadline=None)
def test_many_names_at_once(pieces: list[str], prefix: bytes) -> None:
    """What is decided for a directory's names at once is what is decided for each path by itself."""
    try:
        compiled = GlobPattern("".join(pieces))
    except WorkspaceRefusal:
        return
    names = [b"a", b"b", b"ab", b"a.c", b".c", b"aa.c", b"\n", b"\xff", "é".encode(), "é.c".encode(), b"*", b"b\xff.c"]
    assert list(compiled.matching(prefix, names)) == [name for name in names if compiled.matches(prefix + name)]


@given(st.text(alphabet="ab*?[]!-.", max_size=8), st.text(alphabet="ab.-]", max_size=6))
@settings(max_examples=500, deadline=None)
def test_globs_agree_with_fnmatch(pattern: str, name: str) -> None:
    """Without slashes, braces and escapes the language is fnmatch's, where that is strict."""
    try:
        compiled = GlobPattern(pattern)
    except WorkspaceRefusal:
        return
    if re.search(r"\[[^\]]*-.?-", pattern) or "[!]" in pattern or "[]" in pattern or "--" in pattern:
        return
    if re.search(r"(.)-(.)", pattern) or not name:
        return
    assert compiled.matches(name.encode()) == fnmatch.fnmatchcase(name, pattern)


def test_listing_order_and_content(workspace: Workspace, tmp_path: Path) -> None:
    """Byte order, a directory before its content, sizes of files only, `.` spelled away."""
    tree(tmp_path, "b/x", "a/z", "a/y/1", "B", content=b"12")
    entries = list_directory(workspace, "./", recursive=True).entries
    assert [entry.path for entry in entries] == [b"B", b"a", b"a/y", b"a/y/1", b"a/z", b"b", b"b/x"]
    assert [entry.size for entry in entries] == [2, 0, 0, 2, 2, 0, 2]
    assert [entry.path for entry in list_directory(workspace, "a").entries] == [b"a/y", b"a/z"]


def test_listing_ignores_by_base_name(workspace: Workspace, tmp_path: Path) -> None:
    """An ignored directory is left out with all below it."""
    tree(tmp_path, "node_modules/a/b.js", "src/a.js", "src/b.pyc", "x/node_modules/c.js")
    paths = [e.path for e in list_directory(workspace, recursive=True, ignore=["node_modules", "*.pyc"]).entries]
    assert paths == [b"src", b"src/a.js", b"x"]


def test_bounds_count_what_they_leave_out(workspace: Workspace, tmp_path: Path) -> None:
    """Every cap says exactly how much is missing."""
    tree(tmp_path, *[f"f{n:03}" for n in range(100)], content=b"x\nx\n")
    listing = list_directory(workspace, max_entries=30)
    assert (len(listing.entries), listing.left_out) == (30, 70)
    found = find_paths(workspace, "f*", max_matches=30)
    assert (len(found.matches), found.left_out) == (30, 70)
    searched = search_files(workspace, "x", max_matches=30)
    assert (len(searched.hits), searched.left_out) == (30, 170)
    assert list_directory(workspace, max_name_bytes=40).left_out == 90


def test_glob_places(workspace: Workspace, tmp_path: Path) -> None:
    """Literal beginnings are followed, results sorted, directories found, absent places empty."""
    tree(tmp_path, "src/a/m.py", "src/b/m.py", "doc/m.py", "src/a/n.txt")
    os.symlink("src/a", tmp_path / "link")
    assert find_paths(workspace, "src/*/m.py").matches == [b"src/a/m.py", b"src/b/m.py"]
    assert find_paths(workspace, "link/*.py").matches == [b"link/m.py"]
    assert find_paths(workspace, "src/*/").matches == [b"src/a", b"src/b"]
    assert find_paths(workspace, f"{tmp_path}/doc/*").matches == [b"doc/m.py"]
    assert find_paths(workspace, "src/a").matches == [b"src/a"]
    assert find_paths(workspace, "none/*").matches == []
    assert find_paths(workspace, "doc/m.py/*").matches == []


def test_work_directory_is_found_only_when_named(workspace: Workspace, tmp_path: Path) -> None:
    """Saved outputs do not turn up in searches, unless asked for by name."""
    tree(tmp_path, ".work/outputs/x.txt", "x.txt", content=b"needle\n")
    assert find_paths(workspace, "**/*.txt").matches == [b"x.txt"]
    assert find_paths(workspace, ".work/**/*.txt").matches == [b".work/outputs/x.txt"]
    assert [hit.path for hit in search_files(workspace, "needle").hits] == [b"x.txt"]
    assert [hit.path for hit in search_files(workspace, "needle", path=".work").hits] == [b".work/outputs/x.txt"]


@pytest.mark.parametrize(
    ("pattern", "case", "lines"),
    [
        ("needle", "smart", [1, 2]),
        ("Needle", "smart", [2]),
        ("needle", "sensitive", [1]),
        ("NEEDLE", "insensitive", [1, 2]),
        (r"\Sneedle", "smart", []),
        (r"^\s*needle\r?$", "smart", [1, 2]),
        (r"é", "smart", [3]),
        (r"É", "insensitive", [3]),
        (r"a.*c", "smart", []),
        ("--pre=touch /tmp/pwned", "smart", []),
        ("$", "smart", [1, 2, 3, 4, 5]),
    ],
)
def test_grep_language(pattern: str, case: str, lines: list[int], workspace: Workspace, tmp_path: Path) -> None:
    """Smart case, anchors at lines, Unicode, and no match across lines; a pattern is never an option."""
    (tmp_path / "f").write_bytes(b"needle\n  Needle\r\n\xc3\xa9\na\nc")
    assert [hit.line.number for hit in search_files(workspace, pattern, case=case).hits] == lines


@pytest.mark.parametrize("pattern", ["(", "a)(b", r"(?=x)", r"(a)\1", "a{2000}", "[z-a]", "x" * 5000])
def test_broken_patterns_are_refused(pattern: str, workspace: Workspace) -> None:
    """What RE2 does not read is refused, with the reason."""
    with pytest.raises(WorkspaceRefusal) as refused:
        search_files(workspace, pattern)
    assert refused.value.code is Code.INVALID


def test_hostile_patterns_are_linear(workspace: Workspace, tmp_path: Path) -> None:
    """A pattern that takes a backtracking matcher for ever takes this one a moment."""
    (tmp_path / "f").write_bytes(b"a" * 200_000 + b"\n")
    began = time.process_time()
    assert search_files(workspace, "(a*)*(a*)*(a|aa)+$b").hits == []
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "pattern",
    [
        r"\pL{1000}",
        r"[^\pL]{900}",
        r"(?:\pL|\pN)" * 370,
        r"(?i)(?:\pL{200}){2}|\pN{500}",
        "(?:" + "a{0,9}" * 678 + "){1,30}",
    ],
    ids=["letters", "no letters", "alternatives", "folded", "optional"],
)
def test_patterns_that_grow_when_written_out(pattern: str, workspace: Workspace) -> None:
    """What is short and becomes a program of megabytes is refused at once, saying why."""
    began = time.process_time()
    with pytest.raises(WorkspaceRefusal, match="too large with its repeats") as refused:
        search_files(workspace, pattern)
    assert refused.value.code is Code.INVALID
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "pattern", [r"\pL{1,64}", r"[^,\n]{1,800}", "|".join(f"word{n}" for n in range(500)), ".{0,900}"]
)
def test_patterns_of_ordinary_size_are_searched(pattern: str, workspace: Workspace, tmp_path: Path) -> None:
    """The bound is above what a person writes."""
    (tmp_path / "f").write_bytes(b"word7\n")
    assert len(search_files(workspace, pattern).hits) == 1


def test_hostile_globs_are_compiled_at_once(workspace: Workspace, tmp_path: Path) -> None:
    """Braces, classes and stars by the thousand are compiled in no time, or refused."""
    (tmp_path / "f").write_bytes(b"")
    began = time.process_time()
    for glob in (
        "{a,b}" * 800,
        "{,?}" * 1000,
        "[!a]" * 1000,
        "{,*}" * 1000,
        ("{," * 30 + "?" + "}" * 30) * 40,
        "?" * 4096,
    ):
        GlobPattern(glob).matches(b"x" * 255)
    assert time.process_time() - began < 2
    with pytest.raises(WorkspaceRefusal, match="nested deeper"):
        GlobPattern("{a," * 33 + "b" + "}" * 33)
    with pytest.raises(WorkspaceRefusal, match="too long"):
        GlobPattern("*" * 5000)


def test_binary_files_are_skipped_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    """A NUL makes a file binary from there on; one that is only not UTF-8 is text."""
    (tmp_path / "binary").write_bytes(b"needle\0")
    (tmp_path / "latin").write_bytes(b"caf\xe9 needle\n")
    (tmp_path / "long").write_bytes(b"x" * 9000 + b"\nneedle\nneedle\0\nneedle\n")
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.write(b"needle\n" * 2000)
        sparse.truncate(1 << 42)
    searched = search_files(workspace, "needle")
    assert [hit.path for hit in searched.hits][:2] == [b"latin", b"long"]
    assert (len(searched.hits), searched.binary_skipped) == (2002, 3)


def test_include(workspace: Workspace, tmp_path: Path) -> None:
    """A glob without a slash is for the base name, one with a slash for the path."""
    tree(tmp_path, "a.py", "src/b.py", "src/c.txt", content=b"x\n")

    def paths(*include: str) -> list[bytes]:
        return [hit.path for hit in search_files(workspace, "x", include=include).hits]

    assert paths("*.py") == [b"a.py", b"src/b.py"]
    assert paths("src/*") == [b"src/b.py", b"src/c.txt"]
    assert paths("*.txt", "a.*") == [b"a.py", b"src/c.txt"]


def test_long_lines_are_cut_and_say_so(workspace: Workspace, tmp_path: Path) -> None:
    """A minified file answers a bounded line, cut at a character."""
    (tmp_path / "min.js").write_bytes("é".encode() * 50_000 + b"needle\n")
    (hit,) = search_files(workspace, "needle").hits
    assert len(hit.line.content) < 2_100
    assert hit.line.content.decode().endswith("more bytes in this line]")


def naive(data: bytes, pattern: bytes, context: int) -> list[tuple[int, bytes, bool]]:
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    matching = {number for number, line in enumerate(lines) if re.search(pattern, line)}
    shown = {n + d for n in matching for d in range(-context, context + 1)}
    return [(n + 1, line, n not in matching) for n, line in enumerate(lines) if n in shown]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However the file is cut into blocks, the lines, their numbers and their context are those of a plain reading."""
    generator = random.Random(3)
    for _ in range(3000):
        monkeypatch.setattr(line_search, "_BLOCK_BYTES", generator.choice([1, 2, 3, 5, 8, 100]))
        data = bytes(generator.choice(b"ab\n\n") for _ in range(generator.randint(0, 40)))
        pattern = generator.choice(["a", "b", "b+", "ab", "^$", "x*", "$", "^a", "b$", "^(ab)*$"])
        context = generator.choice([0, 0, 1, 2, 3])
        (tmp_path / "file").write_bytes(data)
        reader = os.open(tmp_path / "file", os.O_RDONLY)
        # A file of /proc's kind says 0, one that grew says less, one of /sys's kind says more than there is.
        size = generator.choice([0, len(data), max(len(data) - 1, 0), len(data) + 3])
        head = line_search.read_small(reader, size)
        compiled = line_search.compile_pattern(pattern)
        lines = line_search.matching_lines(reader, compiled, size=size, head=head, context=context)
        assert [(x.number, x.content, x.is_context) for x in lines] == naive(data, pattern.encode(), context)
        os.close(reader)
