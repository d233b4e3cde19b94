"""All attacks: the first table, the newer, the rarer, the later and the latest one, and those by way of services."""

from .later import LATER
from .latest import LATEST
from .newer import NEWER
from .rarer import RARER
from .services import SERVICES
from .table import ATTACKS as FIRST

__all__ = ["ATTACKS"]

ATTACKS = (*FIRST, *NEWER, *RARER, *LATER, *LATEST, *SERVICES)
