"""`guardhouse version`: what is installed and what it runs on, for people and for bug reports."""

import importlib.metadata
import json
import platform

import click

from guardhouse import __version__

__all__ = ["version"]

_REPORTED = ("trio", "trio-websocket", "bashlex", "google-re2", "cryptography", "starlette", "hypercorn", "sqlalchemy")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def version(*, as_json: bool) -> None:
    """Print the version, the interpreter, the kernel and the libraries that matter in a bug report."""
    facts = {
        "guardhouse": __version__,
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }
    libraries = {name: importlib.metadata.version(name) for name in _REPORTED}
    if as_json:
        click.echo(json.dumps({**facts, "libraries": libraries}))
        return
    click.echo(f"guardhouse {__version__}")
    for name, value in list(facts.items())[1:]:
        click.echo(f"{name:14} {value}")
    for name, value in libraries.items():
        click.echo(f"{name:14} {value}")
