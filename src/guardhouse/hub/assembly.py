"""The parts of a hub, each given the others that it needs; nothing of them runs yet.

Runs in the hub, at start.
"""

from functools import cache, partial
from typing import Any

from guardhouse.hub.api.openapi import openapi_document
from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.approvals.desk import ApprovalDesk
from guardhouse.hub.approvals.notify import Notifier
from guardhouse.hub.audit.keeper import AuditKeeper
from guardhouse.hub.authorize import AuthenticationFailed, Credentials
from guardhouse.hub.clock import now_ms
from guardhouse.hub.clock_steps import ClockWatch
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import Sealer
from guardhouse.hub.database import Database
from guardhouse.hub.gateway.admission import Admission
from guardhouse.hub.gateway.keys import Challenges
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.mcp_admission import McpAdmission
from guardhouse.hub.mcp_servers import McpServers
from guardhouse.hub.metrics import Metrics
from guardhouse.hub.oidc.flow import Flows
from guardhouse.hub.oidc.provider import Provider
from guardhouse.hub.oidc.sessions import ProviderSessions
from guardhouse.hub.people.devices import DeviceSignIns
from guardhouse.hub.people.lockout import Lockout
from guardhouse.hub.people.passwords import Passwords
from guardhouse.hub.rates import RateLimit
from guardhouse.hub.readiness import Readiness
from guardhouse.hub.services import Services
from guardhouse.hub.sessions.desk import SessionDesk
from guardhouse.hub.skills.courier import SkillCourier
from guardhouse.hub.skills.registry import Skills
from guardhouse.hub.skills.upload import SkillUploads
from guardhouse.hub.store import environments, joins, mcp_servers, people, skill_copies, skills, tokens
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.fanouts import Fanouts
from guardhouse.hub.tasks.schedules import Schedules
from guardhouse.hub.traces import SpanExporter, Traces
from guardhouse.hub.transport import AcceptQueue

__all__ = ["assemble", "connect"]


async def assemble(
    config: HubConfig,
    database: Database,
    sealer: Sealer,
    keeper: AuditKeeper,
    clock: ClockWatch,
    notifier: Notifier,
    *,
    accept_queue: AcceptQueue[Any],
    public_url: str,
) -> Services:
    """Return the parts, with what the store has of them."""
    credentials = Credentials(
        await database.read(tokens.list_api_tokens),
        await database.read(partial(tokens.list_runner_tokens, now_ms=now_ms())),
        people=await database.read(people.list_people),
        memberships=await database.read(people.list_memberships),
        sign_ins=await database.read(partial(people.list_sign_ins, now_ms=now_ms())),
        runner_keys=await database.read(partial(joins.list_runner_keys, now_ms=now_ms())),
    )
    links = Links(database, still_opens=credentials.still_opens)
    for record in await database.read(environments.list_drained):
        links.set_drained(record.id, reason=record.drain_reason, drained=True)

    board = TaskBoard(database, links, queue_limit=config.queue_limit, in_flight_limit=config.in_flight_limit)
    started_ms = now_ms()
    metrics = Metrics()
    kept_skills = Skills(
        await database.read(skills.list_skills),
        await database.read(skills.list_skill_versions),
        await database.read(skill_copies.list_skill_copies),
    )
    courier = SkillCourier(database, links, board, kept_skills)
    return Services(
        config=config,
        database=database,
        credentials=credentials,
        desk=ApprovalDesk(
            database,
            links,
            rules=config.approval_rules,
            owner_of=credentials.token_owner,
            lineage_of=credentials.lineage,
            stands=partial(is_standing, credentials),
            notify=notifier.enqueue,
        ),
        sealer=sealer,
        links=links,
        admission=Admission(database),
        board=board,
        fanouts=Fanouts(database, board, links, credentials),
        schedules=Schedules(database, board, links, credentials),
        mcp_servers=McpServers(sealer, await database.read(mcp_servers.list_mcp_servers)),
        mcp_admission=McpAdmission(config.mcp, metrics),
        metrics=metrics,
        readiness=Readiness(database),
        skills=kept_skills,
        skill_courier=courier,
        skill_uploads=SkillUploads(),
        traces=Traces(_exporter(config.otlp_endpoint, board.instance_id)),
        sessions=SessionDesk(database, links, board, started_ms=started_ms),
        audit=keeper,
        clock=clock,
        passwords=Passwords(),
        lockout=Lockout(),
        challenges=Challenges(),
        rates=RateLimit(config.rate_per_minute),
        public_rates=RateLimit(config.public_rate_per_minute),
        provider=Provider(config.oidc) if config.oidc is not None else None,
        oidc_flows=Flows(),
        provider_sessions=ProviderSessions(),
        device_sign_ins=DeviceSignIns(),
        started_ms=started_ms,
        accept_queue=accept_queue,
        public_url=public_url,
        openapi=cache(partial(openapi_document, ROUTES, server_url=public_url)),
    )


def is_standing(credentials: Credentials, actor_id: str) -> bool:
    """Whether the person with this id is not disabled, or the token with it neither revoked nor over."""
    try:
        credentials.standing(actor_id, now_ms=now_ms())
    except AuthenticationFailed:
        return False
    return True


def connect(services: Services) -> None:
    """Have the parts hear of one another: tasks that end, runners that take tasks, what a task lacks as it leaves."""
    board, courier = services.board, services.skill_courier
    board.on_end.append(services.desk.task_ended)
    board.dispatcher.is_traced = services.traces.is_on
    board.dispatcher.complete_args = partial(_complete_args, services)
    services.links.on_ready.append(courier.nudge)
    board.on_finished.append(lambda live: services.metrics.note_task_end(live.record.state))
    board.on_finished.append(
        lambda live: services.traces.note_task(live.record, live.runner_spans, parent_id=live.parent_span_id)
    )


def _complete_args(services: Services, record: TaskRecord) -> bytes:
    if record.mcp_server_id is not None:
        return services.mcp_servers.complete(record.args, record.mcp_server_id, record.environment_id)
    return services.skill_courier.fill(record)


def _exporter(endpoint: str | None, instance_id: str) -> SpanExporter | None:
    if endpoint is None:
        return None
    from guardhouse.hub.otlp import OtlpExporter

    return OtlpExporter(endpoint, instance_id=instance_id)
