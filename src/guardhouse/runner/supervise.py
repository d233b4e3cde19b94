"""The runner's life: dial, converse, wait, dial again; drain when asked to end.

Which protocol to try next and when to give up are decided by `Attempts`, which knows no clock and no socket. Runs
in the runner.
"""

import random
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from guardhouse import __version__
from guardhouse.errors import PeerError
from guardhouse.launcher.messages import StopReason
from guardhouse.limits import STOP_GRACE_S
from guardhouse.runner.config import Protocol, RunnerConfig
from guardhouse.runner.credential import Token
from guardhouse.runner.dial import ConnectFailed, Connection, Fault, Form, dial
from guardhouse.runner.dispatch import Dispatcher
from guardhouse.runner.key import is_key
from guardhouse.runner.link import Link
from guardhouse.runner.logs import get_logger
from guardhouse.runner.reconnect import ReconnectSchedule

__all__ = ["Attempts", "Refused", "connect_for_ever", "drain_on_signal"]

# After the drain's deadline: TERM, grace, KILL, and the results on their way.
_LAST_RESULTS_S: Final = STOP_GRACE_S + 2.0
_DRAIN_POLL_S: Final = 0.05
# How platforms answer when they find no token where they look for one.
_TOKEN_NOT_FOUND: Final = frozenset({400, 401, 403})


class Refused(PeerError):  # noqa: N818 - says what happened
    """The platform, or its certificate, refused this runner before it was ever welcomed; trying again is no use."""

    def __init__(self, cause: ConnectFailed) -> None:
        super().__init__(str(cause), code=cause.code)
        self.fault = cause.fault


class Attempts:
    """Which form the next attempt takes, after what happened to the earlier ones.

    A platform that once chose guardhouse.v1 is never spoken to with the token in the address again, so that
    nobody on the path can talk the runner down.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._form = Form.PLAIN if protocol is Protocol.PLAIN else Form.V1
        self._chose_v1 = False
        self._was_welcomed = False

    @property
    def form(self) -> Form:
        """The form of the next attempt."""
        return self._form

    def connected(self, *, is_v1: bool) -> None:
        """Note that the platform let us in."""
        self._chose_v1 = self._chose_v1 or is_v1

    def ended(self, *, welcomed: bool) -> bool:
        """Note that a connection ended; return whether to try the other form at once.

        A platform that upgrades without choosing the subprotocol and hangs up before its welcome may have looked
        for the token where only the plain protocol puts it.
        """
        self._was_welcomed = self._was_welcomed or welcomed
        return not welcomed and self._fall_back()

    def failed(self, failure: ConnectFailed) -> bool:
        """Note a failed attempt; return whether to try the other form at once.

        Raises:
            Refused: token or certificate were refused, and this runner has never been welcomed.
        """
        if failure.status in _TOKEN_NOT_FOUND and not failure.knows_bearer and self._fall_back():
            return True
        if failure.fault is Fault.AUTHENTICATION and not self._was_welcomed:
            raise Refused(failure)
        if failure.fault is Fault.TLS and not self._was_welcomed:
            raise Refused(failure)
        if failure.fault is Fault.AUTHENTICATION and self._protocol is Protocol.AUTO and not self._chose_v1:
            self._form = Form.V1
        return False

    def _fall_back(self) -> bool:
        if self._form is Form.PLAIN or self._protocol is not Protocol.AUTO or self._chose_v1:
            return False
        self._form = Form.PLAIN
        return True


async def connect_for_ever(
    config: RunnerConfig, token: Token, *, context: ssl.SSLContext, link: Link, end: trio.Event
) -> None:
    """Keep a connection to the platform until ``end`` is set while one stands, or this is cancelled.

    Raises:
        Refused: the very first contact was refused for good.
    """
    # A key proves itself under guardhouse.v1 only, and is never put anywhere else.
    attempts = Attempts(Protocol.V1 if is_key(token) else config.protocol)
    schedule = ReconnectSchedule(random.random, now_s=trio.current_time())
    log = get_logger()

    async def converse(connection: Connection) -> None:
        attempts.connected(is_v1=connection.subprotocol is not None)
        await link.converse(connection)

    while not end.is_set():
        started_s = trio.current_time()
        at_once = False
        link.was_welcomed = False
        retry_after_s = 0.0
        try:
            log.debug("connecting", url=str(config.url), form=attempts.form)
            await dial(
                config.url,
                token,
                context=context,
                form=attempts.form,
                converse=converse,
                user_agent=f"guardhouse/{__version__}",
            )
            at_once = attempts.ended(welcomed=link.was_welcomed)
        except ConnectFailed as failure:
            at_once = attempts.failed(failure)
            retry_after_s = failure.retry_after_s
            if not at_once:
                log.warning(str(failure), fault=failure.fault)
        except PeerError as error:
            at_once = attempts.ended(welcomed=link.was_welcomed)
            log.warning("connection lost", error=str(error), code=error.code)
        now_s = trio.current_time()
        schedule.connection_ended(now_s, welcomed=link.was_welcomed, lasted_s=now_s - started_s)
        if end.is_set():
            return
        if at_once:
            log.info("trying the plain protocol")
            continue
        delay_s = max(schedule.next_delay_s(now_s, retry_after_s=retry_after_s), link.reconnect_after_s or 0.0)
        log.info("reconnecting", in_s=round(delay_s, 1))
        await trio.sleep(delay_s)


async def drain_on_signal(
    received: AsyncIterator[int],
    dispatcher: Dispatcher,
    link: Link,
    *,
    end: trio.Event,
    drain_timeout_s: float,
    cancel: Callable[[], None],
) -> None:
    """Wait for a signal, then refuse new tasks, let running ones finish and be delivered, and say goodbye.

    A task that waits for people and has not begun is ended at once: a stop would wait its whole time for an answer
    that may never come. A program that the exec gate holds belongs to a running command and gets that one's time.

    Args:
        received: the numbers of SIGTERM and SIGINT as they come.
        end: set before the goodbye, so that nobody dials again.
        drain_timeout_s: how long running tasks get; then they are stopped.
        cancel: ends everything at once; called at the second signal.
    """
    log = get_logger()
    number = await anext(received)
    log.info("draining", signal=signal.Signals(number).name, tasks=dispatcher.active, seconds=drain_timeout_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_second, received, cancel)
        await _drain(dispatcher, link, drain_timeout_s=drain_timeout_s)
        nursery.cancel_scope.cancel()
    log.info("drained", results_kept_for_the_next_start=link.unsent)
    end.set()
    link.end("shutdown")


async def _cancel_on_second(received: AsyncIterator[int], cancel: Callable[[], None]) -> None:
    number = await anext(received)
    get_logger().warning("ending at once", signal=signal.Signals(number).name)
    cancel()


async def _drain(dispatcher: Dispatcher, link: Link, *, drain_timeout_s: float) -> None:
    link.start_drain(reason="shutdown", deadline_s=drain_timeout_s)
    with trio.move_on_after(drain_timeout_s):
        await _until_delivered(dispatcher, link)
        return
    get_logger().warning("drain time is over; stopping what still runs", tasks=dispatcher.active)
    dispatcher.cancel_all(StopReason.SHUTDOWN)
    with trio.move_on_after(_LAST_RESULTS_S):
        await _until_delivered(dispatcher, link)


async def _until_delivered(dispatcher: Dispatcher, link: Link) -> None:
    """Wait for every task's end, and for its result to be with the platform while that can be reached.

    What cannot be delivered now is in the journal and is delivered after the next start.
    """
    # Three facts of two owners, looked at while the process ends: not worth an event through both.
    while dispatcher.active or (link.unsent and link.is_ready):
        # Each time: a task that was taken just before the signal may ask only now.
        dispatcher.end_held()
        await trio.sleep(_DRAIN_POLL_S)
