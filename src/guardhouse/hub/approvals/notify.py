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
from email.message import EmailMessage
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog
import trio
from sqlalchemy import Connection

from guardhouse.errors import GuardhouseError, SetupError
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals as store
from guardhouse.hub.store import audit
from guardhouse.hub.store.approvals import ApprovalRecord, Notification

__all__ = ["Mail", "Notifier", "Webhook", "parse_mail", "parse_webhook"]

_log = structlog.get_logger("guardhouse.hub.notify")

# After 10 s, 30 s, 90 s … : given up about half an hour after the first try.
ATTEMPTS_MAX: Final = 6
FIRST_RETRY_MS: Final = 10_000
TIMEOUT_S: Final = 10.0
COMMAND_SHOWN_CHARS: Final = 2_000
SECRET_MIN_CHARS: Final = 16


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


@dataclass(frozen=True, kw_only=True)
class Mail:
    """How mail is sent: ``smtps`` speaks TLS from the start, ``smtp`` asks for it (STARTTLS) off loopback."""

    host: str
    port: int
    tls_from_start: bool
    user: str | None
    password: str | None
    sender: str
    recipients: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Mail(host={self.host!r}, recipients={self.recipients!r}, …)"


def parse_webhook(url: str, secret_file: Path | None, *, allow_private: bool) -> Webhook:
    """Return the webhook at ``url``, signed with the content of ``secret_file``.

    Raises:
        SetupError: the address or the secret cannot be meant.
    """
    parts = urlsplit(url)
    if parts.scheme not in ({"https", "http"} if allow_private else {"https"}) or not parts.hostname or parts.username:
        raise SetupError("--webhook-url must be https:// (http:// only with --webhook-private) without a user")
    if secret_file is None:
        raise SetupError("--webhook-url needs --webhook-secret-file: whoever receives it checks who sent it by that")
    secret = _read_secret(secret_file, "--webhook-secret-file")
    if len(secret) < SECRET_MIN_CHARS:
        raise SetupError(f"--webhook-secret-file {str(secret_file)!r} holds under {SECRET_MIN_CHARS} characters")
    return Webhook(url=url, secret=secret, allow_private=allow_private)


def parse_mail(url: str, password_file: Path | None, *, sender: str | None, recipients: tuple[str, ...]) -> Mail:
    """Return how mail is sent through ``smtp://[USER@]HOST[:587]`` or ``smtps://…[:465]``.

    Raises:
        SetupError: the address cannot be meant, or sender or recipients are missing.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SetupError(f"--smtp-url {url!r}: {error}") from error
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.password or parts.path.strip("/"):
        raise SetupError("--smtp-url must be like smtps://user@mail.example.com:465; its password is in a file")
    if sender is None or not recipients:
        raise SetupError("--smtp-url needs --mail-from and at least one --mail-to")
    if parts.username and password_file is None:
        raise SetupError("--smtp-url names a user; give --smtp-password-file too")
    tls = parts.scheme == "smtps"
    return Mail(
        host=parts.hostname,
        port=port or (465 if tls else 587),
        tls_from_start=tls,
        user=parts.username,
        password=_read_secret(password_file, "--smtp-password-file") if password_file is not None else None,
        sender=sender,
        recipients=recipients,
    )


def _read_secret(path: Path, flag: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"cannot read {flag} {str(path)!r}: {error}") from error


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
        """Send what is due, for ever."""
        if self._webhook is None and self._mail is None:
            return
        while True:
            wait_s = 60.0
            # Before the look, so that what is stored right after it is news.
            news = self._database.news
            try:
                waiting = await self._database.read(partial(store.next_notifications, limit=20))
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

    async def _try(self, one: Notification) -> None:
        try:
            with trio.fail_after(TIMEOUT_S * 3):
                if one.channel == "webhook" and self._webhook is not None:
                    await self._post(self._webhook, one)
                elif one.channel == "mail" and self._mail is not None:
                    await trio.to_thread.run_sync(partial(send_mail, self._mail, one.body), abandon_on_cancel=True)
        except (NotDelivered, OSError, httpx2.HTTPError, smtplib.SMTPException, trio.TooSlowError) as error:
            await self._later(one, str(error) or type(error).__name__)
        else:
            await self._database.write(partial(store.delete_notification, notification_id=one.id), durable=False)

    async def _later(self, one: Notification, why: str) -> None:
        attempts = one.attempts + 1
        at_ms = now_ms()
        _log.warning("notification_failed", channel=one.channel, attempt=attempts, error=why[:500])

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

        if attempts >= ATTEMPTS_MAX:
            await self._database.write(give_up)
        else:
            await self._database.write(
                partial(
                    store.postpone_notification,
                    notification_id=one.id,
                    next_ms=at_ms + FIRST_RETRY_MS * 3 ** (attempts - 1),
                    attempts=attempts,
                )
            )

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
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, verify=verify, trust_env=False) as http:
            # The certificate is checked against the name, the connection goes to the address that was judged.
            reply = await http.post(url, content=one.body.encode(), headers=headers, extensions={"sni_hostname": host})
        if not 200 <= reply.status_code < 300:
            raise NotDelivered(f"the webhook answered {reply.status_code}")


async def judged_address(host: str, port: int, *, allow_private: bool) -> str:
    """Return the address to connect to.

    Raises:
        NotDelivered: one of the name's addresses is not public, and that is not granted.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        parsed = ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        if not allow_private and (not mapped.is_global or mapped.is_multicast):
            raise NotDelivered(f"the webhook's host {host!r} has the address {address}, which is not public")
    if not addresses:
        raise NotDelivered(f"the webhook's host {host!r} has no address")
    return addresses[0]


def _message(record: ApprovalRecord, public_url: str) -> dict[str, Any]:
    cut = len(record.command) > COMMAND_SHOWN_CHARS
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
            "requested_by": record.requested_by,
            "expires_at": iso_time(record.expires_ms),
        },
        "url": f"{public_url}/api/v1/approvals/{record.id}",
    }


def send_mail(mail: Mail, body: str) -> None:
    """Send the message about one question; blocks.

    Raises:
        OSError, smtplib.SMTPException: it did not arrive.
    """
    facts = msgspec.json.decode(body)
    asked = facts["approval"]
    message = EmailMessage()
    where = "".join(letter for letter in str(asked["environment"] or asked["environment_id"]) if letter.isprintable())
    message["Subject"] = f"[guardhouse] somebody waits for an approval on {where}"
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message["X-Guardhouse-Approval"] = asked["id"]
    lines = [
        f"{asked['requested_by']} asks to run on {where}:",
        "",
        "  " + asked["command"].replace("\n", "\n  ") + (" […]" if asked["command_is_cut"] else ""),
        "",
        *([f"The program that waits: {asked['argv']}", ""] if asked["argv"] else []),
        f"Rule: {asked['rule']} ({asked['place']}) {asked['because']}",
        f"Without an answer it is denied at {asked['expires_at']}.",
        "",
        f"  guardhouse approval show {asked['id']}",
        f"  guardhouse approval approve {asked['id']}",
        f"  guardhouse approval deny {asked['id']} --note WHY",
    ]
    message.set_content("\n".join(lines) + "\n")
    context = ssl.create_default_context()
    if mail.tls_from_start:
        client: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_S, context=context)
    else:
        client = smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S)
    with client:
        if not mail.tls_from_start and not _is_loopback(mail.host):
            client.starttls(context=context)
        if mail.user is not None and mail.password is not None:
            client.login(mail.user, mail.password)
        client.send_message(message)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
