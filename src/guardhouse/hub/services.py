"""Everything that a request or a runner's connection needs, in one value. Runs in the hub."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from guardhouse.hub.approvals.desk import ApprovalDesk
from guardhouse.hub.audit.keeper import AuditKeeper
from guardhouse.hub.authorize import Credentials
from guardhouse.hub.clock_steps import ClockWatch
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import Sealer
from guardhouse.hub.database import Database
from guardhouse.hub.gateway.admission import Admission
from guardhouse.hub.gateway.keys import Challenges
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.long_waits import LongWaits
from guardhouse.hub.mcp_admission import McpAdmission
from guardhouse.hub.mcp_servers import McpServers
from guardhouse.hub.metrics import Metrics
from guardhouse.hub.oidc.flow import Flows
from guardhouse.hub.oidc.provider import Provider
from guardhouse.hub.oidc.sessions import ProviderSessions
from guardhouse.hub.people.devices import DeviceSignIns
from guardhouse.hub.people.lockout import Lockout
from guardhouse.hub.people.passwords import Passwords
from guardhouse.hub.presence import Presence, decide_presence
from guardhouse.hub.rates import RateLimit
from guardhouse.hub.readiness import Readiness
from guardhouse.hub.sessions.desk import SessionDesk
from guardhouse.hub.skills.courier import SkillCourier
from guardhouse.hub.skills.registry import Skills
from guardhouse.hub.skills.upload import SkillUploads
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.fanouts import Fanouts
from guardhouse.hub.tasks.schedules import Schedules
from guardhouse.hub.traces import Traces
from guardhouse.hub.transport import AcceptQueue

__all__ = ["Services"]


@dataclass
class Services:
    """The parts of a running hub. ``public_url`` has no slash at its end; ``is_stopping`` is set once.

    ``openapi`` makes the document when it is first asked for, which takes a tenth of a second, and keeps it.
    ``waits`` are those of clients that wait for something to happen, ``requests`` all that are being answered.
    """

    config: HubConfig
    database: Database
    credentials: Credentials
    sealer: Sealer
    links: Links
    admission: Admission
    board: TaskBoard
    audit: AuditKeeper
    clock: ClockWatch
    started_ms: int
    public_url: str
    openapi: Callable[[], dict[str, object]]
    passwords: Passwords
    lockout: Lockout
    desk: ApprovalDesk
    fanouts: Fanouts
    schedules: Schedules
    challenges: Challenges
    rates: RateLimit
    public_rates: RateLimit
    provider: Provider | None
    oidc_flows: Flows
    provider_sessions: ProviderSessions
    device_sign_ins: DeviceSignIns
    mcp_servers: McpServers
    mcp_admission: McpAdmission
    skills: Skills
    skill_courier: SkillCourier
    skill_uploads: SkillUploads
    metrics: Metrics
    readiness: Readiness
    traces: Traces
    sessions: SessionDesk
    accept_queue: AcceptQueue[Any]
    is_stopping: bool = False
    waits: LongWaits = field(default_factory=LongWaits)
    requests: LongWaits = field(default_factory=LongWaits)
    event_streams: int = 0

    @property
    def connect_url(self) -> str:
        """What a runner dials."""
        return "ws" + self.public_url.removeprefix("http") + "/api/v1/runner/ws"

    def presence(self, record: EnvironmentRecord, *, at_ms: int) -> Presence:
        """Return the status of an environment at ``at_ms``."""
        instance = self.links.instance(record.id)
        return decide_presence(record, instance, now_ms=at_ms, hub_started_ms=self.started_ms)
