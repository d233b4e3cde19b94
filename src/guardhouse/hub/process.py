"""The hub as a process: its signals, its collector of garbage, its service manager, its exit status.

What it serves is `guardhouse.hub.server`'s. Runs in the hub.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable

import structlog
import trio

from guardhouse.errors import SetupError
from guardhouse.hub.config import HubConfig
from guardhouse.hub.garbage import collect_less_often, pace_collections
from guardhouse.hub.logs import configure_logs
from guardhouse.hub.server import RunningHub, open_hub

__all__ = ["run"]

_log = structlog.get_logger("guardhouse.hub")


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
    collect_less_often()
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
                nursery.start_soon(_pace_collections, hub)
                await hub.stop.wait()
                notify_service_manager("STOPPING=1")
            nursery.cancel_scope.cancel()
    _log.info("hub_stopped")
    return 0


async def _pace_collections(hub: RunningHub) -> None:
    queue, links = hub.services.accept_queue, hub.services.links
    await pace_collections(waiting=lambda: len(queue), connected=lambda: len(links), ended=lambda: links.ended)


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
