"""Why a skill is refused. Runs in the files worker and in the hub."""

from guardhouse.errors import Refusal

__all__ = ["SkillRefused"]


class SkillRefused(Refusal):
    """A skill's archive or its SKILL.md is not acceptable; the text starts "skill refused: ".

    Attributes:
        why: the text without that start.
        line: the line of SKILL.md that it is about, counted from 1; None where it is about the archive.
    """

    def __init__(self, why: str, *, line: int | None = None) -> None:
        super().__init__(f"skill refused: {why}")
        self.why = why
        self.line = line
