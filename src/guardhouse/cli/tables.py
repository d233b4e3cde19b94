"""Tables for people: as wide as the terminal, with nothing in them that a terminal would obey.

Knows no command. Runs in the `guardhouse` command.
"""

import shutil
import sys
from collections.abc import Sequence

import click

__all__ = ["plain_text", "print_facts", "print_table"]


def plain_text(value: object) -> str:
    """Return ``value`` as one line of printable text: control and invisible characters become escapes."""
    text = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, flexible: int) -> None:
    """Print ``rows`` under ``headings``; on a terminal the column ``flexible`` gives way until the line fits."""
    cells = [[plain_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    if sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
        if over > 0:
            widths[flexible] = max(8, widths[flexible] - over)
    for line in [[heading.upper() for heading in headings], *cells]:
        shown = [_fit(cell, width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(shown).rstrip())


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values in two columns, leaving out what is unknown."""
    known = [(name, plain_text(value)) for name, value in facts if value not in (None, "")]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{name.ljust(width)}  {value}")
