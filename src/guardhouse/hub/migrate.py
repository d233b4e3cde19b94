"""Bring the database to the newest step; refuse one that a newer hub has written.

Knows the steps only through Alembic. Runs in the hub, at start, before anything is served.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from guardhouse.errors import SetupError

__all__ = ["current_step", "is_known_step", "migrate_to", "migrate_to_newest", "newest_step"]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def newest_step() -> str:
    """Return the newest step that this version has."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def is_known_step(step: str) -> bool:
    """Return whether this version has the step."""
    return step in {one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()}


def current_step(connection: Connection) -> str:
    """Return the step that ``connection``'s database is at; empty where none ran."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def migrate_to(connection: Connection, step: str) -> None:
    """Run the steps up to ``step``, which this version has, in the caller's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, step)


def migrate_to_newest(connection: Connection) -> None:
    """Run the steps that ``connection``'s database lacks, in the caller's transaction.

    Raises:
        SetupError: the database is at a step that this version does not have.
    """
    current, newest = current_step(connection), newest_step()
    if current == newest:
        return
    if current and not is_known_step(current):
        raise SetupError(
            f"the database is at step {current!r}, which this version does not know (its newest is {newest!r});"
            " start the newer hub again, or restore the backup made before the upgrade"
        )
    migrate_to(connection, newest)
