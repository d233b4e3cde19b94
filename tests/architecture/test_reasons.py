"""Whoever silences a check, or catches more than errors, says why in the same line."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Behind one of these comes " - why" or "# why".
SILENCED = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z0-9, ]+)?|type: ignore(?:\[[a-z, -]+\])?|pragma: no cover)\s*(?P<rest>.*)$"
)
CATCHES_ALL = re.compile(r"^\s*except (?:BaseException|Exception)(?: as \w+)?:(?P<rest>.*)$")
REASON = re.compile(r"\s*(?:-|#(?!\s*(?:noqa|type:|pragma:)))\s*\S")


def without_reason(line: str) -> bool:
    """Tell whether ``line`` silences a check or catches everything, and does not say why."""
    found = SILENCED.search(line) or CATCHES_ALL.match(line)
    return found is not None and not REASON.search(found["rest"])


def test_every_exception_to_a_check_says_why() -> None:
    """`noqa`, `type: ignore`, `pragma: no cover` and `except BaseException` have a reason in their line."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in ("src", "tests", "fuzz", "bench", "demo", "packaging")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if without_reason(line)
    ]
    assert not found, "\n".join(found)


def test_the_check_can_fail() -> None:
    """A silenced line without a reason is found, one with a reason is not."""
    assert without_reason("x = 1  # noqa: E501")
    assert without_reason("x = f()  # type: ignore[arg-type]")
    assert without_reason("    except BaseException:")
    assert not without_reason("x = 1  # noqa: E501 - a table")
    assert not without_reason("x = f()  # type: ignore[arg-type]  # both are bytes")
    assert not without_reason("    except BaseException:  # closed whatever ends this")
