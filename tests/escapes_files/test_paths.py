"""Every way to write a path that leaves, tried with every operation, each beside a twin of the same shape
that stays.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.escapes_files.box import INSIDE, Box, make_box
from tests.support.files import FilesWorker

from guardhouse.errors import Refusal
from guardhouse.workspace import PathEscapesWorkspace


@dataclass(frozen=True)
class Way:
    """A directory named so that it lies outside, and the same kind of name for `in` inside."""

    name: str
    out: bytes
    twin: bytes


WAYS = [
    Way("parent", b"../outside", b"in/../in"),
    Way("nested parent", b"in/../../outside", b"in/dir/../../in"),
    Way("dots", b"./in/./../.././outside", b"./in/./../././in"),
    Way("double slashes", b"in//..//..//outside", b"in//..//in"),
    Way("absolute", b"{outside}", b"{root}/in"),
    Way("absolute with parent", b"{root}/../outside", b"{root}/in/../in"),
    Way("absolute deep parent", b"{root}/in/dir/../../../outside", b"{root}/in/dir/../../in"),
    Way("sibling with our prefix", b"{root}-evil", b"{root}/in"),
    Way("relative sibling with our prefix", b"../ws-evil", b"in"),
    Way("relative link", b"rel_out", b"rel_in"),
    Way("absolute link", b"abs_out", b"abs_in"),
    Way("chain of links", b"chain_out", b"chain_in"),
    Way("link to the parent", b"up/outside", b"down/in"),
    Way("link in the middle", b"in/mid_out", b"in/mid_in"),
    Way("link with dots in its target", b"dotted_out", b"dotted_in"),
    Way("parent of a link", b"rel_out/../outside", b"rel_in/../in"),
    Way("below a link", b"rel_out/dir/..", b"rel_in/dir/.."),
    Way("magic link to the root", b"proc_root", b"rel_in"),
    Way("magic link to the working directory", b"proc_cwd/../outside", b"self/in"),
    Way("magic link to a descriptor", b"proc_fd/0", b"self/in"),
    Way("magic link of another process", b"proc_one", b"rel_in"),
    Way("link to the root", b"slash{outside}", b"self/in"),
    Way("link of invalid UTF-8", b"l\xffout", b"l\xffin"),
    Way("link with a newline", b"l\nout", b"l\nin"),
    Way("absolute link with dots", b"abs_dots_out", b"abs_dots_in"),
    Way("absolute link to a sibling with our prefix", b"prefix_out", b"abs_in"),
    Way("link with a slash at its end", b"trailing_out", b"trailing_in"),
    Way("very many parents", b"../" * 64 + b"{outside}", b"in/../" * 64 + b"in"),
    Way("longer than PATH_MAX", b"in/../" * 900 + b"../outside", b"in/../" * 900 + b"in"),
    Way("many components", b"./" * 3000 + b"../outside", b"./" * 3000 + b"in"),
]


def archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("SKILL.md", "---\nname: demo\ndescription: a demonstration\n---\nText\n")
    return packed.getvalue()


ZIP = archive()
ZIP_CHECKSUM = hashlib.sha256(ZIP).hexdigest()


def text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


Act = Callable[[FilesWorker, bytes], object]
OPERATIONS: dict[str, Act] = {
    "read": lambda files, path: files.read(path + b"/target.txt"),
    "write over": lambda files, path: files.write(path + b"/target.txt", b"changed"),
    "write new": lambda files, path: files.write(path + b"/new.txt", b"new"),
    "write with new parents": lambda files, path: files.write(path + b"/x/y/new.txt", b"new"),
    "edit": lambda files, path: files.edit(path + b"/target.txt", "workspace", "place"),
    "list": lambda files, path: files.list(path),
    "list all": lambda files, path: files.list(path + b"/dir", recursive=True),
    "glob": lambda files, path: files.glob(path + b"/*.txt"),
    "grep": lambda files, path: files.grep("workspace", path=path),
    "grep one file": lambda files, path: files.grep("workspace", path=path + b"/target.txt"),
    "stat": lambda files, path: files.stat(path + b"/target.txt"),
    "move away": lambda files, path: files.move(path + b"/target.txt", "stolen.txt"),
    "move there": lambda files, path: files.move("in/dir/target.txt", path + b"/moved.txt"),
    "remove": lambda files, path: files.remove(path + b"/target.txt"),
    "remove all": lambda files, path: files.remove(path + b"/dir", recursive=True),
    "sync_skill": lambda files, path: files.sync_skill("demo", text(path + b"/skill"), ZIP, ZIP_CHECKSUM),
}

# A skill's directory travels as text (the plain protocol has no bytes for it); globs and skills take no "..".
NO_PARENTS = {"glob", "sync_skill"}


def filled(box: Box, path: bytes) -> bytes:
    return path.replace(b"{root}", os.fsencode(box.root)).replace(b"{outside}", os.fsencode(box.outside))


@pytest.fixture(params=["openat2", "careful"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_leaves(operation: str, way: Way, method: str, tmp_path: Path) -> None:
    """A path that leaves is refused with nothing read or changed outside; one of its shape that stays works."""
    box = make_box(tmp_path)
    act = OPERATIONS[operation]
    before = box.picture()
    with FilesWorker(box.root, method=method) as files:
        if not (operation == "sync_skill" and b"\xff" in way.out):
            with pytest.raises(PathEscapesWorkspace) as refused:
                act(files, filled(box, way.out))
            assert str(refused.value).startswith("path escapes workspace: ")
        assert box.picture() == before
        twin = filled(box, way.twin)
        if operation in NO_PARENTS:
            if b".." in twin or len(twin) > 4000:
                return
            if operation == "sync_skill" and b"\xff" in twin:
                return
        act(files, twin)
        assert box.picture() == before


@pytest.mark.parametrize(
    "link", ["file_rel", "file_abs", "file_chain", "file_dots", "file_proc", "file_dangling", "file_dangling_deep"]
)
@pytest.mark.parametrize("operation", ["read", "write", "edit", "grep", "sync_skill"])
def test_links_to_files(operation: str, link: str, method: str, tmp_path: Path) -> None:
    """A link to a file outside is refused at its end too, existing or not; one to a file inside is followed."""
    box = make_box(tmp_path)
    targets = {
        "file_rel": "../outside/target.txt",
        "file_abs": str(box.outside / "target.txt"),
        "file_chain": "file_chain2",
        "file_dots": "in/../../outside/target.txt",
        "file_proc": f"/proc/self/root{box.outside}/target.txt",
        "file_dangling": "../outside/not-there.txt",
        "file_dangling_deep": "../outside/no/such/not-there.txt",
    }
    os.symlink(targets[link], box.root / link)
    os.symlink("../outside/target.txt", box.root / "file_chain2")
    os.symlink("in/target.txt", box.root / "twin")
    acts: dict[str, Callable[[FilesWorker, str], object]] = {
        "read": lambda files, path: files.read(path),
        "write": lambda files, path: files.write(path, b"changed"),
        "edit": lambda files, path: files.edit(path, "harmless", "changed"),
        "grep": lambda files, path: files.grep("harmless", path=path),
        "sync_skill": lambda files, path: files.sync_skill("demo", path, ZIP),
    }
    before = box.picture()
    with FilesWorker(box.root, method=method) as files:
        with pytest.raises(Refusal) as refused:
            acts[operation](files, link)
        if operation != "sync_skill":
            assert isinstance(refused.value, PathEscapesWorkspace)
        assert box.picture() == before
        assert (box.root / link).is_symlink()
        if operation == "sync_skill":
            files.sync_skill("demo", "fresh", ZIP)
        else:
            acts[operation](files, "twin")
            assert (box.root / "twin").is_symlink()
        if operation in ("write", "edit"):
            assert (box.root / "in" / "target.txt").read_bytes() != INSIDE
        assert box.picture() == before


@pytest.mark.parametrize("operation", ["list", "glob", "grep"])
def test_walks_do_not_follow_links(operation: str, method: str, tmp_path: Path) -> None:
    """A walk shows links that leave and goes through none of them; what is inside it finds."""
    box = make_box(tmp_path)
    with FilesWorker(box.root, method=method) as files:
        if operation == "list":
            entries = {entry.path: entry for entry in files.list(recursive=True).entries}
            assert entries["rel_out"].kind == "symlink"
            assert not any(path.startswith(("rel_out/", "up/", "slash/")) for path in entries)
            assert "in/dir/target.txt" in entries
        elif operation == "glob":
            assert files.glob("**/target.txt").matches == ("in/dir/target.txt", "in/target.txt")
        else:
            found = files.grep("workspace")
            assert {match.path for match in found.matches} == {"in/dir/target.txt", "in/target.txt"}
            assert "SECRET" not in found.content


@pytest.mark.parametrize(
    "pattern", ["../*", "in/../../outside/*", "{..,in}/*", "/etc/*", "**/../*", "[.][.]/*", "up/*"]
)
def test_globs_do_not_leave(pattern: str, method: str, tmp_path: Path) -> None:
    """No pattern names anything outside: refused where it says so, without a match where it only might."""
    box = make_box(tmp_path)
    with FilesWorker(box.root, method=method) as files:
        try:
            matches = files.glob(pattern).matches
        except PathEscapesWorkspace:
            matches = ()
        assert not any("outside" in match or "passwd" in match for match in matches)
        assert files.glob("in/*.txt").matches == ("in/target.txt",)
