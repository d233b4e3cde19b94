"""Sends every audit record on to a syslog collector: RFC 5424 over UDP, TCP (RFC 6587 octet counting) or a socket.

What was sent is remembered in the store, so a collector that was away gets what it missed; after a crash of the hub
it may get some records twice, each with its ``seq``. Over UDP and a datagram socket nobody tells whether it arrived.
Runs in the hub.
"""

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

import structlog
import trio

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import AuditRecord
from guardhouse.hub.audit.export import record_line
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import audit

__all__ = ["SyslogForwarder", "SyslogTarget", "parse_syslog", "syslog_message"]

_log = structlog.get_logger("guardhouse.hub.audit")

# Facility 13, "log audit", severity 6, "informational" (RFC 5424, 6.2.1).
_PRIORITY: Final = 13 * 8 + 6
BATCH_RECORDS: Final = 500
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
SEND_TIMEOUT_S: Final = 10.0
GATHER_S: Final = 0.1
# What a datagram carries; a longer message is cut, and says so, because RFC 5426 receivers drop it otherwise.
DATAGRAM_MAX_BYTES: Final = 60_000


@dataclass(frozen=True)
class SyslogTarget:
    """Where the collector is. ``port`` is 0 for a socket, whose path is ``host``."""

    kind: Literal["udp", "tcp", "unix"]
    host: str
    port: int


def parse_syslog(text: str) -> SyslogTarget:
    """Return the target of ``udp://HOST[:514]``, ``tcp://HOST[:601]`` or ``unix:/dev/log``.

    Raises:
        SetupError: it is none of them.
    """
    wrong = SetupError(
        f"--audit-syslog {text!r} is not like udp://logs.example.com:514, tcp://… or unix:/dev/log; correct it"
    )
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise wrong
        return SyslogTarget("unix", path, 0)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    if not parts.hostname or parts.path or parts.query or parts.username:
        raise wrong
    if parts.scheme == "udp":
        return SyslogTarget("udp", parts.hostname, port or 514)
    if parts.scheme == "tcp":
        return SyslogTarget("tcp", parts.hostname, port or 601)
    raise wrong


def syslog_message(record: AuditRecord, *, hostname: str) -> bytes:
    """Return one record as an RFC 5424 message; the message's text is the record's line of an export."""
    at = datetime.fromtimestamp(record.at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = "".join(letter for letter in record.action if "!" <= letter <= "~")[:32] or "-"
    header = f"<{_PRIORITY}>1 {at} {hostname} guardhouse-hub {os.getpid()} {name} -"
    return header.encode() + b" \xef\xbb\xbf" + record_line(record).rstrip(b"\n")


class SyslogForwarder:
    """Follows the audit log and sends it on."""

    def __init__(self, database: Database, target: SyslogTarget) -> None:
        self._database = database
        self._target = target
        self._name = f"syslog {target.kind} {target.host}"[:60]
        self._hostname = "".join(letter for letter in socket.gethostname() if "!" <= letter <= "~")[:255] or "-"
        self._stream: trio.SocketStream | None = None

    async def run(self) -> None:
        """Send what is there and what comes, for ever; a collector that does not answer is asked again."""
        retry_s = RETRY_FIRST_S
        position: int | None = None
        while True:
            try:
                if position is None:
                    position = await self._database.read(partial(audit.read_position, name=self._name)) or 0
                position = await self._forward(position)
                retry_s = RETRY_FIRST_S
                await self._database.until_news(position + 1)
                # What comes with it is read, sent and noted as sent together.
                await trio.sleep(GATHER_S)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, StoreUnavailable) as error:
                _log.warning("syslog_failed", target=self._name, error=str(error) or type(error).__name__)
                await self._hang_up()
                await trio.sleep(retry_s)
                retry_s = min(RETRY_MAX_S, retry_s * 2)

    async def _forward(self, position: int) -> int:
        while True:
            records = await self._database.read(partial(audit.list_audit_page, after=position, limit=BATCH_RECORDS))
            if not records:
                return position
            with trio.fail_after(SEND_TIMEOUT_S):
                await self._send([syslog_message(record, hostname=self._hostname) for record in records])
            position = records[-1].seq
            await self._database.write(partial(audit.store_position, name=self._name, seq=position), durable=False)

    async def _send(self, messages: list[bytes]) -> None:
        if self._target.kind == "tcp":
            if self._stream is None:
                self._stream = await trio.open_tcp_stream(self._target.host, self._target.port)
            await self._stream.send_all(b"".join(b"%d %s" % (len(message), message) for message in messages))
            return
        if self._target.kind == "unix":
            family, address = socket.AF_UNIX, cast(Any, self._target.host)
        else:
            found = await trio.socket.getaddrinfo(
                self._target.host, self._target.port, type=socket.SOCK_DGRAM, family=socket.AF_UNSPEC
            )
            family, address = found[0][0], found[0][4]
        with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
            await sock.connect(address)
            for message in messages:
                await sock.send(_cut(message))

    async def _hang_up(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await trio.aclose_forcefully(stream)


def _cut(message: bytes) -> bytes:
    if len(message) <= DATAGRAM_MAX_BYTES:
        return message
    note = f" [cut from {len(message)} bytes]".encode()
    return message[: DATAGRAM_MAX_BYTES - len(note)].decode("utf-8", "ignore").encode() + note
