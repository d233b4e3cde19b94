"""All attacks: the first table, the newer one, and those by way of services."""

from .newer import NEWER
from .services import SERVICES
from .table import ATTACKS as FIRST

__all__ = ["ATTACKS"]

ATTACKS = (*FIRST, *NEWER, *SERVICES)
