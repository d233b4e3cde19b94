"""All attacks: the first table, the newer and the rarer one, and those by way of services."""

from .newer import NEWER
from .rarer import RARER
from .services import SERVICES
from .table import ATTACKS as FIRST

__all__ = ["ATTACKS"]

ATTACKS = (*FIRST, *NEWER, *RARER, *SERVICES)
