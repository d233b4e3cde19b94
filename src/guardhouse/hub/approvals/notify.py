"""Tells people that somebody waits for them: a signed webhook, an e-mail. Stored before it is sent, tried again.

A webhook goes to public addresses only, unless private ones are granted, and to the address that was judged: a name
that resolves to another one in between changes nothing. Runs in the hub.
"""

import hashlib
import hmac
import smtplib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog
import trio
from sqlalchemy import Connection

from guardhouse.egress.address import why_not_public
from guardhouse.egress.host import HostError, parse_host
from guardhouse.errors import GuardhouseError, SetupError
from guardhouse.hub.approvals.grants import asking_rules
from guardhouse.hub.approvals.mail import Mail, build_message, send_mail
from guardhouse.hub.approvals.secret_file import read_secret
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals as store
from guardhouse.hub.store import audit
from guardhouse.hub.store.approvals import ApprovalRecord, Notification

__all__ = ["NotDelivered", "Notifier", "Webhook", "judged_address", "parse_webhook"]

_log = structlog.get_logger("guardhouse.hub.notify")

# After 10 s, 30 s, 90 s … : given up some twenty minutes after the first try.
ATTEMPTS_MAX: Final = 6
FIRST_RETRY_MS: Final = 10_000
TIMEOUT_S: Final = 10.0
LOOK_PAUSE_S: Final = 0.2
COMMAND_SHOWN_CHARS: Final = 2_000
ASKING_SHOWN: Final = 20
SECRET_MIN_CHARS: Final = 16
# With --webhook-private: every address but those where clouds keep their metadata, which are never granted in a row.
_EVERYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
# What keeps one message from arriving, and never ends the hub: a password or name that cannot be sent is a ValueError.
_FAILURES: Final = (
    OSError,
    ValueError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    smtplib.SMTPException,
    trio.TooSlowError,
)


class NotDelivered(GuardhouseError):  # noqa: N818 - a state of the way there
    """A message did not arrive; it is tried again."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where webhooks go. ``secret`` signs them; ``allow_private`` lets them go to addresses that are not public."""

    url: str
    secret: str
    allow_private: bool = False

    def __repr__(self) -> str:
        return f"Webhook(url={urlsplit(self.url).hostname!r}, …)"


def parse_webhook(url: str, secret_file: Path | None, *, allow_private: bool) -> Webhook:
    """Return the webhook at ``url``, signed with the content of ``secret_file``.

    Raises:
        SetupError: the address or the secret cannot be meant.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in ({"https", "http"} if allow_private else {"https"}) or not host or parts.username:
            raise SetupError("--webhook-url must be https:// (http:// only with --webhook-private) without a user")
        name = parse_host(host, is_bracketed=parts.netloc.startswith("["))
        if not url.isprintable() or " " in url or port == 0:
            raise SetupError(f"--webhook-url {url!r} has a blank or a control character in it, or port 0")
    except (ValueError, HostError) as error:
        raise SetupError(f"--webhook-url {url!r}: {error}") from error
    if secret_file is None:
        raise SetupError("--webhook-url needs --webhook-secret-file: whoever receives it checks who sent it by that")
    secret = read_secret(secret_file, "--webhook-secret-file")
    if len(secret) < SECRET_MIN_CHARS:
        raise SetupError(f"--webhook-secret-file {str(secret_file)!r} holds under {SECRET_MIN_CHARS} characters")
    shown = f"[{name}]" if ":" in name else name
    netloc = shown if port is None else f"{shown}:{port}"
    return Webhook(url=parts._replace(netloc=netloc, fragment="").geturl(), secret=secret, allow_private=allow_private)


class Notifier:
    """Puts messages on their way, and sends them."""

    def __init__(
        self,
        database: Database,
        *,
        webhook: Webhook | None,
        mail: Mail | None,
        public_url: str,
        ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._database = database
        self._webhook = webhook
        self._mail = mail
        self._public_url = public_url
        self._ssl_context = ssl_context

    def enqueue(self, connection: Connection, record: ApprovalRecord) -> None:
        """Put the messages about an open question on their way, in the transaction that stores it."""
        at_ms = now_ms()
        body = msgspec.json.encode(_message(record, self._public_url)).decode()
        for channel, there in (("webhook", self._webhook), ("mail", self._mail)):
            if there is not None:
                store.insert_notification(
                    connection,
                    Notification(
                        id=mint_id("ntf"),
                        channel=channel,
                        subject=record.id,
                        body=body,
                        created_ms=at_ms,
                        next_ms=at_ms,
                    ),
                )

    async def run(self) -> None:
        """Send what is due, for ever; a destination that does not answer holds up its own channel alone."""
        async with trio.open_nursery() as channels:
            for channel, there in (("webhook", self._webhook), ("mail", self._mail)):
                if there is not None:
                    channels.start_soon(self._deliver, channel)

    async def _deliver(self, channel: str) -> None:
        while True:
            wait_s = 60.0
            # Before the look, so that what is stored right after it is news.
            news = self._database.news
            try:
                waiting = await self._database.read(partial(store.next_notifications, channel=channel, limit=20))
                due = [one for one in waiting if one.next_ms <= now_ms()]
                for one in due:
                    await self._try(one)
                if due:
                    continue
                if waiting:
                    wait_s = max(0.05, min(60.0, (waiting[0].next_ms - now_ms()) / 1000))
            except StoreUnavailable as error:
                _log.warning("notifications_wait", error=str(error))
                wait_s = 5.0
            with trio.move_on_after(wait_s):
                await self._database.until_news(news + 1)
                # Each task is news twice; a look for each would be as many transactions more.
                await trio.sleep(LOOK_PAUSE_S)

    async def _try(self, one: Notification) -> None:
        if one.attempts:
            asked = await self._database.read(partial(store.find_approval, approval_id=one.subject))
            if asked is None or asked.state != "pending":
                how = "deleted" if asked is None else asked.state
                await self._give_up(one, f"its question was {how} before anybody could be told", attempts=one.attempts)
                return
        try:
            with trio.fail_after(TIMEOUT_S * 3):
                if one.channel == "webhook" and self._webhook is not None:
                    await self._post(self._webhook, one)
                elif one.channel == "mail" and self._mail is not None:
                    message = build_message(self._mail, one.body, notification_id=one.id, created_ms=one.created_ms)
                    await trio.to_thread.run_sync(partial(send_mail, self._mail, message), abandon_on_cancel=True)
        except (NotDelivered, *_FAILURES) as error:
            await self._later(one, str(error) or type(error).__name__)
        else:
            await self._database.write(partial(store.delete_notification, notification_id=one.id), durable=False)

    async def _later(self, one: Notification, why: str) -> None:
        attempts = one.attempts + 1
        _log.warning("notification_failed", channel=one.channel, attempt=attempts, error=why[:500])
        if attempts >= ATTEMPTS_MAX:
            await self._give_up(one, why, attempts=attempts)
        else:
            await self._database.write(
                partial(
                    store.postpone_notification,
                    notification_id=one.id,
                    next_ms=now_ms() + FIRST_RETRY_MS * 3 ** (attempts - 1),
                    attempts=attempts,
                )
            )

    async def _give_up(self, one: Notification, why: str, *, attempts: int) -> None:
        at_ms = now_ms()

        def give_up(connection: Connection) -> None:
            store.delete_notification(connection, one.id)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor="hub",
                action="notification.fail",
                target=one.subject,
                address=None,
                channel=one.channel,
                attempts=attempts,
                error=why[:500],
            )

        await self._database.write(give_up)

    async def _post(self, webhook: Webhook, one: Notification) -> None:
        parts = urlsplit(webhook.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await judged_address(host, port, allow_private=webhook.allow_private)
        shown = f"[{address}]" if ":" in address else address
        url = f"{parts.scheme}://{shown}:{port}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        at_s = now_ms() // 1000
        signature = hmac.new(webhook.secret.encode(), f"{at_s}.{one.body}".encode(), hashlib.sha256).hexdigest()
        headers = {
            "host": parts.netloc,
            "content-type": "application/json",
            "user-agent": "guardhouse-hub",
            "x-guardhouse-delivery": one.id,
            "x-guardhouse-signature": f"t={at_s},v1={signature}",
        }
        verify = self._ssl_context() if parts.scheme == "https" else True
        # The certificate is checked against the name, the connection goes to the address that was judged. What the
        # other side says beyond its status is not read, however long it is.
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT_S, verify=verify, trust_env=False) as http,
            http.stream(
                "POST", url, content=one.body.encode(), headers=headers, extensions={"sni_hostname": host}
            ) as reply,
        ):
            status = reply.status_code
        if not 200 <= status < 300:
            raise NotDelivered(f"the webhook answered {status}")


async def judged_address(host: str, port: int, *, allow_private: bool) -> str:
    """Return the address to connect to.

    Raises:
        NotDelivered: one of the name's addresses is not public, and that is not granted; or where a cloud keeps its
            metadata, which is never granted.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        why = why_not_public(address, _EVERYWHERE if allow_private else ())
        if why is not None:
            raise NotDelivered(f"the webhook's host {host!r} has the address {address}, which is not public: {why}")
    if not addresses:
        raise NotDelivered(f"the webhook's host {host!r} has no address")
    return addresses[0]


def _message(record: ApprovalRecord, public_url: str) -> dict[str, Any]:
    cut = len(record.command) > COMMAND_SHOWN_CHARS
    asking = asking_rules(record)
    return {
        "event": "approval.pending",
        "approval": {
            "id": record.id,
            "task_id": record.task_id,
            "environment_id": record.environment_id,
            "environment": record.environment_name,
            "gate": record.gate,
            "command": record.command[:COMMAND_SHOWN_CHARS],
            "command_is_cut": cut,
            "argv": record.words if record.argv is not None and len(record.argv) <= COMMAND_SHOWN_CHARS else None,
            "rule": record.rule[:500],
            "because": record.because[:500],
            "place": record.place[:500],
            # Every rule that asks about the text; null where the runner's explanation was too large to keep.
            "asking": None
            if asking is None
            else [{"rule": rule, "place": place} for rule, place in asking[:ASKING_SHOWN]],
            "requested_by": record.requested_by,
            "expires_at": iso_time(record.expires_ms),
        },
        "url": f"{public_url}/api/v1/approvals/{record.id}",
    }
