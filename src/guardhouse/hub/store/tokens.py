"""Runner tokens and API tokens: digests to look them up by, and for runner tokens a sealed copy.

Knows nothing of who may see them. Runs in the hub's store threads.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from guardhouse.hub.schema import ACCOUNT_ID, api_tokens, runner_tokens

__all__ = [
    "ApiTokenRecord",
    "RunnerTokenRecord",
    "count_api_tokens",
    "current_runner_token",
    "find_api_token",
    "insert_api_token",
    "insert_runner_token",
    "list_api_tokens",
    "list_runner_tokens",
    "reseal_runner_token",
    "revoke_api_token",
    "rotate_runner_tokens",
    "touch_api_tokens",
]


class RunnerTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One runner token; ``expires_ms`` is None for the current one. Times are Unix ms."""

    id: str
    environment_id: str
    digest: bytes
    sealed: bytes
    hint: str
    created_ms: int
    created_by: str
    expires_ms: int | None
    last_used_ms: int | None


class ApiTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One API token; the token itself is not stored. Times are Unix ms.

    ``person_id`` is whose it is, None for the account's own. ``environments`` (ids) and ``tags`` narrow it to those
    environments that are named or have one of the tags; None and None leave it all.
    """

    id: str
    name: str
    digest: bytes
    hint: str
    scopes: tuple[str, ...]
    created_ms: int
    created_by: str
    expires_ms: int | None
    revoked_ms: int | None
    last_used_ms: int | None
    person_id: str | None = None
    environments: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None


def insert_runner_token(connection: Connection, record: RunnerTokenRecord) -> None:
    """Store a new runner token."""
    connection.execute(insert(runner_tokens).values(**msgspec.structs.asdict(record)))


def reseal_runner_token(connection: Connection, token_id: str, *, sealed: bytes) -> None:
    """Store a runner token sealed under another key."""
    connection.execute(update(runner_tokens).where(runner_tokens.c.id == token_id).values(sealed=sealed))


def list_runner_tokens(connection: Connection, *, now_ms: int) -> list[RunnerTokenRecord]:
    """Return every runner token that still opens a connection, of all environments."""
    query = select(runner_tokens).where(runner_tokens.c.expires_ms.is_(None) | (runner_tokens.c.expires_ms > now_ms))
    return [RunnerTokenRecord(**row) for row in connection.execute(query).mappings()]


def current_runner_token(connection: Connection, environment_id: str) -> RunnerTokenRecord | None:
    """Return the environment's current token, not one that was rotated away."""
    query = (
        select(runner_tokens)
        .where(runner_tokens.c.environment_id == environment_id, runner_tokens.c.expires_ms.is_(None))
        .order_by(runner_tokens.c.created_ms.desc())
    )
    row = connection.execute(query).mappings().first()
    return RunnerTokenRecord(**row) if row is not None else None


def rotate_runner_tokens(
    connection: Connection, record: RunnerTokenRecord, *, overlap_until_ms: int, now_ms: int
) -> None:
    """Store ``record`` as the current token; the ones before end at ``overlap_until_ms``, expired ones go."""
    mine = runner_tokens.c.environment_id == record.environment_id
    connection.execute(delete(runner_tokens).where(mine, runner_tokens.c.expires_ms <= now_ms))
    connection.execute(
        update(runner_tokens)
        .where(mine, runner_tokens.c.expires_ms.is_(None) | (runner_tokens.c.expires_ms > overlap_until_ms))
        .values(expires_ms=overlap_until_ms)
    )
    insert_runner_token(connection, record)


def insert_api_token(connection: Connection, record: ApiTokenRecord) -> None:
    """Store a new API token."""
    values: dict[str, Any] = msgspec.structs.asdict(record)
    values["scopes"] = " ".join(record.scopes)
    for name in ("environments", "tags"):
        values[name] = None if values[name] is None else msgspec.json.encode(values[name]).decode()
    connection.execute(insert(api_tokens).values(account_id=ACCOUNT_ID, **values))


def list_api_tokens(connection: Connection) -> list[ApiTokenRecord]:
    """Return every API token, revoked and expired ones too, oldest first."""
    columns = [api_tokens.c[name] for name in ApiTokenRecord.__struct_fields__]
    rows: Sequence[Any] = (
        connection.execute(select(*columns).order_by(api_tokens.c.created_ms, api_tokens.c.id)).mappings().all()
    )
    return [
        ApiTokenRecord(
            **{
                **row,
                "scopes": tuple(row["scopes"].split()),
                "environments": _names(row["environments"]),
                "tags": _names(row["tags"]),
            }
        )
        for row in rows
    ]


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(msgspec.json.decode(text, type=list[str]))


def touch_api_tokens(connection: Connection, used_ms: dict[str, int]) -> None:
    """Store when tokens were used last."""
    for token_id, at_ms in used_ms.items():
        connection.execute(update(api_tokens).where(api_tokens.c.id == token_id).values(last_used_ms=at_ms))


def find_api_token(connection: Connection, token_id: str) -> ApiTokenRecord | None:
    """Return the API token with this id, revoked ones too, or None."""
    return next((record for record in list_api_tokens(connection) if record.id == token_id), None)


def count_api_tokens(connection: Connection) -> int:
    """Return how many API tokens there ever were: none means a hub that was never started."""
    return len(connection.execute(select(api_tokens.c.id).limit(1)).all())


def revoke_api_token(connection: Connection, token_id: str, *, at_ms: int) -> bool:
    """Revoke a token; return whether there was one to revoke."""
    return bool(
        connection.execute(
            update(api_tokens)
            .where(api_tokens.c.id == token_id, api_tokens.c.revoked_ms.is_(None))
            .values(revoked_ms=at_ms)
        ).rowcount
    )
