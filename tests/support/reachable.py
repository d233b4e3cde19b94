"""What an ordinary user can reach of this checkout: tests that start as one need code that they may read."""

import importlib.util
import shutil
from pathlib import Path

__all__ = ["is_reachable_by_others", "reachable_python_path", "reachable_sources"]

TREE = Path(__file__).resolve().parents[2]


def is_reachable_by_others(path: Path) -> bool:
    """Tell whether every directory on the way may be passed, and the last part read, by anybody."""
    return all(part.stat().st_mode & (0o001 if part.is_dir() else 0o004) for part in (path, *path.parents))


def reachable_sources(place: Path) -> Path:
    """Return a directory holding `guardhouse` that anybody may read: this tree's, or a copy of it below ``place``."""
    if is_reachable_by_others(TREE / "src" / "guardhouse" / "__init__.py"):
        return TREE / "src"
    for name in ("src", "policies", "redaction", "sandbox"):
        _copy_for_others(TREE / name, place / name)
    return place / "src"


def reachable_python_path(place: Path) -> str:
    """Return a PYTHONPATH with `guardhouse` and every locked package, readable by anybody."""
    found = importlib.util.find_spec("msgspec")
    assert found is not None
    assert found.origin is not None
    library = Path(found.origin).resolve().parents[1]
    if not is_reachable_by_others(Path(found.origin)):
        _copy_for_others(library, place / "library")
        library = place / "library"
    return f"{reachable_sources(place)}:{library}"


def _copy_for_others(source: Path, target: Path) -> None:
    if target.exists():
        return
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
