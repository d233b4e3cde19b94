"""Write everything that the store holds into a backup, from one consistent view, while the hub runs or not.

A dump of rows rather than a copy of the file or of ``pg_dump``: it needs no program of the server's version, can be
restored to the other kind of database, and a later version migrates it on the way in. Runs in `guardhouse hub backup`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from guardhouse import __version__
from guardhouse.errors import SetupError
from guardhouse.hub.backends import choose_backend
from guardhouse.hub.backup.archive import BackupHeader, Keys, Rows, TableStart, Writer, new_file
from guardhouse.hub.clock import now_ms
from guardhouse.hub.config import HubConfig
from guardhouse.hub.migrate import current_step, newest_step
from guardhouse.hub.schema import METADATA, store_holders
from guardhouse.hub.state_dir import StateDir

__all__ = ["BackupMade", "make_backup"]

# Output comes in pieces of up to 64 KiB: a frame of some megabytes at most.
ROWS_A_FRAME: Final = 100


@dataclass(frozen=True)
class BackupMade:
    """What was written: rows by table, the SHA-256 of its frames, whether it holds the keys, its size in bytes."""

    path: Path
    rows: dict[str, int]
    digest: str
    has_keys: bool
    size_bytes: int


def make_backup(config: HubConfig, path: Path, *, with_keys: bool) -> BackupMade:
    """Write the store of ``config`` to the new file ``path``.

    Raises:
        SetupError: there is no store, it is not at this version's step, or the file cannot be written.
    """
    state = StateDir(config.state_dir, -1)
    backend = choose_backend(state.database, config.database)
    if not backend.exists():
        raise SetupError(f"no hub's store is at {backend.label}; give the hub's --state-dir or --database")
    if with_keys and (state.next_audit_key_file.exists() or state.next_sealing_key_file.exists()):
        raise SetupError("a change of a key was cut short, so nobody knows which is in force; start the hub once")
    try:
        with backend.readers.begin() as connection:
            step = current_step(connection)
            if step != newest_step():
                raise SetupError(
                    f"the database is at step {step!r}, this version's is {newest_step()!r}: back it up with the"
                    " version that runs the hub"
                )
            with new_file(path) as file:
                writer = Writer(file)
                writer.write(BackupHeader(step=step, hub_version=__version__, made_ms=now_ms()))
                _write_tables(connection, writer)
                if with_keys:
                    writer.write(Keys(sealing=state.sealing_key(is_in_use=True), audit=state.audit_key()))
                digest = writer.end()
    except DBAPIError as error:
        raise SetupError(f"cannot read the database {backend.label}: {error.orig}") from error
    finally:
        backend.close()
    return BackupMade(path, writer.rows, digest.hex(), with_keys, path.stat().st_size)


def _write_tables(connection: Connection, writer: Writer) -> None:
    for table in METADATA.sorted_tables:
        if table is store_holders:
            continue
        writer.write(TableStart(name=str(table.name), columns=[str(column.name) for column in table.columns]))
        query = select(table).order_by(*table.primary_key.columns)
        with connection.execute(query, execution_options={"yield_per": ROWS_A_FRAME}) as found:
            for rows in found.partitions(ROWS_A_FRAME):
                writer.write(Rows(rows=[list(row) for row in rows]))
