"""What the operator keeps from operations inside the workspace: globs on the real place of a file, not on its
given name.

A link with another name does not get round a rule, since the place asked about is the one that the path
resolves to. A hard link is another name of the same file and does. Pure. Runs in the files worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown
from guardhouse.workspace.glob_pattern import GlobPattern

__all__ = ["PathRules", "make_rules"]


@dataclass(frozen=True, slots=True)
class PathRules:
    """Compiled rules. A glob that matches a directory covers everything below it."""

    read_deny: tuple[GlobPattern, ...]
    write_allow: tuple[GlobPattern, ...]
    write_deny: tuple[GlobPattern, ...]

    def check_read(self, place: bytes) -> None:
        """Raise when nobody may read at ``place``, a resolved path relative to the workspace.

        Raises:
            WorkspaceRefusal: RULE.
        """
        rule = _covering(self.read_deny, place)
        if rule is not None:
            raise _refused("read", place, f"read_deny has {shown(rule.pattern)}")

    def check_write(self, place: bytes) -> None:
        """Raise when nobody may change ``place``, a resolved path relative to the workspace.

        Raises:
            WorkspaceRefusal: RULE.
        """
        rule = _covering(self.write_deny, place)
        if rule is not None:
            raise _refused("write", place, f"write_deny has {shown(rule.pattern)}")
        if self.write_allow and _covering(self.write_allow, place) is None:
            raise _refused("write", place, "no glob of write_allow covers it")


def make_rules(*, read_deny: Sequence[str], write_allow: Sequence[str], write_deny: Sequence[str]) -> PathRules | None:
    """Return the compiled rules; None when there is no rule at all.

    Raises:
        WorkspaceRefusal: INVALID: a glob cannot be compiled.
    """
    if not (read_deny or write_allow or write_deny):
        return None
    return PathRules(
        tuple(map(GlobPattern, read_deny)), tuple(map(GlobPattern, write_allow)), tuple(map(GlobPattern, write_deny))
    )


def _covering(globs: Sequence[GlobPattern], place: bytes) -> GlobPattern | None:
    parts = place.split(b"/")
    for end in range(1, len(parts) + 1):
        prefix = b"/".join(parts[:end])
        for glob in globs:
            if glob.matches(prefix):
                return glob
    return None


def _refused(verb: str, place: bytes, rule: str) -> WorkspaceRefusal:
    return WorkspaceRefusal(
        f"workspace rule forbids to {verb} {shown(place)}: {rule} in the files worker's settings", code=Code.RULE
    )
