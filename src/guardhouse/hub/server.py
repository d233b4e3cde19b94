"""The hub's process: open the state, serve until told to stop, put everything away.

Order of a start: directory and lock, key, database and its steps, owner token, socket, and only then requests; of a
stop: no new connections, runners told, writes committed, lock given up. Runs in the hub.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

import structlog
import trio
from sqlalchemy import Connection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from guardhouse import __version__
from guardhouse.data_files import shipped_directory
from guardhouse.errors import InvariantError, SetupError
from guardhouse.hub.api.openapi import openapi_document
from guardhouse.hub.api.people import link_url, make_link
from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.app import build_app
from guardhouse.hub.approvals.desk import ApprovalDesk
from guardhouse.hub.approvals.notify import Notifier
from guardhouse.hub.audit.chain import AuditSigner
from guardhouse.hub.audit.keeper import AuditKeeper
from guardhouse.hub.audit.syslog import SyslogForwarder, parse_syslog
from guardhouse.hub.authorize import Credentials, Scope
from guardhouse.hub.backends import choose_backend
from guardhouse.hub.clock import now_ms
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import API_TOKEN_PREFIX, Sealer, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.admission import Admission
from guardhouse.hub.gateway.keys import Challenges
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.logs import configure_logs
from guardhouse.hub.managed.serve import serve_managed
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
from guardhouse.hub.sealing import open_sealer, rotate_sealing_key
from guardhouse.hub.services import Services
from guardhouse.hub.sessions.desk import SessionDesk
from guardhouse.hub.skills.courier import SkillCourier
from guardhouse.hub.skills.registry import Skills
from guardhouse.hub.skills.upload import SkillUploads
from guardhouse.hub.state_dir import StateDir, write_secret_file
from guardhouse.hub.store import (
    approvals,
    audit,
    environments,
    fanouts,
    joins,
    mcp_servers,
    people,
    schedules,
    sessions,
    skill_copies,
    skills,
    tasks,
    tokens,
)
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.fanouts import Fanouts
from guardhouse.hub.tasks.schedules import Schedules
from guardhouse.hub.traces import SpanExporter, Traces
from guardhouse.hub.transport import Listener, bind_listener, load_certificate, serve_listener, server_context
from guardhouse.mcp_server.endpoint import McpEndpoint
from guardhouse.mcp_server.server import build_server
from guardhouse.policy import Policy, load_policy

__all__ = ["RunningHub", "change_sealing_key", "initialise", "open_hub", "run"]

_log = structlog.get_logger("guardhouse.hub")

RETENTION_EVERY_S = 3_600.0
RETENTION_BATCH = 500
STORE_USES_EVERY_S = 60.0
OWNER_LINK_VALID_MS = 24 * 3_600_000


@dataclass(frozen=True)
class RunningHub:
    """A hub that serves: where it listens, and its parts. ``owner_link`` is there until the first owner used it."""

    url: str
    services: Services
    stop: trio.Event
    listener: Listener
    app: ASGIApp
    owner_link: str | None = None

    def reload_certificate(self) -> None:
        """Read the certificate's files again; a bad one is logged and the one before stays."""
        config, context = self.services.config, self.listener.context
        if context is None or config.tls_certificate is None or config.tls_key is None:
            return
        try:
            load_certificate(context, config.tls_certificate, config.tls_key)
        except SetupError as error:
            _log.error("certificate_not_reloaded", error=str(error))
        else:
            _log.info("certificate_reloaded", path=str(config.tls_certificate))


async def _ensure_owner_token(database: Database, state: StateDir) -> bool:
    """Make the first API token, of scope ``admin``, and write it to its file; return whether it was made now."""
    if await database.read(tokens.count_api_tokens):
        return False
    secret = mint_token(API_TOKEN_PREFIX)
    # The file first: a crash between the two leaves a token that opens nothing, and the next start makes another.
    write_secret_file(state.owner_token_file, secret.encode() + b"\n")
    record = tokens.ApiTokenRecord(
        id=mint_id("tok"),
        name="owner",
        digest=token_digest(secret),
        hint=token_hint(secret),
        scopes=(Scope.ADMIN.value,),
        created_ms=now_ms(),
        created_by="hub",
        expires_ms=None,
        revoked_ms=None,
        last_used_ms=None,
    )
    await database.write(partial(tokens.insert_api_token, record=record))
    return True


def open_database(config: HubConfig, state: StateDir) -> Database:
    """Open the store that ``config`` names, and make the sealing key where there is neither.

    Raises:
        SetupError: the store cannot be had, or the key that it was sealed with is missing.
    """
    backend = choose_backend(state.database, config.database)
    state.sealing_key(is_in_use=backend.exists())
    return Database(backend)


def initialise(config: HubConfig) -> StateDir:
    """Make state directory, key, database and owner token, and return the directory, still locked.

    Raises:
        SetupError: one of them cannot be had.
    """

    async def prepare() -> StateDir:
        state = StateDir.open(config.state_dir)
        database = open_database(config, state)
        state.audit_key()
        async with trio.open_nursery() as nursery:
            await nursery.start(database.run)
            await _ensure_owner_token(database, state)
            database.close()
        return state

    return trio.run(prepare)


def change_sealing_key(config: HubConfig) -> int:
    """Seal every stored runner token under a new key, of a hub that does not run; return how many.

    Raises:
        SetupError: the hub runs, or a token cannot be opened with the key that is there.
    """

    async def change() -> int | SetupError:
        state = StateDir.open(config.state_dir)
        try:
            database = open_database(config, state)
            keeper = AuditKeeper(database, AuditSigner(state.audit_key()), state.audit_head)
            async with trio.open_nursery() as nursery:
                await nursery.start(database.run)
                try:
                    count = await rotate_sealing_key(state, database)
                    await keeper.checkpoint()
                except SetupError as error:
                    # Raised outside of the nursery, which would wrap it.
                    return error
                finally:
                    database.close()
        finally:
            state.close()
        return count

    found = trio.run(change)
    if isinstance(found, SetupError):
        raise found
    return found


@asynccontextmanager
async def open_hub(config: HubConfig) -> AsyncIterator[RunningHub]:
    """Serve ``config``'s hub inside the block; leaving it, or setting ``stop``, shuts down gracefully.

    Raises:
        SetupError: the hub cannot start as configured.
        InvariantError: a promise of our own code broke while it served.
    """
    if config.audit_syslog is not None:
        parse_syslog(config.audit_syslog)
    context = None
    if config.tls_certificate is not None and config.tls_key is not None:
        context = server_context(config.tls_certificate, config.tls_key)
    state = StateDir.open(config.state_dir)
    try:
        signer = AuditSigner(state.audit_key())
        database = open_database(config, state)
        try:
            listener = bind_listener(config.host, config.port, context=context)
        except BaseException:  # whatever ends this, the database is let go
            database.dispose()
            raise
        async with trio.open_nursery() as writing:
            await writing.start(database.run)
            try:
                if await _ensure_owner_token(database, state):
                    _log.info("owner_token_written", path=str(state.owner_token_file))
                sealer = await open_sealer(state, database)
                keeper = AuditKeeper(database, signer, state.audit_head)
                await keeper.start(version=__version__)
                public_url = (config.public_url or listener.url).rstrip("/")
                owner_link = await _make_owner_link(database, public_url, state)
                async with _serving(config, database, sealer, keeper, listener) as hub:
                    yield replace(hub, owner_link=owner_link)
            finally:
                database.close()
    finally:
        state.close()


@asynccontextmanager
async def _serving(
    config: HubConfig, database: Database, sealer: Sealer, keeper: AuditKeeper, listener: Listener
) -> AsyncIterator[RunningHub]:
    links = Links(database)
    public_url = (config.public_url or listener.url).rstrip("/")
    credentials = Credentials(
        await database.read(tokens.list_api_tokens),
        await database.read(partial(tokens.list_runner_tokens, now_ms=now_ms())),
        people=await database.read(people.list_people),
        memberships=await database.read(people.list_memberships),
        sign_ins=await database.read(partial(people.list_sign_ins, now_ms=now_ms())),
        runner_keys=await database.read(partial(joins.list_runner_keys, now_ms=now_ms())),
    )
    for record in await database.read(environments.list_drained):
        links.set_drained(record.id, reason=record.drain_reason, drained=True)
    notifier = Notifier(database, webhook=config.webhook, mail=config.mail, public_url=public_url)

    def owner_of(actor: str) -> str | None:
        owner = credentials.token_owner(actor)
        return owner.id if owner is not None else None

    board = TaskBoard(database, links, queue_limit=config.queue_limit, in_flight_limit=config.in_flight_limit)
    started_ms = now_ms()
    metrics = Metrics()
    kept_skills = Skills(
        await database.read(skills.list_skills),
        await database.read(skills.list_skill_versions),
        await database.read(skill_copies.list_skill_copies),
    )
    courier = SkillCourier(database, links, board, kept_skills)
    services = Services(
        config=config,
        database=database,
        credentials=credentials,
        desk=ApprovalDesk(database, links, rules=config.approval_rules, owner_of=owner_of, notify=notifier.enqueue),
        sealer=sealer,
        links=links,
        admission=Admission(database),
        board=board,
        fanouts=Fanouts(database, board, links, credentials),
        schedules=Schedules(database, board, links, credentials),
        mcp_servers=McpServers(sealer, await database.read(mcp_servers.list_mcp_servers)),
        mcp_admission=McpAdmission(config.mcp, metrics),
        metrics=metrics,
        skills=kept_skills,
        skill_courier=courier,
        skill_uploads=SkillUploads(),
        traces=Traces(_exporter(config.otlp_endpoint, board.instance_id)),
        sessions=SessionDesk(database, links, board, started_ms=started_ms),
        audit=keeper,
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
        public_url=public_url,
        openapi=openapi_document(ROUTES, server_url=public_url),
    )
    stop = trio.Event()
    broken: list[InvariantError] = []

    def on_broken_promise(error: InvariantError) -> None:
        broken.append(error)
        stop.set()

    async def until_stopped() -> None:
        await stop.wait()
        services.is_stopping = True
        links.close_all(reason="the hub is shutting down; reconnect in a moment")

    async with trio.open_nursery() as background:
        await services.board.start(background)
        await services.desk.start()
        services.board.on_end.append(services.desk.task_ended)
        board.dispatcher.is_traced = services.traces.is_on
        board.dispatcher.complete_args = partial(_complete_args, services)
        links.on_ready.append(courier.nudge)
        board.on_finished.append(lambda live: services.metrics.note_task_end(live.record.state))
        board.on_finished.append(
            lambda live: services.traces.note_task(live.record, live.runner_spans, parent_id=live.parent_span_id)
        )
        background.start_soon(services.metrics.run)
        background.start_soon(courier.run)
        await services.fanouts.start(background)
        await services.schedules.start()
        background.start_soon(services.schedules.run)
        background.start_soon(services.desk.run)
        background.start_soon(notifier.run)
        background.start_soon(services.board.deadlines.run)
        background.start_soon(links.run)
        background.start_soon(services.admission.run)
        background.start_soon(links.presence_log.run)
        background.start_soon(keeper.run)
        background.start_soon(_store_uses, services)
        if config.audit_syslog is not None:
            background.start_soon(SyslogForwarder(database, parse_syslog(config.audit_syslog)).run)
        background.start_soon(_delete_old_tasks, database, config.retention_days)
        async with trio.open_nursery() as serving, _mcp_endpoint(services) as (endpoint, attach):
            app = attach(build_app(services, mcp=endpoint, on_broken_promise=on_broken_promise))
            # Starlette's and Hypercorn's types for one and the same ASGI differ in form only.
            url = await serving.start(partial(serve_listener, cast(Any, app), listener, stop=until_stopped))
            _log.info("hub_listening", url=url, public_url=services.public_url, version=__version__)
            try:
                async with serve_managed(config.managed, services, app) as services.sessions.managed:
                    yield RunningHub(url=url, services=services, stop=stop, listener=listener, app=app)
            finally:
                stop.set()
        links.flush_heartbeats()
        with trio.CancelScope(shield=True):
            await keeper.checkpoint()
            await services.traces.close()
        background.cancel_scope.cancel()
    if broken:
        raise broken[0]


def _complete_args(services: Services, record: TaskRecord) -> bytes:
    if record.mcp_server_id is not None:
        return services.mcp_servers.complete(record.args, record.mcp_server_id, record.environment_id)
    return services.skill_courier.fill(record)


def _exporter(endpoint: str | None, instance_id: str) -> SpanExporter | None:
    if endpoint is None:
        return None
    from guardhouse.hub.otlp import OtlpExporter

    return OtlpExporter(endpoint, instance_id=instance_id)


@cache
def _read_only_rules() -> Policy:
    """The shipped read-only rules: what agents may run without anyone looking."""
    text = (shipped_directory("policies") / "read_only.yaml").read_text(encoding="utf-8")
    return load_policy(text, name="read_only")


@asynccontextmanager
async def _mcp_endpoint(services: Services) -> AsyncIterator[tuple[McpEndpoint, Callable[[ASGIApp], ASGIApp]]]:
    """Yield what serves agents, and how to tell it of the application that it asks in turn."""
    apps: list[ASGIApp] = []

    async def hub(scope: AsgiScope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    def attach(app: ASGIApp) -> ASGIApp:
        apps.append(app)
        return app

    public_url, oidc = services.public_url, services.config.oidc
    server = build_server(hub, read_only=await trio.to_thread.run_sync(_read_only_rules), public_url=public_url)
    issuer = oidc.issuer if oidc is not None and oidc.access_tokens else None
    endpoint = McpEndpoint(
        hub, server, admission=services.mcp_admission, public_url=public_url, authorization_server=issuer
    )
    async with endpoint.run():
        yield endpoint, attach


async def _store_uses(services: Services) -> None:
    """Write down, once a minute and for ever, when API tokens and sign-ins were used last."""
    while True:
        await trio.sleep(STORE_USES_EVERY_S)
        tokens_used_ms, sign_ins_used_ms = services.credentials.take_uses()
        if not tokens_used_ms and not sign_ins_used_ms:
            continue

        def store(
            connection: Connection,
            tokens_ms: dict[str, int] = tokens_used_ms,
            sign_ins_ms: dict[str, int] = sign_ins_used_ms,
        ) -> None:
            tokens.touch_api_tokens(connection, tokens_ms)
            for sign_in_id, at_ms in sign_ins_ms.items():
                people.touch_sign_in(connection, sign_in_id, last_used_ms=at_ms)

        services.database.write_soon(store)


async def _make_owner_link(database: Database, public_url: str, state: StateDir) -> str | None:
    """Return a one-time link for the first owner, and write it to its file; None where there is an owner.

    Each start makes a new one, and the one before works no more.
    """

    def make(connection: Connection) -> str | None:
        if people.count_active_owners(connection):
            return None
        at_ms = now_ms()
        link, secret = make_link(
            purpose="owner", person_id=None, actor="hub", at_ms=at_ms, valid_ms=OWNER_LINK_VALID_MS
        )
        people.insert_link(connection, link)
        audit.record_audit_event(
            connection, at_ms=at_ms, actor="hub", action="link.create", target=link.id, address=None, purpose="owner"
        )
        return link_url(public_url, secret)

    url = await database.write(make)
    if url is None:
        state.owner_link_file.unlink(missing_ok=True)
    else:
        write_secret_file(state.owner_link_file, url.encode() + b"\n")
    return url


async def _delete_old_tasks(database: Database, retention_days: int) -> None:
    """Delete finished tasks and answered questions older than the retention, for ever; one of 0 deletes none."""
    while retention_days > 0:
        before_ms = now_ms() - retention_days * 86_400_000
        try:
            deleted = await database.write(
                partial(tasks.delete_old_tasks, before_ms=before_ms, limit=RETENTION_BATCH), durable=False
            )
            for delete in (
                approvals.delete_old_approvals,
                fanouts.delete_old_fanouts,
                schedules.delete_old_schedules,
            ):
                await database.write(partial(delete, before_ms=before_ms), durable=False)
            await database.write(
                partial(sessions.delete_old_sessions, before_ms=before_ms, limit=RETENTION_BATCH), durable=False
            )
        except StoreUnavailable as error:
            _log.warning("retention_failed", error=str(error))
            deleted = 0
        if deleted:
            _log.info("tasks_deleted", count=deleted, retention_days=retention_days)
        if deleted < RETENTION_BATCH:
            await trio.sleep(RETENTION_EVERY_S)


def run(config: HubConfig, *, announce: Callable[[str, str | None], None]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; a second signal ends the process at once.

    SIGHUP reads the certificate's files again.

    Args:
        announce: told the address once the hub answers there, and the first owner's link while there is none.

    Raises:
        SetupError: the hub cannot start as configured.
    """
    configure_logs(level=config.log_level, log_format=config.log_format)
    # A store thread that has its answer waits for the interpreter's lock: by default up to 5 ms under load.
    sys.setswitchinterval(0.0005)
    # What was loaded by now is never garbage; looking through it again and again takes tens of milliseconds each time.
    gc.collect()
    gc.freeze()
    # Thousands of runners that come at once leave millions of objects that stay. By Python's own thresholds (700, 10,
    # 10) they are looked through some twenty times while they come, in the end for 2 s (bench/README.md, "connected").
    gc.set_threshold(10_000, 10, 20)
    try:
        return trio.run(_run, config, announce)
    except BaseExceptionGroup as group:
        # What ends the hub from within its nurseries comes wrapped; people are to read one line of it.
        refused: BaseException | None = group.subgroup(SetupError)
        while isinstance(refused, BaseExceptionGroup):
            refused = refused.exceptions[0]
        if refused is None or group.split(SetupError)[1] is not None:
            raise
        raise refused from group


async def _run(config: HubConfig, announce: Callable[[str, str | None], None]) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            async with open_hub(config) as hub:
                announce(hub.url, hub.owner_link)
                notify_service_manager("READY=1")
                nursery.start_soon(_heed_signals, signals, hub)
                await hub.stop.wait()
                notify_service_manager("STOPPING=1")
            nursery.cancel_scope.cancel()
    _log.info("hub_stopped")
    return 0


async def _heed_signals(signals: AsyncIterator[int], hub: RunningHub) -> None:
    async for number in signals:
        _log.info("signal_received", signal=signal.Signals(number).name)
        if number == signal.SIGHUP:
            hub.reload_certificate()
            continue
        if hub.stop.is_set():
            os._exit(128 + number)
        hub.stop.set()


def notify_service_manager(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            _log.warning("service_manager_not_told", error=str(error))
