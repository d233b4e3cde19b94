"""The egress proxy: serves a command's own listening socket, connects for it to what profile and policy both grant.

The socket was made inside the command's network namespace, which holds nothing else; what it accepts is served from
out here. Ends with the command. Runs in the runner.
"""

import errno
import resource
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import trio

from guardhouse.egress.host import Authority
from guardhouse.egress.record import EgressLedger, EgressRecord
from guardhouse.egress.rules import EgressRefused, EgressRules
from guardhouse.egress.tunnel import TunnelGuard
from guardhouse.errors import InvariantError
from guardhouse.limits import (
    EGRESS_CONNECTIONS_MAX,
    EGRESS_CONNECTIONS_TOTAL_MAX,
    EGRESS_DRAIN_S,
    EGRESS_LOOKUPS_MAX,
    EGRESS_LOOKUPS_TOTAL_MAX,
)
from guardhouse.policy import Context, Policy, decide_operation
from guardhouse.policy.operation import decide_tunnel
from guardhouse.runner.egress_connect import Resolve, connect_pinned, resolve_addresses, resolve_by_host
from guardhouse.runner.egress_connection import Connection
from guardhouse.runner.logs import get_logger
from guardhouse.sandbox.bundle import Bundle
from guardhouse.values import Verdict

__all__ = ["CommandEgress", "EgressService", "log_record", "rules_of_bundle"]

_SHARE_OF_ONE_COMMAND: Final = 8
_DESCRIPTORS_EACH: Final = 4  # two sockets, and as much left to everything else
_RETRY_ACCEPT_S: Final = 0.1
_SCHEMES: Final = {80: "http", 443: "https"}


def rules_of_bundle(bundle: Bundle) -> dict[str, EgressRules]:
    """Return the allow-list of every profile in network mode `domains`, by the profile's name."""
    return {
        name: EgressRules.from_plan(
            [(grant.target, grant.ports) for grant in plan.network_domains],
            [(grant.target, grant.ports) for grant in plan.network_addresses],
            profile=name,
            is_tls_required=plan.is_tls_required,
        )
        for name, plan in bundle.profiles.items()
        if plan.network == "domains"
    }


def log_record(record: EgressRecord) -> None:
    """Write one connection to the runner's log; the task it belongs to is in the log's context."""
    get_logger().info("egress", **{name: value for name, value in record.as_json().items() if value != ""})


class EgressService:
    """Serves the proxies of all commands under one policy."""

    def __init__(
        self,
        rules: Mapping[str, EgressRules],
        *,
        policy: Policy | None,
        environment: frozenset[str] | None = None,
        resolve: Resolve = resolve_by_host,
        log: Callable[[EgressRecord], None] | None = log_record,
    ) -> None:
        """``rules`` by profile; ``policy``: None where only the profile counts (`sandbox try`).

        ``environment``: this host's tags, for rules with conditions.
        """
        self._rules = rules
        self._policy = policy
        self._environment = environment
        self._resolve = resolve
        self._log = log
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = EGRESS_CONNECTIONS_TOTAL_MAX if soft == resource.RLIM_INFINITY else soft // _DESCRIPTORS_EACH
        total = max(_SHARE_OF_ONE_COMMAND, min(EGRESS_CONNECTIONS_TOTAL_MAX, room))
        self._all = trio.Semaphore(total)
        # Counts a thread until the name service has let it go, even where nobody waits for it any more.
        self._lookups = trio.CapacityLimiter(EGRESS_LOOKUPS_TOTAL_MAX)
        self._each = min(EGRESS_CONNECTIONS_MAX, total // _SHARE_OF_ONE_COMMAND)

    @asynccontextmanager
    async def serve(self, listener: socket.socket | None, profile: str) -> AsyncGenerator["CommandEgress | None", None]:
        """Serve ``listener`` while the body runs, which is as long as the command; None means that there is none.

        What the command had sent when it ended is passed on for a moment more; then every connection is closed.
        """
        if listener is None:
            yield None
            return
        rules = self._rules.get(profile)
        if rules is None:
            listener.close()
            raise InvariantError(f"profile {profile!r} has an egress proxy, and nobody was given its names")
        command = CommandEgress(
            rules,
            policy=self._policy,
            environment=self._environment,
            resolve=self._resolve,
            log=self._log,
            limits=(trio.Semaphore(self._each), self._all),
            lookups=self._lookups,
        )
        with trio.socket.from_stdlib_socket(listener) as accepting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command.accept, accepting)
                yield command
                await command.end()
                nursery.cancel_scope.cancel()


class CommandEgress:
    """One command's proxy and what is written down of it."""

    def __init__(
        self,
        rules: EgressRules,
        *,
        policy: Policy | None,
        environment: frozenset[str] | None,
        resolve: Resolve,
        log: Callable[[EgressRecord], None] | None,
        limits: tuple[trio.Semaphore, trio.Semaphore],
        lookups: trio.CapacityLimiter,
    ) -> None:
        """``limits``: how many connections at a time, of this command and of all; ``lookups``: threads, of all."""
        self.ledger = EgressLedger()
        self._rules = rules
        self._policy = policy
        self._environment = environment
        self._resolve = resolve
        self._log = log
        self._limits = limits
        self._lookups = lookups
        self._own_lookups = trio.Semaphore(EGRESS_LOOKUPS_MAX)
        self._judging = trio.CapacityLimiter(1)
        judged = [] if policy is None else [policy, *([policy.shadow] if policy.shadow is not None else [])]
        self._has_rules = any(one.has_section("egress") for one in judged)
        self._began_s = trio.current_time()
        self._connections: set[Connection] = set()
        self._accepting = trio.CancelScope()
        self._all_over = trio.Event()

    def as_json(self) -> dict[str, Any]:
        """Return the ``egress`` of the command's result."""
        return self.ledger.as_json()

    async def accept(self, listener: trio.socket.SocketType) -> None:
        """Serve connections until `end`. Past the limit they wait in the kernel's queue."""
        own, total = self._limits
        async with trio.open_nursery() as nursery:
            with self._accepting:
                while True:
                    await own.acquire()
                    try:
                        await total.acquire()
                    except trio.Cancelled:
                        own.release()
                        raise
                    stream = None
                    try:
                        stream = await _accept_one(listener)
                    finally:
                        if stream is None:
                            total.release()
                            own.release()
                    if stream is None:
                        break
                    nursery.start_soon(self._serve, stream)
        self._all_over.set()

    async def end(self) -> None:
        """The command has ended: accept nothing more, and give what it had sent a moment to go out."""
        self._accepting.cancel()
        for connection in list(self._connections):
            connection.end_soon()
        with trio.move_on_after(EGRESS_DRAIN_S):
            await self._all_over.wait()

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = Connection(
            stream,
            open_target=self._open_target,
            guard_tunnel=self._guard_tunnel,
            began_s=self._began_s,
            write_down=self._write_down,
        )
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            for semaphore in self._limits:
                semaphore.release()

    def _write_down(self, record: EgressRecord) -> None:
        is_kept = self.ledger.add(record)
        # The log is bounded as the record is: a flood of connections must not fill a disk.
        if is_kept and self._log is not None:
            self._log(record)

    async def _open_target(
        self, record: EgressRecord, authority: Authority, urls: tuple[str, ...]
    ) -> trio.SocketStream:
        """Judge a target and connect to it; the record says what came of it.

        Raises:
            EgressRefused: an entry, a rule or an address says no, or nobody answers there.
        """
        try:
            target = self._rules.check_target(authority)
            if self._has_rules:
                # Off the event loop: a rule for some paths is asked about every path that a tunnel could hide.
                await trio.to_thread.run_sync(
                    self._check_policy, record, authority, urls, limiter=self._judging, abandon_on_cancel=True
                )
            async with self._own_lookups:
                addresses = await resolve_addresses(
                    authority, self._rules, resolve=self._resolve, limiter=self._lookups
                )
            record.verdict, record.code, record.reason = "allow", "", target.by
            connected = await connect_pinned(authority, addresses)
        except EgressRefused as refused:
            record.code, record.reason, record.end = refused.code, str(refused), ""
            raise
        record.address = connected.address
        return connected.stream

    def _guard_tunnel(self, authority: Authority) -> TunnelGuard:
        return TunnelGuard(authority, is_tls_required=self._rules.is_tls_required, profile=self._rules.profile)

    def _check_policy(self, record: EgressRecord, authority: Authority, urls: tuple[str, ...]) -> None:
        """Ask the policy's egress rules: of a plain request the whole URL, of a tunnel every path that it may hide."""
        if self._policy is None:
            return
        context = Context(now=datetime.now().astimezone(), environment=self._environment)
        if urls:
            decisions = [decide_operation(self._policy, "egress", url, context=context) for url in urls]
        else:
            scheme = _SCHEMES.get(authority.port, "https" if record.protocol == "connect" else "tcp")
            decisions = [decide_tunnel(self._policy, scheme, authority.text, context=context)]
        for decision in decisions:
            if decision.shadow is not None and decision.shadow["differs"] and not record.shadow:
                record.shadow = f"{decision.shadow['verdict']}: {decision.shadow['because']}"
        for decision in decisions:
            if decision.verdict is not Verdict.ALLOW:
                raise EgressRefused("policy", str(decision.refusal()))


async def _accept_one(listener: trio.socket.SocketType) -> trio.SocketStream | None:
    """Return the next connection; None once the listener is shut."""
    while True:
        try:
            sock, _ = await listener.accept()
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EBADF):
                return None
            # accept(2): no descriptor or memory just now, or an error that was waiting on the new socket.
            await trio.sleep(_RETRY_ACCEPT_S)
            continue
        return trio.SocketStream(sock)
