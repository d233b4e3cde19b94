"""E-mail to people who may answer a question: where it goes, what it says, and how it is sent.

What came from a runner stands in the body alone, or in a header without anything that could begin another. Runs in the
hub, sending in a thread.
"""

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import HeaderParseError, MessageDefect
from email.headerregistry import Address, AddressHeader, HeaderRegistry
from email.message import EmailMessage
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from guardhouse.errors import SetupError
from guardhouse.hub.approvals.secret_file import read_secret

__all__ = ["Mail", "build_message", "parse_mail", "send_mail"]

TIMEOUT_S: Final = 10.0
_HEADERS: Final = HeaderRegistry()


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


def parse_mail(url: str, password_file: Path | None, *, sender: str | None, recipients: tuple[str, ...]) -> Mail:
    """Return how mail is sent through ``smtp://[USER@]HOST[:587]`` or ``smtps://…[:465]``.

    Raises:
        SetupError: an address cannot be meant, or sender or recipients are missing.
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
    _check_address("--mail-from", sender)
    for recipient in recipients:
        _check_address("--mail-to", recipient)
    if parts.username and password_file is None:
        raise SetupError("--smtp-url names a user; give --smtp-password-file too")
    tls = parts.scheme == "smtps"
    return Mail(
        host=parts.hostname,
        port=port or (465 if tls else 587),
        tls_from_start=tls,
        user=parts.username,
        password=read_secret(password_file, "--smtp-password-file") if password_file is not None else None,
        sender=sender,
        recipients=recipients,
    )


def _check_address(flag: str, text: str) -> Address:
    """Return the one address in ``text``; anything else would be refused when somebody waits, or be another header."""
    try:
        header = _HEADERS("to", text)
        addresses, defects = cast(AddressHeader, header).addresses, header.defects
    except (ValueError, IndexError, HeaderParseError, MessageDefect):
        addresses, defects = (), ()
    # A mail server need not take names beyond ASCII (RFC 6531), and a message is not to find that out.
    if (
        len(addresses) != 1
        or defects
        or not text.isprintable()
        or not addresses[0].addr_spec.isascii()
        or not addresses[0].username
        or not addresses[0].domain
    ):
        raise SetupError(
            f"{flag} {text!r} is not one address such as ops@example.com or 'Operations <ops@example.com>', in ASCII"
        )
    return addresses[0]


def build_message(mail: Mail, body: str, *, notification_id: str, created_ms: int) -> EmailMessage:
    """Return the message about one question; the same each time that it is tried.

    Args:
        body: the JSON of `guardhouse.hub.approvals.notify`.
        created_ms: when it was put on its way, Unix ms.
    """
    facts = msgspec.json.decode(body)
    asked = facts["approval"]
    message = EmailMessage()
    where = "".join(letter for letter in str(asked["environment"] or asked["environment_id"]) if letter.isprintable())
    message["Subject"] = f"[guardhouse] somebody waits for an approval on {where}"
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message["Date"] = format_datetime(datetime.fromtimestamp(created_ms / 1000, tz=UTC))
    # One that is tried again after it did arrive is known by this as the same.
    domain = _check_address("--mail-from", mail.sender).domain
    message["Message-ID"] = f"<{notification_id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Guardhouse-Approval"] = asked["id"]
    lines = [
        f"{asked['requested_by']} asks to run on {where}:",
        "",
        "  " + asked["command"].replace("\n", "\n  ") + (" […]" if asked["command_is_cut"] else ""),
        "",
        *([f"The program that waits: {asked['argv']}", ""] if asked["argv"] else []),
        f"Rule: {asked['rule']} ({asked['place']}) {asked['because']}",
        *(f"Also asks: {also['rule']} ({also['place']})" for also in (asked.get("asking") or [])[1:]),
        f"Without an answer it is denied at {asked['expires_at']}.",
        "",
        f"  guardhouse approval show {asked['id']}",
        f"  guardhouse approval approve {asked['id']}",
        f"  guardhouse approval deny {asked['id']} --note WHY",
        "",
        f"At the hub: {facts['url']}",
    ]
    message.set_content("\n".join(lines) + "\n")
    return message


def send_mail(mail: Mail, message: EmailMessage) -> None:
    """Send a message; blocks.

    Raises:
        OSError, smtplib.SMTPException: it did not arrive.
    """
    context = ssl.create_default_context()
    if mail.tls_from_start:
        client: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_S, context=context)
    else:
        client = smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S)
    try:
        if not mail.tls_from_start and not _is_loopback(mail.host):
            client.starttls(context=context)
        if mail.user is not None and mail.password is not None:
            client.login(mail.user, mail.password)
        client.send_message(message)
    finally:
        # It is the server's by now, or not; how it says goodbye changes nothing, and a second copy would help nobody.
        with suppress(OSError, smtplib.SMTPException):
            client.quit()
        client.close()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
