"""Which environments a skill is for, and what a runner still lacks or has too much of. Pure. Runs in the hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.skill_copies import SkillCopyRecord
from guardhouse.hub.store.skills import SkillRecord, SkillVersionRecord

__all__ = [
    "RETRY_FAILED_S",
    "RETRY_REFUSED_S",
    "CopyState",
    "SkillStep",
    "decide_copy_state",
    "decide_steps",
    "is_for",
    "skill_directory",
]

# As people read it: there, another version there, not tried yet, there though nobody wants it, the last try in vain.
CopyState = Literal["held", "outdated", "missing", "leftover", "refused", "failed"]

# What a runner refused it would refuse again, until its policy, the version or its place is another; its disk may have
# room again without any of these, so it is asked once an hour. Where no answer came, the next look tries again.
RETRY_REFUSED_S: Final = 3_600.0
RETRY_FAILED_S: Final = 60.0


@dataclass(frozen=True)
class SkillStep:
    """One thing to do on a runner: put ``version`` there, or with None take the skill ``name`` away."""

    name: str
    version: SkillVersionRecord | None


def skill_directory(name: str) -> str:
    """Return where a skill lies in a workspace: the place below `.work/` that is open to skills."""
    return f".work/skills/{name}"


def is_for(skill: SkillRecord, environment: EnvironmentRecord) -> bool:
    """Whether ``environment`` is to have ``skill``.

    One that is named gets it. Beyond that a team's skill stays within the team's environments: an upload by one team
    puts no file on another's machine.
    """
    if not skill.enabled:
        return False
    if environment.id in skill.environment_ids:
        return True
    if skill.team_id is not None and skill.team_id != environment.team_id:
        return False
    return skill.automatic or (bool(skill.tags) and set(skill.tags) <= set(environment.tags))


def decide_steps(
    wanted: Mapping[str, SkillVersionRecord],
    copies: Mapping[str, SkillCopyRecord],
    *,
    place: str,
    policy_digest: str,
    now_ms: int,
) -> list[SkillStep]:
    """Return what is to be done, removals first, in the order of names.

    Args:
        wanted: by name, the version that should be there.
        copies: by name, what the runner answered last.
        place: which memory or machine it is now; what was said of another place is not believed.
        policy_digest: of the policy in force as the runner says; "" where it says nothing.
        now_ms: Unix ms.
    """
    steps = [
        SkillStep(name, None)
        for name in sorted(copies.keys() - wanted.keys())
        if not _waits(copies[name], "", place=place, policy_digest=policy_digest, now_ms=now_ms)
    ]
    for name in sorted(wanted):
        copy, version = copies.get(name), wanted[name]
        if copy is not None:
            if copy.place == place and copy.checksum == version.checksum:
                continue
            if _waits(copy, version.checksum, place=place, policy_digest=policy_digest, now_ms=now_ms):
                continue
        steps.append(SkillStep(name, version))
    return steps


def _waits(copy: SkillCopyRecord, checksum: str, *, place: str, policy_digest: str, now_ms: int) -> bool:
    """Whether the same was tried here a short time ago, in vain."""
    if copy.state == "held" or copy.tried_checksum != checksum or copy.place != place:
        return False
    if copy.policy_digest != policy_digest:
        return False
    wait_s = RETRY_REFUSED_S if copy.state == "refused" else RETRY_FAILED_S
    return now_ms - copy.changed_ms < wait_s * 1000


def decide_copy_state(copy: SkillCopyRecord | None, version: SkillVersionRecord | None) -> CopyState | None:
    """Return how a skill stands in an environment as people read it; None where it is neither wanted nor there.

    ``refused`` and ``failed`` tell of the last try; ``missing`` and ``outdated`` that none was made yet.
    """
    if copy is not None and copy.state != "held":
        return "refused" if copy.state == "refused" else "failed"
    if version is None:
        return None if copy is None else "leftover"
    if copy is None or not copy.checksum:
        return "missing"
    return "held" if copy.checksum == version.checksum else "outdated"
