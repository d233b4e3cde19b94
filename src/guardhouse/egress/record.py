"""What is written down of a command's connections: a bounded list, its sums, and what was left out.

Refused connections have a share of the list to themselves, so that a flood of allowed ones cannot push them out, nor
the reverse. Pure.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from guardhouse.limits import EGRESS_RECORD_TEXT_MAX_CHARS, EGRESS_RECORDS_MAX

__all__ = ["EgressLedger", "EgressRecord", "refused_lines"]

_REFUSALS_SHOWN: Final = 5


@dataclass(slots=True, kw_only=True)
class EgressRecord:
    """One connection, or one request of a kept-alive connection.

    Attributes:
        protocol: ``connect``, ``http``, ``socks5``, or ``unknown`` for what spoke none of them.
        host: as it was asked for, in normal form; "" where there was none.
        address: that was connected to; "" when nothing was.
        url: of a plain HTTP request, method first; else "".
        verdict: ``allow`` or ``deny``.
        code: why it was refused or failed, in one word (`rules.EgressRefused`; ``failed`` where the target broke off,
            ``ended`` where the command did); "" when all went well.
        reason: the entry that let it pass, or why not.
        started_s: seconds since the command was started.
        bytes_up: from the command to the target; likewise ``bytes_down``. Of HTTP the bodies alone.
        status: of the origin's answer to a plain HTTP request; else 0.
        end: ``closed``, ``reset``, ``idle``, ``command ended``; "" for what never began.
        shadow: what a policy that decides nothing would have said, where that differs from the rules; else "".
    """

    protocol: str
    host: str
    port: int
    address: str = ""
    url: str = ""
    verdict: str = "deny"
    code: str = ""
    reason: str = ""
    started_s: float = 0.0
    duration_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    status: int = 0
    end: str = ""
    shadow: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain data, texts clipped and marked where they were."""
        return {
            name: round(value, 6) if isinstance(value, float) else _clipped(value)
            for name in type(self).__slots__
            for value in [getattr(self, name)]
        }


@dataclass(slots=True)
class EgressLedger:
    """Every connection of one command."""

    connections: list[EgressRecord] = field(default_factory=list)
    allowed: int = 0
    refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    left_out: int = 0

    def add(self, record: EgressRecord) -> bool:
        """Take in a connection that is over; return whether the list had room for it."""
        if record.verdict == "allow":
            self.allowed += 1
            count = self.allowed
        else:
            self.refused += 1
            count = self.refused
        self.bytes_up += record.bytes_up
        self.bytes_down += record.bytes_down
        if count > EGRESS_RECORDS_MAX:
            self.left_out += 1
            return False
        self.connections.append(record)
        return True

    def as_json(self) -> dict[str, Any]:
        """Return the ``egress`` of a command's result; docs/egress.md names every key."""
        return {
            "connections": [record.as_json() for record in self.connections],
            "allowed": self.allowed,
            "refused": self.refused,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "left_out": self.left_out,
        }


def refused_lines(egress: dict[str, Any] | None) -> list[str]:
    """Say what the proxy did not let through, each thing once: of a refused SOCKS connection a client says nothing."""
    if egress is None:
        return []
    refused = [one for one in egress["connections"] if one["verdict"] == "deny"]
    said = list(dict.fromkeys(f"the egress proxy refused {_target(one)}: {one['reason']}" for one in refused))
    lines = said[:_REFUSALS_SHOWN]
    if len(said) > _REFUSALS_SHOWN:
        lines.append(f"and {len(said) - _REFUSALS_SHOWN} further targets, which the result lists")
    return lines


def _target(one: dict[str, Any]) -> str:
    if not one["host"]:
        return f"a connection ({one['protocol']})"
    return f"[{one['host']}]:{one['port']}" if ":" in one["host"] else f"{one['host']}:{one['port']}"


def _clipped(value: Any) -> Any:
    if isinstance(value, str) and len(value) > EGRESS_RECORD_TEXT_MAX_CHARS:
        return f"{value[:EGRESS_RECORD_TEXT_MAX_CHARS]}… ({len(value)} characters)"
    return value
