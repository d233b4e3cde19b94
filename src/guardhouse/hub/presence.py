"""Pending, online or offline, with the sentence that says why. Computed when somebody looks, never stored.

Pure: the record, what is connected now and the clock in, the status out. Runs in the hub.
"""

from dataclasses import dataclass
from typing import Literal

from guardhouse import limits
from guardhouse.hub.clock import relative_time
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = ["ConnectedInstance", "Presence", "decide_presence"]


@dataclass(frozen=True, kw_only=True)
class ConnectedInstance:
    """The runner that is connected now. Times are Unix ms; ``last_heartbeat_ms`` is None before the first."""

    connected_ms: int
    remote_address: str | None
    protocol: Literal["guardhouse.v1", "plain"]
    last_heartbeat_ms: int | None
    tasks_in_flight: int
    draining: bool


@dataclass(frozen=True)
class Presence:
    """A status and its reason. Only an online environment can be given work."""

    status: Literal["pending", "online", "offline"]
    reason: str
    last_heartbeat_ms: int | None


def decide_presence(
    record: EnvironmentRecord, instance: ConnectedInstance | None, *, now_ms: int, hub_started_ms: int
) -> Presence:
    """Return the status of ``record`` at ``now_ms``, with ``instance`` connected or None.

    Source: the seed's table of Pending, Online, Offline; 90 s is `limits.OFFLINE_AFTER_S`.
    """
    last_ms = record.last_heartbeat_ms
    if instance is not None and instance.last_heartbeat_ms is not None:
        last_ms = instance.last_heartbeat_ms
    if instance is not None:
        silent_s = (now_ms - (instance.last_heartbeat_ms or instance.connected_ms)) / 1000
        if silent_s >= limits.OFFLINE_AFTER_S:
            return Presence("offline", f"connected, but no heartbeat for {silent_s:.0f} s", last_ms)
        if instance.last_heartbeat_ms is None:
            status: Literal["pending", "offline"] = "pending" if record.first_seen_ms is None else "offline"
            return Presence(status, "connected, the first heartbeat has not come yet", last_ms)
        ago = relative_time(instance.last_heartbeat_ms, now=now_ms)
        return Presence("online", f"connected, last heartbeat {ago}", last_ms)
    if record.first_seen_ms is None:
        return Presence("pending", "no runner has connected with this environment's token yet", None)
    ago = relative_time(last_ms, now=now_ms)
    if (record.disconnected_ms or 0) >= hub_started_ms:
        ended = relative_time(record.disconnected_ms, now=now_ms)
        why = record.disconnect_reason or "the connection ended"
        return Presence("offline", f"disconnected {ended} ({why}); last heartbeat {ago}", last_ms)
    since_s = (now_ms - hub_started_ms) / 1000
    if since_s < limits.OFFLINE_AFTER_S:
        return Presence(
            "offline",
            f"the hub started {since_s:.0f} s ago and the runner is not back yet; last heartbeat {ago}",
            last_ms,
        )
    return Presence("offline", f"not connected since the hub started; last heartbeat {ago}", last_ms)
