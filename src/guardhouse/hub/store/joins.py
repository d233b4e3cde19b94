"""Join tokens and the keys that machines got for them.

Knows nothing of who may make one. Runs in the hub's store threads.
"""

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, delete, insert, or_, select, update

from guardhouse.hub.schema import join_tokens, runner_keys

__all__ = [
    "JoinTokenRecord",
    "RunnerKeyRecord",
    "delete_join_token",
    "delete_join_tokens_of",
    "end_runner_keys",
    "find_join_token",
    "find_runner_key",
    "insert_join_token",
    "insert_runner_key",
    "list_join_tokens",
    "list_runner_keys",
    "use_join_token",
]


class JoinTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A token that machines become environments with, ``uses_left`` times. Times are Unix ms.

    ``person_id`` is who made it, None for a token of the account; ``tags`` is a JSON list.
    """

    id: str
    digest: bytes
    name: str | None
    team_id: str | None
    tags: str
    uses_left: int
    created_ms: int
    created_by: str
    person_id: str | None
    expires_ms: int


class RunnerKeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a machine's key; ``expires_ms`` is None while it opens connections."""

    public_key: bytes
    environment_id: str
    join_token_id: str
    created_ms: int
    expires_ms: int | None


_JOIN = [join_tokens.c[name] for name in JoinTokenRecord.__struct_fields__]
_KEY = [runner_keys.c[name] for name in RunnerKeyRecord.__struct_fields__]


def insert_join_token(connection: Connection, record: JoinTokenRecord) -> None:
    """Store a new token and throw away those whose time is over."""
    connection.execute(delete(join_tokens).where(join_tokens.c.expires_ms <= record.created_ms))
    connection.execute(insert(join_tokens).values(**msgspec.structs.asdict(record)))


def list_join_tokens(connection: Connection, *, now_ms: int) -> list[JoinTokenRecord]:
    """Return the tokens that still work, oldest first."""
    query = select(*_JOIN).where(join_tokens.c.expires_ms > now_ms, join_tokens.c.uses_left > 0)
    rows = connection.execute(query.order_by(join_tokens.c.created_ms, join_tokens.c.id)).mappings()
    return [JoinTokenRecord(**row) for row in rows]


def find_join_token(
    connection: Connection, *, digest: bytes | None = None, token_id: str = ""
) -> JoinTokenRecord | None:
    """Return the token with this digest or id, used up and expired ones too, or None."""
    wanted = join_tokens.c.id == token_id if digest is None else join_tokens.c.digest == digest
    row = connection.execute(select(*_JOIN).where(wanted)).mappings().first()
    return JoinTokenRecord(**row) if row is not None else None


def use_join_token(connection: Connection, token_id: str, *, now_ms: int) -> bool:
    """Take one use; return whether there was one left in time."""
    return bool(
        connection.execute(
            update(join_tokens)
            .where(join_tokens.c.id == token_id, join_tokens.c.uses_left > 0, join_tokens.c.expires_ms > now_ms)
            .values(uses_left=join_tokens.c.uses_left - 1)
        ).rowcount
    )


def delete_join_token(connection: Connection, token_id: str) -> bool:
    """Delete a token; return whether it existed. Machines that joined with it stay."""
    return bool(connection.execute(delete(join_tokens).where(join_tokens.c.id == token_id)).rowcount)


def delete_join_tokens_of(connection: Connection, makers: Collection[str]) -> list[str]:
    """Delete the tokens that these (ids of API tokens) made, and return their ids."""
    mine = join_tokens.c.created_by.in_(makers)
    ids = list(connection.execute(select(join_tokens.c.id).where(mine)).scalars())
    connection.execute(delete(join_tokens).where(mine))
    return ids


def insert_runner_key(connection: Connection, record: RunnerKeyRecord) -> None:
    """Store a machine's public key."""
    connection.execute(insert(runner_keys).values(**msgspec.structs.asdict(record)))


def find_runner_key(connection: Connection, public_key: bytes) -> RunnerKeyRecord | None:
    """Return a key, or None."""
    row = connection.execute(select(*_KEY).where(runner_keys.c.public_key == public_key)).mappings().first()
    return RunnerKeyRecord(**row) if row is not None else None


def list_runner_keys(connection: Connection, *, now_ms: int) -> list[RunnerKeyRecord]:
    """Return every key that opens a connection."""
    query = select(*_KEY).where(or_(runner_keys.c.expires_ms.is_(None), runner_keys.c.expires_ms > now_ms))
    return [RunnerKeyRecord(**row) for row in connection.execute(query).mappings()]


def end_runner_keys(connection: Connection, environment_id: str, *, at_ms: int) -> None:
    """Let an environment's keys end at ``at_ms``, or earlier where that was said before."""
    connection.execute(
        update(runner_keys)
        .where(
            runner_keys.c.environment_id == environment_id,
            or_(runner_keys.c.expires_ms.is_(None), runner_keys.c.expires_ms > at_ms),
        )
        .values(expires_ms=at_ms)
    )
