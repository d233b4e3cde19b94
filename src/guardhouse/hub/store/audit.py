"""Who did what: one record for each deed, written in the transaction of the deed itself, chained to the one before.

`guardhouse.hub.audit.chain` says what a record is. Knows nothing of who may read it, and nothing of keys. Runs in the
hub's store threads.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, or_, select

from guardhouse.hub.audit.chain import GENESIS, AuditRecord, AuditSigner, Checkpoint, canonical_json, link_hash
from guardhouse.hub.database import NEWS
from guardhouse.hub.schema import ACCOUNT_ID, audit_checkpoints, audit_events, audit_positions
from guardhouse.hub.store.prepared import PreparedStatement, run_text

__all__ = [
    "AuditSearch",
    "executed_text",
    "iter_audit_records",
    "last_checkpoint",
    "list_audit_events",
    "list_audit_page",
    "list_checkpoints",
    "read_audit_head",
    "read_position",
    "record_audit_event",
    "record_executed",
    "store_checkpoint",
    "store_position",
]

# What one record keeps of what ran; the task's result has the whole, and the record says what was left out.
EXECUTED_MAX_CHARS: Final = 64 * 1024

_INSERT: Final = PreparedStatement(insert(audit_events), columns=list(AuditRecord.__struct_fields__))
_COLUMNS: Final = [audit_events.c[name] for name in AuditRecord.__struct_fields__]
# By text: it runs before every record, and the expression would cost several times what it takes.
_HEAD: Final = "SELECT seq, hash FROM audit_events ORDER BY seq DESC LIMIT 1"
# Where in `Connection.info` a transaction leaves itself and the head that it has written.
_WRITTEN: Final = "guardhouse_audit_head"


class AuditSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted; None asks for all. ``text`` is looked for in what was asked, ran and is in detail."""

    actor: str | None = None
    actors: tuple[str, ...] | None = None
    action: str | None = None
    target: str | None = None
    environment: str | None = None
    task: str | None = None
    command: str | None = None
    executed: str | None = None
    text: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


def read_audit_head(connection: Connection) -> tuple[int, bytes]:
    """Return number and hash of the last record; 0 and the genesis when there is none."""
    row = run_text(connection, _HEAD).fetchone()
    return (row[0], bytes(row[1])) if row is not None else (0, GENESIS)


def _head_to_follow(connection: Connection) -> tuple[int, bytes]:
    """Return the head, without asking the store where this very transaction has written it."""
    transaction, seq, hash_ = connection.info.get(_WRITTEN, (None, 0, GENESIS))
    # Another transaction's may have been rolled back; the object is kept, so no later one can be taken for it.
    if transaction is not None and transaction is connection.get_transaction():
        return seq, hash_
    return read_audit_head(connection)


def record_audit_event(
    connection: Connection,
    *,
    at_ms: int,
    actor: str,
    action: str,
    target: str | None,
    address: str | None,
    environment: str | None = None,
    task: str | None = None,
    command: str | None = None,
    executed: str | None = None,
    seq: int | None = None,
    **detail: object,
) -> int:
    """Store one deed and return its number; call it in the transaction of the deed.

    Args:
        actor: the id of a token or a person, ``runner``, ``hub`` or ``anonymous``.
        action: ``noun.verb``, as docs/hub.md lists them.
        target: the id of what it was done to.
        environment, task: ids; both can be searched for.
        command: the whole command text that it is about.
        executed: what really ran, one program a line (`executed_text`).
        seq: a number to jump to, for the record that says that some were lost.
        detail: further facts, as JSON; never a secret.
    """
    last, previous = _head_to_follow(connection)
    record = AuditRecord(
        seq=seq if seq is not None else last + 1,
        account_id=ACCOUNT_ID,
        at_ms=at_ms,
        actor=actor,
        action=action,
        target=_storable(target),
        address=_storable(address),
        environment=_storable(environment),
        task=_storable(task),
        command=_storable(command),
        executed=_storable(executed),
        detail=canonical_json(detail),
        hash=b"",
    )
    record = msgspec.structs.replace(record, hash=link_hash(previous, record.body()))
    _INSERT.run(connection, **msgspec.structs.asdict(record))
    connection.info[_WRITTEN] = (connection.get_transaction(), record.seq, record.hash)
    connection.info[NEWS] = record.seq
    return record.seq


def _storable(text: str | None) -> str | None:
    """Return ``text`` as every store keeps it unchanged: no lone surrogates, and no NUL, which PostgreSQL refuses."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def executed_text(argvs: list[list[str]] | list[tuple[str, ...]], *, left_out: int = 0) -> str:
    """Return programs as `record_audit_event` keeps them: one a line, words quoted as a shell needs them."""
    lines: list[str] = []
    size = 0
    for index, words in enumerate(argvs):
        line = " ".join(_quoted(word) for word in words)
        if size + len(line) > EXECUTED_MAX_CHARS:
            left_out += len(argvs) - index
            break
        lines.append(line)
        size += len(line) + 1
    if left_out:
        lines.append(f"[and {left_out} more programs]")
    return "\n".join(lines)


def _quoted(word: str) -> str:
    if word and all(letter.isalnum() or letter in "@%+=:,./-_" for letter in word):
        return word
    # Not shlex: a newline would break "one program a line".
    return "'" + word.replace("\\", "\\\\").replace("\n", "\\n").replace("'", "'\\''") + "'"


def record_executed(
    connection: Connection,
    *,
    at_ms: int,
    environment: str,
    task: str,
    command: str | None,
    execs: dict[str, Any],
    policies: dict[str, Any] | None = None,
) -> int | None:
    """Store what a task's command really ran (``execs`` as docs/exec_gate.md has it); None where nothing did.

    For whoever learns of execs before or without a task's result; a result's own are recorded with it.
    """
    ran, refused = _programs(execs.get("ran")), _programs(execs.get("refused"))
    if not ran and not refused:
        return None
    left_out = execs.get("left_out")
    return record_audit_event(
        connection,
        at_ms=at_ms,
        actor="runner",
        action="task.exec",
        target=task,
        address=None,
        environment=environment,
        task=task,
        command=command,
        executed=executed_text(
            [words for words, _ in (*ran, *refused)], left_out=left_out if isinstance(left_out, int) else 0
        ),
        policies=policies,
        ran=len(ran),
        refused=[{"argv": words, "because": because} for words, because in refused[:100]],
    )


def _programs(found: object) -> list[tuple[list[str], str]]:
    """Return argv and reason of each program of a runner's list, whatever else it may hold."""
    programs: list[tuple[list[str], str]] = []
    for one in found if isinstance(found, list) else []:
        words = one.get("argv") if isinstance(one, dict) else None
        if isinstance(words, list):
            because = one.get("because")
            programs.append(([str(word) for word in words], because[:1_024] if isinstance(because, str) else ""))
    return programs


def _where(search: AuditSearch) -> list[Any]:
    columns = audit_events.c
    wanted: list[Any] = []
    for name in ("actor", "action", "target", "environment", "task"):
        value = getattr(search, name)
        if value is not None:
            column = columns[name]
            wanted.append(column.startswith(value, autoescape=True) if name == "action" else column == value)
    if search.actors is not None:
        wanted.append(columns.actor.in_(search.actors))
    for name in ("command", "executed"):
        value = getattr(search, name)
        if value is not None:
            wanted.append(columns[name].icontains(value, autoescape=True))
    if search.text is not None:
        wanted.append(
            or_(*(columns[name].icontains(search.text, autoescape=True) for name in ("command", "executed", "detail")))
        )
    if search.since_ms is not None:
        wanted.append(columns.at_ms >= search.since_ms)
    if search.until_ms is not None:
        wanted.append(columns.at_ms < search.until_ms)
    return wanted


def list_audit_events(
    connection: Connection, *, before: int | None, limit: int, search: AuditSearch | None = None
) -> list[AuditRecord]:
    """Return up to ``limit`` deeds older than sequence number ``before``, newest first."""
    query = select(*_COLUMNS).where(*_where(search or AuditSearch()))
    if before is not None:
        query = query.where(audit_events.c.seq < before)
    rows = connection.execute(query.order_by(audit_events.c.seq.desc()).limit(limit)).mappings()
    return [AuditRecord(**row) for row in rows]


def iter_audit_records(connection: Connection, *, after: int = 0, until: int | None = None) -> Iterator[AuditRecord]:
    """Yield the records behind number ``after``, up to ``until``, oldest first."""
    query = select(*_COLUMNS).where(audit_events.c.seq > after).order_by(audit_events.c.seq)
    if until is not None:
        query = query.where(audit_events.c.seq <= until)
    with connection.execute(query, execution_options={"yield_per": 500}) as rows:
        for row in rows.mappings():
            yield AuditRecord(**row)


def list_audit_page(connection: Connection, *, after: int, limit: int) -> list[AuditRecord]:
    """Return up to ``limit`` records behind number ``after``, oldest first."""
    query = select(*_COLUMNS).where(audit_events.c.seq > after).order_by(audit_events.c.seq).limit(limit)
    return [AuditRecord(**row) for row in connection.execute(query).mappings()]


def list_checkpoints(connection: Connection, *, after: int = 0, until: int | None = None) -> list[Checkpoint]:
    """Return the checkpoints of records behind ``after``, up to ``until``, oldest first."""
    columns = [audit_checkpoints.c[name] for name in Checkpoint.__struct_fields__]
    query = select(*columns).where(audit_checkpoints.c.seq > after).order_by(audit_checkpoints.c.seq)
    if until is not None:
        query = query.where(audit_checkpoints.c.seq <= until)
    return [Checkpoint(**row) for row in connection.execute(query).mappings()]


def last_checkpoint(connection: Connection) -> Checkpoint | None:
    """Return the newest checkpoint, or None."""
    columns = [audit_checkpoints.c[name] for name in Checkpoint.__struct_fields__]
    row = (
        connection.execute(select(*columns).order_by(audit_checkpoints.c.seq.desc()).limit(1)).mappings().one_or_none()
    )
    return Checkpoint(**row) if row is not None else None


def store_checkpoint(connection: Connection, signer: AuditSigner, *, at_ms: int) -> Checkpoint | None:
    """Sign and store where the chain stands; None where nothing was recorded since the last one."""
    seq, hash_ = read_audit_head(connection)
    before = last_checkpoint(connection)
    if seq == 0 or (before is not None and before.seq >= seq):
        return None
    made = signer.checkpoint(seq=seq, at_ms=at_ms, hash_=hash_, previous=before)
    connection.execute(insert(audit_checkpoints).values(**msgspec.structs.asdict(made)))
    return made


def read_position(connection: Connection, name: str) -> int | None:
    """Return up to which record ``name`` has forwarded; None when it never has."""
    query = select(audit_positions.c.seq).where(audit_positions.c.name == name)
    found: int | None = connection.execute(query).scalar_one_or_none()
    return found


def store_position(connection: Connection, name: str, seq: int) -> None:
    """Store up to which record ``name`` has forwarded."""
    changed = connection.execute(
        audit_positions.update().where(audit_positions.c.name == name).values(seq=seq)
    ).rowcount
    if not changed:
        connection.execute(insert(audit_positions).values(name=name, seq=seq))
