"""All attacks: the first table and the newer one."""

from .newer import NEWER
from .table import ATTACKS as FIRST

__all__ = ["ATTACKS"]

ATTACKS = (*FIRST, *NEWER)
