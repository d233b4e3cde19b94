"""Any bytes as a glob and a name: compiled and matched at once, or refused; and never across a slash by mistake.

The input is a pattern, a NUL, and a name.
"""

from driver import main
from guardhouse.workspace import WorkspaceRefusal
from guardhouse.workspace.glob_pattern import GlobPattern


def fuzz_one(data: bytes) -> None:
    pattern, _, name = data.partition(b"\0")
    try:
        compiled = GlobPattern(pattern)
    except WorkspaceRefusal:
        return
    matched = compiled.matches(name)
    assert compiled.matches(name) is matched
    if matched and b"/" not in pattern and b"**" not in pattern:
        assert b"/" not in name, "a pattern of one component matched two"


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
