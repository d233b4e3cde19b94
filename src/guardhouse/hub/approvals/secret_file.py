"""Secrets of notifications: each in a file of its own. Runs in the hub, at start."""

from pathlib import Path

from guardhouse.errors import SetupError

__all__ = ["read_secret"]


def read_secret(path: Path, flag: str) -> str:
    """Return what a file holds, without the blanks around it.

    Raises:
        SetupError: it cannot be read; the text names ``flag``.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"cannot read {flag} {str(path)!r}: {error}") from error
