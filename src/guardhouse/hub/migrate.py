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

__all__ = ["migrate_to_newest"]


def migrate_to_newest(connection: Connection) -> None:
    """Run the steps that ``connection``'s database lacks, in the caller's transaction.

    Raises:
        SetupError: the database is at a step that this version does not have.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    newest = script.get_current_head()
    if current == newest:
        return
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise SetupError(
            f"the database is at step {current!r}, which this version does not know (its newest is {newest!r});"
            " start the newer hub again, or restore the backup made before the upgrade"
        )
    command.upgrade(config, "head")
