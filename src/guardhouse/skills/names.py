"""Which names an archive's entries may have, one by one and together. Pure. Runs in the files worker and in the hub."""

import unicodedata
from collections.abc import Iterable
from typing import Final

from guardhouse.limits import SKILL_DEPTH_MAX
from guardhouse.skills.errors import SkillRefused

__all__ = ["RESERVED_NAMES", "check_names_together", "parse_entry_name"]

_NAME_MAX_BYTES: Final = 255
_PATH_MAX_BYTES: Final = 1_024
RESERVED_NAMES: Final = frozenset({".checksum"})
"""Names at the top of an installed skill that are Guardhouse's own."""
_RESERVED_PREFIX: Final = ".guardhouse-tmp-"


def parse_entry_name(raw: str) -> tuple[str, ...]:
    """Return the components of an entry's name; a directory's trailing slash is not among them.

    Raises:
        SkillRefused: absolute, a drive, a backslash, "." or "..", an empty or overlong component, a control character,
            too deep, or a name that Guardhouse keeps for itself.
    """
    where = f"entry {raw[:200]!r}"
    if not raw:
        raise SkillRefused("an entry has no name")
    if raw.startswith("/"):
        raise SkillRefused(f"{where} is absolute")
    if "\\" in raw:
        raise SkillRefused(f"{where} has a backslash, which some systems take for a slash")
    if raw[1:2] == ":":
        raise SkillRefused(f"{where} names a drive")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in raw):
        raise SkillRefused(f"{where} has a control character")
    parts = tuple(raw.removesuffix("/").split("/"))
    for part in parts:
        if part in ("", ".", ".."):
            raise SkillRefused(f"{where} has the component {part!r}; it would leave its place")
        if len(part.encode("utf-8")) > _NAME_MAX_BYTES:
            raise SkillRefused(f"{where} has a component of more than {_NAME_MAX_BYTES} bytes")
        if part.startswith(_RESERVED_PREFIX):
            raise SkillRefused(f"{where} has a name that Guardhouse keeps for itself")
    if len(parts) > SKILL_DEPTH_MAX or len(raw.encode("utf-8")) > _PATH_MAX_BYTES:
        raise SkillRefused(f"{where} is deeper than {SKILL_DEPTH_MAX} levels or longer than {_PATH_MAX_BYTES} bytes")
    if parts[0].casefold() in RESERVED_NAMES:
        raise SkillRefused(f"{where} has a name that Guardhouse keeps for itself")
    return parts


def check_names_together(entries: Iterable[tuple[tuple[str, ...], bool]]) -> None:
    """Raise unless every entry, and every directory implied by one, has one spelling and one kind.

    Args:
        entries: components and whether it is a directory, in the archive's order.

    Raises:
        SkillRefused: a name twice, two names that some file system takes for one (case, Unicode form), or a file that
            another entry uses as a directory.
    """
    spelled: dict[tuple[str, ...], tuple[str, ...]] = {}
    kinds: dict[tuple[str, ...], bool] = {}
    named: set[tuple[str, ...]] = set()
    for parts, is_directory in entries:
        if parts in named:
            raise SkillRefused(f"entry {'/'.join(parts)!r} is there twice")
        named.add(parts)
        for end in range(1, len(parts) + 1):
            prefix = parts[:end]
            folded = tuple(_folded(part) for part in prefix)
            if spelled.setdefault(folded, prefix) != prefix:
                raise SkillRefused(
                    f"entries {'/'.join(spelled[folded])!r} and {'/'.join(prefix)!r} differ in case or form only"
                )
            directory = is_directory if end == len(parts) else True
            if kinds.setdefault(prefix, directory) != directory:
                raise SkillRefused(f"entry {'/'.join(prefix)!r} is both a file and a directory")


def _folded(part: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold())
