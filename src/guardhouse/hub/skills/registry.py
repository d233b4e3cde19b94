"""The account's skills in memory: found by name, with their versions and what each environment holds of them.

Archives are not here; the store has them. Runs in the hub.
"""

from collections import defaultdict

import msgspec
import trio

from guardhouse.hub.skills.decide import is_for
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.skill_copies import SkillCopyRecord
from guardhouse.hub.store.skills import SkillRecord, SkillVersionRecord

__all__ = ["Skills"]


class Skills:
    """Every skill by id, every version by skill and number, every copy by environment and name."""

    def __init__(
        self, records: list[SkillRecord], versions: list[SkillVersionRecord], copies: list[SkillCopyRecord]
    ) -> None:
        # Held by whoever changes a skill, from reading it to noting what was stored.
        self.changing = trio.Lock()
        self._records = {record.id: record for record in records}
        self._versions: dict[str, dict[int, SkillVersionRecord]] = defaultdict(dict)
        self._copies: dict[str, dict[str, SkillCopyRecord]] = defaultdict(dict)
        for version in versions:
            self.put_version(version)
        for copy in copies:
            self.put_copy(copy)

    def all(self) -> list[SkillRecord]:
        """Return every skill, by name."""
        return sorted(self._records.values(), key=lambda record: record.name)

    def find(self, id_or_name: str) -> SkillRecord | None:
        """Return the skill with this id or name, or None."""
        found = self._records.get(id_or_name)
        return found or next((one for one in self._records.values() if one.name == id_or_name), None)

    def put(self, record: SkillRecord) -> None:
        """Note a stored skill, new or changed."""
        self._records[record.id] = record

    def drop(self, skill_id: str) -> None:
        """Forget a deleted skill and its versions; what runners hold of it is still to be removed there."""
        self._records.pop(skill_id, None)
        self._versions.pop(skill_id, None)

    def versions(self, skill_id: str) -> list[SkillVersionRecord]:
        """Return a skill's versions, newest first."""
        found = self._versions.get(skill_id, {})
        return [found[number] for number in sorted(found, reverse=True)]

    def version(self, skill_id: str, number: int) -> SkillVersionRecord | None:
        """Return one version of a skill, or None."""
        return self._versions.get(skill_id, {}).get(number)

    def put_version(self, record: SkillVersionRecord) -> None:
        """Note a stored version."""
        self._versions[record.skill_id][record.number] = record

    def drop_version(self, record: SkillVersionRecord) -> None:
        """Forget a removed version."""
        self._versions.get(record.skill_id, {}).pop(record.number, None)

    def wanted(self, environment: EnvironmentRecord) -> dict[str, SkillVersionRecord]:
        """Return the versions that an environment's runner should hold, by the skills' names."""
        found = {}
        for record in self._records.values():
            version = self.version(record.id, record.current)
            if version is not None and is_for(record, environment):
                found[record.name] = version
        return found

    # What runners hold.

    def copies(self, environment_id: str) -> dict[str, SkillCopyRecord]:
        """Return what an environment's runner answered last, by the skills' names."""
        return dict(self._copies.get(environment_id, {}))

    def copies_of(self, name: str) -> list[SkillCopyRecord]:
        """Return what every environment's runner answered of one skill."""
        return [found for by_name in self._copies.values() if (found := by_name.get(name)) is not None]

    def put_copy(self, record: SkillCopyRecord) -> None:
        """Note what a runner answered."""
        self._copies[record.environment_id][record.name] = record

    def drop_copy(self, environment_id: str, name: str) -> None:
        """Forget a skill that a runner does not hold any more."""
        found = self._copies.get(environment_id, {})
        found.pop(name, None)
        if not found:
            self._copies.pop(environment_id, None)

    def may_concern(self, environment_id: str) -> bool:
        """Whether there can be anything to do for an environment: cheap, and yes in doubt."""
        return bool(self._records) or environment_id in self._copies

    def drop_environment(self, environment_id: str) -> None:
        """Forget a deleted environment: nothing is bound to it, and nobody holds anything there."""
        self._copies.pop(environment_id, None)
        for record in list(self._records.values()):
            if environment_id in record.environment_ids:
                rest = tuple(one for one in record.environment_ids if one != environment_id)
                self._records[record.id] = msgspec.structs.replace(record, environment_ids=rest)
