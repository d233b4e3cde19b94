"""One hub from its start to its stop: open the state, serve, put everything away.

Order of a start: directory and lock, key, database and its steps, owner token, socket, and only then requests; of a
stop: no new connections, runners told, writes committed, lock given up. Runs in the hub.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

import structlog
import trio
from starlette.types import ASGIApp

from guardhouse import __version__
from guardhouse.errors import InvariantError, SetupError
from guardhouse.hub.app import build_app
from guardhouse.hub.approvals.notify import Notifier
from guardhouse.hub.assembly import assemble, connect
from guardhouse.hub.audit.keeper import AuditKeeper
from guardhouse.hub.audit.rotate import open_audit_signer
from guardhouse.hub.audit.syslog import SyslogForwarder, parse_syslog
from guardhouse.hub.bootstrap import ensure_owner_token, make_owner_link, open_database
from guardhouse.hub.clock_steps import ClockWatch
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import Sealer
from guardhouse.hub.database import Database
from guardhouse.hub.managed.serve import serve_managed
from guardhouse.hub.mcp_endpoint import mcp_endpoint
from guardhouse.hub.sealing import open_sealer
from guardhouse.hub.services import Services
from guardhouse.hub.state_dir import StateDir
from guardhouse.hub.transport import Listener, bind_listener, load_certificate, serve_listener, server_context
from guardhouse.hub.upkeep import delete_old_tasks, look_at_certificate, store_uses, watch_certificate

__all__ = ["RunningHub", "open_hub"]

_log = structlog.get_logger("guardhouse.hub")

# Less than the transport gives connections once it stops (`transport.listen`), so that there is time for the answer.
REQUESTS_STOP_S: Final = 3.0


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
            look_at_certificate(config.tls_certificate)


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
        if state.next_audit_key() is None:
            # Before anything is made: a hub that lost its key is refused as it stands.
            state.audit_key()
        database = open_database(config, state)
        try:
            listener = bind_listener(config.host, config.port, context=context)
        except BaseException:  # whatever ends this, the database is let go
            database.dispose()
            raise
        async with trio.open_nursery() as writing:
            await writing.start(database.run)
            try:
                keeper = AuditKeeper(database, await open_audit_signer(state, database), state.audit_head)
                await keeper.check_store()
                if await ensure_owner_token(database, state):
                    _log.info("owner_token_written", path=str(state.owner_token_file))
                sealer = await open_sealer(state, database)
                clock = ClockWatch(database)
                await keeper.start(clock, version=__version__)
                public_url = (config.public_url or listener.url).rstrip("/")
                owner_link = await make_owner_link(database, public_url, state)
                async with _serving(config, database, sealer, keeper, clock, listener) as hub:
                    yield replace(hub, owner_link=owner_link)
            finally:
                database.close()
    finally:
        state.close()


async def end_requests(services: Services) -> None:
    """Have every request that is not answered by then refused in words, before its connection is cut."""
    await trio.sleep(REQUESTS_STOP_S)
    services.requests.end()


@asynccontextmanager
async def _serving(
    config: HubConfig, database: Database, sealer: Sealer, keeper: AuditKeeper, clock: ClockWatch, listener: Listener
) -> AsyncIterator[RunningHub]:
    public_url = (config.public_url or listener.url).rstrip("/")
    notifier = Notifier(database, webhook=config.webhook, mail=config.mail, public_url=public_url)
    services = await assemble(
        config, database, sealer, keeper, clock, notifier, accept_queue=listener.queue, public_url=public_url
    )
    links = services.links
    stop = trio.Event()
    broken: list[InvariantError] = []

    def on_broken_promise(error: InvariantError) -> None:
        broken.append(error)
        stop.set()

    async def until_stopped() -> None:
        await stop.wait()
        services.is_stopping = True
        # Who waits is answered with what there is; what is still not answered then is told to try again.
        services.waits.end()
        background.start_soon(end_requests, services)
        links.close_all(reason="the hub is shutting down; reconnect in a moment")

    async with trio.open_nursery() as background:
        await services.board.start(background)
        await services.desk.start()
        connect(services)
        background.start_soon(services.metrics.run)
        background.start_soon(services.skill_courier.run)
        await services.fanouts.start(background)
        await services.schedules.start()
        background.start_soon(services.schedules.run)
        background.start_soon(services.desk.run)
        background.start_soon(notifier.run)
        background.start_soon(services.board.deadlines.run)
        background.start_soon(links.run)
        background.start_soon(links.timers.run)
        background.start_soon(services.admission.run)
        background.start_soon(links.presence_log.run)
        background.start_soon(keeper.run)
        background.start_soon(store_uses, database, services.credentials)
        if config.audit_syslog is not None:
            background.start_soon(SyslogForwarder(database, parse_syslog(config.audit_syslog)).run)
        background.start_soon(clock.run)
        background.start_soon(delete_old_tasks, database, config.retention_days, clock)
        if config.tls_certificate is not None:
            background.start_soon(watch_certificate, config.tls_certificate)
        async with trio.open_nursery() as serving, mcp_endpoint(services) as (endpoint, attach):
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
