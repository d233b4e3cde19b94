"""Put a backup where no store is yet: read to its end, written in one transaction, verified before it counts.

A backup of an earlier version is put into the tables of its own step and migrated from there. Runs in
`guardhouse hub restore`, while no hub runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from guardhouse import __version__
from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import AuditRecord, AuditSigner, Checkpoint
from guardhouse.hub.audit.verify import AuditSource, Report, verify
from guardhouse.hub.backends import SqliteBackend, choose_backend
from guardhouse.hub.backup.archive import BackupHeader, End, Keys, Rows, TableStart, read_frames
from guardhouse.hub.clock import now_ms
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import Sealer
from guardhouse.hub.migrate import is_known_step, migrate_to, migrate_to_newest
from guardhouse.hub.schema import METADATA
from guardhouse.hub.state_dir import StateDir, write_secret_file
from guardhouse.hub.store import audit, tokens

__all__ = ["Restored", "restore_backup"]


@dataclass(frozen=True)
class Restored:
    """What was put in place: the backup's header, rows by table, and what the audit log's verification said."""

    header: BackupHeader
    rows: dict[str, int]
    audit: Report


@dataclass(frozen=True)
class _Checked:
    header: BackupHeader
    end: End
    keys: Keys | None


def restore_backup(config: HubConfig, path: Path, *, accept_broken_audit: bool = False) -> Restored:
    """Put the backup ``path`` into the empty store of ``config``.

    Raises:
        SetupError: the backup is none, damaged or newer; a store is there; a key is missing or another's; the audit log
            does not verify. Nothing was put in place then.
    """
    checked = _read_whole(path)
    state = StateDir.open(config.state_dir)
    try:
        target = choose_backend(state.database, config.database)
        if target.exists():
            raise SetupError(
                f"a store is at {target.label} already; a restore never overwrites: move it away (with audit.head, if"
                " the backup's state is to count from here on), or give another --state-dir or --database"
            )
        target.close()
        placed = _place_keys(state, checked.keys, path)
        building = state.path / "hub.db.restoring"
        _remove_sqlite(building)
        backend = SqliteBackend(building) if config.database is None else choose_backend(building, config.database)
        is_filled = False
        try:
            connection = backend.connect_writer()
            with connection, connection.begin():
                report = _fill(connection, path, checked, state, accept_broken_audit=accept_broken_audit)
                head = audit.last_checkpoint(connection)
            is_filled = True
        except DBAPIError as error:
            raise SetupError(f"cannot write the database {backend.label}: {error.orig}") from error
        finally:
            backend.close()
            if config.database is not None or not is_filled:
                _remove_sqlite(building)
            if not is_filled:
                for file in placed:
                    file.unlink()
        # An audit.head that is there is newer than the backup: the next start then records the hole.
        if head is not None and not state.audit_head.exists():
            write_secret_file(state.audit_head, msgspec.json.encode(head))
        if config.database is None:
            state.adopt_database(building)
    finally:
        state.close()
    return Restored(checked.header, checked.end.rows, report)


def _read_whole(path: Path) -> _Checked:
    """Read the backup to its end before anything is touched."""
    header: BackupHeader | None = None
    keys: Keys | None = None
    end: End | None = None
    for frame in read_frames(path):
        if isinstance(frame, BackupHeader):
            header = frame
        elif isinstance(frame, Keys):
            keys = frame
        elif isinstance(frame, End):
            end = frame
    if header is None or end is None:
        raise SetupError(f"backup {str(path)!r} is cut off; take another copy of it")
    if not is_known_step(header.step):
        raise SetupError(
            f"backup {str(path)!r} was made by guardhouse {header.hub_version} at step {header.step!r}, which this"
            f" version ({__version__}) does not know; restore it with that version or a later one"
        )
    return _Checked(header, end, keys)


def _place_keys(state: StateDir, keys: Keys | None, path: Path) -> list[Path]:
    """Put the backup's keys where there are none, and return the files that were made; all of them, or none."""
    missing: list[tuple[Path, bytes]] = []
    for name, key in (
        ("sealing.key", None if keys is None else keys.sealing),
        ("audit.key", None if keys is None else keys.audit),
    ):
        file = state.path / name
        if key is None:
            if not file.exists():
                raise SetupError(
                    f"backup {str(path)!r} holds no keys and {str(file)!r} is missing: put {name} of that hub there"
                    " (0600), from where its keys are kept"
                )
        elif not file.exists():
            missing.append((file, key))
        elif file.read_bytes() != key:
            raise SetupError(f"{str(file)!r} is another key than the backup's; move it away first")
    for file, key in missing:
        write_secret_file(file, key)
    return [file for file, _ in missing]


def _fill(
    connection: Connection, path: Path, checked: _Checked, state: StateDir, *, accept_broken_audit: bool
) -> Report:
    migrate_to(connection, checked.header.step)
    for name in reversed([table.name for table in METADATA.sorted_tables]):
        if sa.inspect(connection).has_table(name):
            connection.execute(sa.delete(sa.table(name)))
    table = None
    for frame in read_frames(path):
        if isinstance(frame, TableStart):
            table = sa.table(frame.name, *(sa.column(name) for name in frame.columns))
            columns = frame.columns
        elif isinstance(frame, Rows) and table is not None and frame.rows:
            try:
                rows = [dict(zip(columns, row, strict=True)) for row in frame.rows]
                connection.execute(sa.insert(table), rows)
            except DBAPIError:
                raise
            except (ValueError, SQLAlchemyError) as error:
                reason = str(error).splitlines()[0]
                raise SetupError(
                    f"backup {str(path)!r} does not fit table {table.name!r} of step {checked.header.step}: {reason};"
                    " another backup may be whole"
                ) from error
    migrate_to_newest(connection)
    _set_sequences(connection)
    _check_sealing_key(connection, state)
    signer = AuditSigner(state.audit_key())
    report = _verify(connection, signer)
    last = audit.last_checkpoint(connection)
    if last is not None and last.key_id != signer.key_id and not accept_broken_audit:
        raise SetupError(
            f"the audit log in the backup was signed with key {last.key_id} last, and audit.key is {signer.key_id}: put"
            " the audit.key of that time there, since each backup belongs to the keys that the hub had then; where it"
            " is lost for good, --accept-broken-audit goes on with this one, and every verification says so"
        )
    # A gap that the hub itself recorded is part of the log's history, and no fault of this backup.
    broken = [one for one in report.problems if one.kind != "gap"]
    if broken and not accept_broken_audit:
        raise SetupError(
            f"the audit log in the backup does not verify: {broken[0].text}"
            f"{f' (and {report.problem_count - 1} more)' if report.problem_count > 1 else ''}; another backup may be"
            " whole, or say --accept-broken-audit"
        )
    audit.record_audit_event(
        connection,
        at_ms=now_ms(),
        actor="hub",
        action="hub.restore",
        target=None,
        address=None,
        backup_sha256=checked.end.digest.hex(),
        backup_made_ms=checked.header.made_ms,
        backup_version=checked.header.hub_version,
        audit_is_good=not broken,
    )
    audit.store_checkpoint(connection, signer, at_ms=now_ms())
    return report


def _set_sequences(connection: Connection) -> None:
    """Let PostgreSQL number on behind what was put in; SQLite does by itself."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "SELECT setval(pg_get_serial_sequence('task_output', 'seq'),"
            " GREATEST((SELECT MAX(seq) FROM task_output), 1))"
        )


def _check_sealing_key(connection: Connection, state: StateDir) -> None:
    sealer = Sealer(state.sealing_key(is_in_use=True))
    for record in tokens.list_runner_tokens(connection, now_ms=0)[:1]:
        sealer.open(record.sealed, owner=f"{record.environment_id}/{record.id}")


def _verify(connection: Connection, signer: AuditSigner) -> Report:
    def records() -> Iterator[AuditRecord]:
        return audit.iter_audit_records(connection)

    checkpoints: list[Checkpoint] = audit.list_checkpoints(connection)
    return verify(AuditSource(records=records, checkpoints=checkpoints), signer.public_key, is_pinned=True)


def _remove_sqlite(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
