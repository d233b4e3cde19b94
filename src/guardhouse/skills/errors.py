"""Why a skill is refused. Runs in the files worker."""

from guardhouse.errors import Refusal

__all__ = ["SkillRefused"]


class SkillRefused(Refusal):
    """A skill's archive or its SKILL.md is not acceptable; the text starts "skill refused: "."""

    def __init__(self, why: str) -> None:
        super().__init__(f"skill refused: {why}")
