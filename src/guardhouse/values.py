"""Words that more than one package speaks: one concept, one type. Imports nothing of ours."""

from enum import StrEnum

__all__ = ["Stream", "Verdict"]


class Verdict(StrEnum):
    """What a gate says of a command.

    ``UNDECIDED`` means that text alone cannot tell: gate two, at the exec, must; where there is no gate two it
    counts as ``DENY``.
    """

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    UNDECIDED = "undecided"


class Stream(StrEnum):
    """Which of a command's two output streams a chunk came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
