"""Pending, online, degraded, draining or offline, and the sentence that says why: computed when somebody looks.

Never stored. Pure: the record, what is connected now and the clock in, the status out. Runs in the hub.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from guardhouse import limits
from guardhouse.hub.clock import relative_time
from guardhouse.hub.condition import Condition, Vitals, decide_conditions
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = ["SELECTABLE", "ConnectedInstance", "Presence", "Status", "decide_presence", "live_status"]

Status = Literal["pending", "online", "degraded", "draining", "offline"]
# Those that can be given work (S26, S198: a degraded one may be chosen).
SELECTABLE: Final = frozenset({"online", "degraded"})


@dataclass(frozen=True, kw_only=True)
class ConnectedInstance:
    """The runner that is connected now. Times are Unix ms; ``last_heartbeat_ms`` is None before the first."""

    connected_ms: int
    remote_address: str | None
    protocol: Literal["guardhouse.v1", "plain"]
    last_heartbeat_ms: int | None
    tasks_in_flight: int
    draining: bool
    vitals: Vitals = field(default_factory=Vitals)


@dataclass(frozen=True)
class Presence:
    """A status and its reason. Only an online or degraded environment can be given work.

    ``conditions`` are what is wrong with the connected runner, also where they do not decide the status.
    """

    status: Status
    reason: str
    last_heartbeat_ms: int | None
    conditions: tuple[Condition, ...] = ()

    @property
    def is_selectable(self) -> bool:
        """Whether it can be given work."""
        return self.status in SELECTABLE


def live_status(instance: ConnectedInstance, *, now_ms: int) -> Literal["online", "degraded", "offline"]:
    """Return the status of a connected runner as far as its connection tells: nothing of drains, which a record has."""
    last_ms = instance.last_heartbeat_ms
    if last_ms is None or now_ms - last_ms >= limits.OFFLINE_AFTER_S * 1000:
        return "offline"
    return "degraded" if any(one.degrades for one in decide_conditions(instance.vitals, now_ms=now_ms)) else "online"


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
        return _connected(record, instance, instance.last_heartbeat_ms, now_ms=now_ms)
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


def _connected(record: EnvironmentRecord, instance: ConnectedInstance, beat_ms: int, *, now_ms: int) -> Presence:
    """Return the status of a runner that is connected and beats."""
    conditions = decide_conditions(instance.vitals, now_ms=now_ms)
    if record.drain_ms is not None or instance.draining:
        running = instance.tasks_in_flight
        left = f"{running} task{'' if running == 1 else 's'} still run" if running else "nothing runs any more"
        if record.drain_ms is None:
            reason = f"the runner shuts down and takes no new tasks; {left}"
        else:
            since = relative_time(record.drain_ms, now=now_ms)
            why = f" ({record.drain_reason})" if record.drain_reason else ""
            reason = f"draining since {since}, set by {record.drain_by}{why}: takes no new tasks; {left}"
        return Presence("draining", reason, beat_ms, conditions)
    degrading = [one.text for one in conditions if one.degrades]
    if degrading:
        return Presence("degraded", f"usable, answers may be slow: {'; '.join(degrading)}", beat_ms, conditions)
    return Presence("online", f"connected, last heartbeat {relative_time(beat_ms, now=now_ms)}", beat_ms, conditions)
