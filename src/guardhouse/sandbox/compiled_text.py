"""The readable filters that are kept in `sandbox/compiled/`: written by hand never, compared always.

A change of a profile so shows as a diff in the data and in what came of it. Runs in the CLI and in a test.
"""

from pathlib import Path

from guardhouse.errors import SetupError
from guardhouse.sandbox.compile_process import process_rules
from guardhouse.sandbox.load import list_profiles, load_profile, read_library
from guardhouse.sandbox.rules import (
    ARCHITECTURES,
    FilterRules,
    permissible_tables,
    render_rules,
    resolve_rules,
    table_lines,
)

__all__ = ["check_compiled", "render_all", "write_compiled"]


def render_all(directory: Path) -> dict[str, str]:
    """Return file name -> text of the filter of every profile and process of ours on every architecture.

    Beside them, for each profile that starts programs, what it would permit of each foreign architecture that a profile
    extending it may name.
    """
    library = read_library(directory)
    texts: dict[str, str] = {}
    for name in list_profiles(directory):
        profile = load_profile(name, directory=directory, library=library)
        for architecture in ARCHITECTURES:
            rules = resolve_rules(profile, architecture=architecture)
            texts[f"{name}.{architecture}.txt"] = render_rules(rules)
            for table in permissible_tables(rules):
                texts[f"{name}.{table.architecture}.txt"] = _render_foreign(table)
    for name, process in library.processes.items():
        for architecture in ARCHITECTURES:
            texts[f"process_{name}.{architecture}.txt"] = render_rules(
                process_rules(process, architecture=architecture)
            )
    return texts


def _render_foreign(table: FilterRules) -> str:
    name = table.architecture
    lines = [
        f"calls of {name} that a profile has which extends {table.profile} and permits {name}",
        *table_lines(table),
        "",
    ]
    return "\n".join(lines)


def check_compiled(directory: Path) -> tuple[str, ...]:
    """Return what differs between ``directory/compiled`` and the profiles; nothing when all is well."""
    expected = render_all(directory)
    compiled = directory / "compiled"
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(compiled.glob("*.txt"))}
    wrong = [f"{name}: missing" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"{name}: belongs to no profile" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            wrong.append(f"{name}: {_first_difference(found[name], expected[name])}")
    return tuple(wrong)


def write_compiled(directory: Path) -> tuple[str, ...]:
    """Write every text anew, remove those of profiles that are gone; return the names that changed.

    Raises:
        SetupError: the directory cannot be written.
    """
    expected = render_all(directory)
    compiled = directory / "compiled"
    changed: list[str] = []
    try:
        compiled.mkdir(exist_ok=True)
        for path in sorted(compiled.glob("*.txt")):
            if path.name not in expected:
                path.unlink()
                changed.append(path.name)
        for name, text in expected.items():
            path = compiled / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                changed.append(name)
    except OSError as error:
        raise SetupError(f"cannot write {compiled}: {error}") from error
    return tuple(changed)


def _first_difference(found: str, expected: str) -> str:
    before, after = found.splitlines(), expected.splitlines()
    for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
        if old != new:
            return f"line {number} says {old!r}, the profile gives {new!r}"
    return f"has {len(before)} lines, the profile gives {len(after)}"
