"""Policies and other texts read from files for `guardhouse policy`."""

from pathlib import Path

from guardhouse.errors import SetupError
from guardhouse.policy import Policy, load_policy
from guardhouse.runner.rules import decode_document, locate_policy

__all__ = ["read_policy", "read_text"]


def read_policy(name_or_path: str, *, with_examples: bool = True) -> Policy:
    """Load a policy by shipped name or path; what it includes is read beside it.

    Raises:
        PolicyError: the document is wrong; with file, line and column.
        SetupError: a file cannot be read.
    """
    path = locate_policy(name_or_path)
    return load_policy(
        read_text(path),
        name=name_or_path if "/" not in name_or_path else str(path),
        includes=lambda wanted: read_text(path.parent / wanted),
        with_examples=with_examples,
    )


def read_text(path: Path) -> str:
    """Read a UTF-8 file, or a pipe as of ``<(…)``; the ends of lines stay as they are, as the runner sees them.

    Raises:
        SetupError: it cannot be read or is not UTF-8.
    """
    try:
        return decode_document(path.read_bytes(), path)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; check the path and who may read it") from None
