"""Where the shipped `policies/`, `redaction/` and `sandbox/` are: beside the source tree, or in the installed wheel.

Runs wherever configuration is read. Reads no content and knows none of its meaning.
"""

from pathlib import Path

from guardhouse.errors import SetupError

__all__ = ["shipped_directory"]

_PACKAGE = Path(__file__).resolve().parent


def shipped_directory(name: str) -> Path:
    """Return the directory of shipped data called ``name`` (``policies``, ``redaction``, ``sandbox``).

    An installed wheel carries it as ``guardhouse/_data/<name>`` (pyproject.toml, force-include); an editable
    install or a checkout has it at the top of the tree.

    Raises:
        SetupError: neither place has it, so the installation is not whole.
    """
    candidates = (_PACKAGE / "_data" / name, _PACKAGE.parent.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    tried = ", ".join(str(c) for c in candidates)
    raise SetupError(f"shipped data {name!r} is missing (looked in {tried}); reinstall guardhouse")
