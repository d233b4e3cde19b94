"""The place of the attacks: a workspace with a neighbour that nobody inside may reach, and links that try."""

import os
from dataclasses import dataclass
from pathlib import Path

SECRET = b"TOP-SECRET-TOKEN outside of the workspace\n"
INSIDE = b"harmless content inside of the workspace\n"


@dataclass(frozen=True)
class Box:
    """``root`` is the workspace; ``outside`` and ``evil`` lie beside it."""

    root: Path
    outside: Path
    evil: Path

    def picture(self) -> dict[str, tuple[int, bytes]]:
        """Return everything outside the workspace: names, modes, contents."""
        seen = {}
        for top in (self.outside, self.evil):
            for path in sorted([top, *top.rglob("*")]):
                status = path.lstat()
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                seen[str(path)] = (status.st_mode, content)
        seen["beside"] = (0, b" ".join(sorted(os.fsencode(name) for name in os.listdir(self.root.parent))))
        return seen


def make_box(base: Path) -> Box:
    """Lay out the workspace `ws` with its neighbours `outside` and `ws-evil`."""
    box = Box(base / "ws", base / "outside", base / "ws-evil")
    for directory in (box.outside, box.evil):
        (directory / "dir").mkdir(parents=True)
        (directory / "target.txt").write_bytes(SECRET)
        (directory / "dir" / "target.txt").write_bytes(SECRET)
    (box.root / "in" / "dir").mkdir(parents=True)
    (box.root / "in" / "target.txt").write_bytes(INSIDE)
    (box.root / "in" / "dir" / "target.txt").write_bytes(INSIDE)
    for name, target in LINKS.items():
        text = target.replace(b"{root}", os.fsencode(box.root)).replace(b"{outside}", os.fsencode(box.outside))
        os.symlink(text, os.fsencode(box.root) + b"/" + name)
    return box


LINKS = {
    b"rel_out": b"../outside",
    b"rel_in": b"in",
    b"abs_out": b"{outside}",
    b"abs_in": b"{root}/in",
    b"chain_out": b"chain_out2",
    b"chain_out2": b"rel_out",
    b"chain_in": b"chain_in2",
    b"chain_in2": b"rel_in",
    b"up": b"..",
    b"down": b"in/..",
    b"in/mid_out": b"../../outside",
    b"in/mid_in": b"../in",
    b"dotted_out": b"in/../../outside",
    b"dotted_in": b"in/../in",
    b"proc_root": b"/proc/self/root{outside}",
    b"proc_cwd": b"/proc/self/cwd",
    b"proc_fd": b"/proc/self/fd",
    b"proc_one": b"/proc/1/root{outside}",
    b"slash": b"/",
    b"self": b".",
    b"l\xffout": b"../outside",
    b"l\xffin": b"in",
    b"l\nout": b"../outside",
    b"l\nin": b"in",
    b"abs_dots_out": b"{root}/../outside",
    b"abs_dots_in": b"{root}/in/../in",
    b"prefix_out": b"{root}-evil",
    b"trailing_out": b"../outside/",
    b"trailing_in": b"in/",
}
