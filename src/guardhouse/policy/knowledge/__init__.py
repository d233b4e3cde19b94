"""Reviewed facts about programs and variables: which of them can start something that their own words do not show."""

from guardhouse.policy.knowledge.programs import is_known, why_starts_others
from guardhouse.policy.knowledge.tables import ESCAPES, HARMLESS, Escape
from guardhouse.policy.knowledge.variables import why_gates_miss

__all__ = ["ESCAPES", "HARMLESS", "Escape", "is_known", "why_gates_miss", "why_starts_others"]
