"""Names of one program that differ by a version number: python, python3 and python3.11; gcc and gcc-12.

Pure. Used where a policy that names the one is asked about a file that is called the other as well.
"""

import re
from typing import Final

__all__ = ["is_version_of"]

_VERSION: Final = re.compile(r"[-.]?[0-9][0-9.]*")


def is_version_of(name: str, other: str) -> bool:
    """Tell whether two names are equal or one is the other with a version number behind it."""
    longer, shorter = (name, other) if len(name) > len(other) else (other, name)
    behind = longer.removeprefix(shorter) if longer.startswith(shorter) else "?"
    return not behind or _VERSION.fullmatch(behind) is not None
