"""Which environments a caller sees, as a value that queries are narrowed by. Pure. Runs in the hub."""

from dataclasses import dataclass
from typing import Final

__all__ = ["EVERYTHING", "Reach"]


@dataclass(frozen=True)
class Reach:
    """Which environments a caller sees, for lists. None means no limit of that kind.

    Attributes:
        teams: sees the account's environments and those of these teams.
        environments, tags: and of them only those with such an id or one of these tags.
        own: sees tasks that these asked for, wherever they ran.
        owners: sees the managed sandboxes of these, with ``teams`` only.
    """

    teams: frozenset[str] | None = None
    environments: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    own: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()

    @property
    def is_everything(self) -> bool:
        """Whether nothing is out of reach."""
        return self.teams is None and self.environments is None and self.tags is None


EVERYTHING: Final = Reach()
