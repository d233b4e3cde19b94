"""What runners' heartbeats and the ends of their connections write into environment records.

Thousands come back at once after a hub's restart, so each of these is rendered once (`prepared`) or takes many at a
time. Runs in the hub's store threads.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, String, bindparam, cast, func, select, update

from guardhouse.hub.schema import environments
from guardhouse.hub.store.prepared import PreparedStatement

__all__ = ["HeartbeatFacts", "record_disconnect", "record_heartbeat", "record_heartbeats", "record_naming_heartbeat"]


class HeartbeatFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a heartbeat brings to the record; None leaves the stored value alone."""

    environment_id: str
    at_ms: int
    version: str | None = None
    protocol: str | None = None
    remote_address: str | None = None
    hostname: str | None = None
    machine: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None


_HEARTBEAT: Final = PreparedStatement(
    update(environments)
    .where(environments.c.id == bindparam("environment"))
    .values(
        last_heartbeat_ms=bindparam("at_ms"),
        first_seen_ms=func.coalesce(environments.c.first_seen_ms, bindparam("seen_ms")),
        **{
            name: func.coalesce(cast(bindparam(f"new_{name}"), String), environments.c[name])
            for name in ("version", "protocol", "remote_address", "machine", "metrics")
        },
    ),
    columns=(),
)
_DISCONNECT: Final = PreparedStatement(
    update(environments)
    .where(environments.c.id == bindparam("environment"))
    .values(disconnected_ms=bindparam("at_ms"), disconnect_reason=bindparam("reason")),
    columns=(),
)


def record_heartbeat(connection: Connection, facts: HeartbeatFacts) -> None:
    """Store all that a heartbeat says, except the hostname."""
    _HEARTBEAT.run(
        connection,
        environment=facts.environment_id,
        at_ms=facts.at_ms,
        seen_ms=facts.at_ms,
        new_version=facts.version,
        new_protocol=facts.protocol,
        new_remote_address=facts.remote_address,
        new_machine=_json(facts.machine),
        new_metrics=_json(facts.metrics),
    )


def record_naming_heartbeat(connection: Connection, facts: HeartbeatFacts) -> str | None:
    """Store what a heartbeat says; a blank name becomes the hostname. Return the name, None when the record is gone."""
    record_heartbeat(connection, facts)
    here = environments.c.id == facts.environment_id
    name: str | None = connection.execute(select(environments.c.name).where(here)).scalar_one_or_none()
    if name is None and facts.hostname:
        name = _free_name(connection, facts.hostname, facts.environment_id)
        connection.execute(update(environments).where(here).values(name=name))
    return name


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def record_heartbeats(connection: Connection, facts: list[HeartbeatFacts]) -> None:
    """Store many heartbeats that bring nothing but the time and the load."""
    connection.execute(
        update(environments)
        .where(environments.c.id == bindparam("environment"))
        .values(last_heartbeat_ms=bindparam("at_ms"), metrics=func.coalesce(bindparam("load"), environments.c.metrics)),
        [
            {
                "environment": one.environment_id,
                "at_ms": one.at_ms,
                "load": _json(one.metrics),
            }
            for one in facts
        ],
    )


def _free_name(connection: Connection, hostname: str, environment_id: str) -> str:
    """Return ``hostname``, or with the last eight letters of the id appended where that is in use (S10)."""
    hostname = hostname[:128]
    taken = connection.execute(select(environments.c.id).where(environments.c.name == hostname)).first()
    if taken is None:
        return hostname
    return f"{hostname[:119]}-{environment_id[-8:]}"


def record_disconnect(connection: Connection, environment_id: str, *, at_ms: int, reason: str) -> None:
    """Store when and why the runner's connection ended."""
    _DISCONNECT.run(connection, environment=environment_id, at_ms=at_ms, reason=reason)
