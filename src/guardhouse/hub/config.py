"""What a hub is started with: one frozen value, checked before anything is opened.

Knows nothing of where the values came from; `guardhouse.cli.hub` reads flags and environment. Runs in the hub.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from guardhouse import __version__
from guardhouse.errors import SetupError
from guardhouse.hub.approvals.mail import Mail
from guardhouse.hub.approvals.notify import Webhook
from guardhouse.hub.approvals.rules import Rules
from guardhouse.hub.forwarded import Network
from guardhouse.hub.managed.settings import ManagedSettings
from guardhouse.hub.mcp_limits import McpLimits
from guardhouse.hub.oidc.settings import OidcSettings

__all__ = ["HubConfig", "check_otlp_endpoint", "parse_listen"]

DEFAULT_LISTEN: Final = "127.0.0.1:8443"
_PLAIN_URL: Final = re.compile(r"https://[A-Za-z0-9._~:/%-]+")
_PLAIN_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.+-]*")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("json", "text")


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Settings of one hub process.

    Attributes:
        state_dir: holds the database, the sealing key and the lock; created with mode 0700.
        database: a PostgreSQL address that the store lies at; None for the SQLite file in ``state_dir``.
        host, port: where to listen; port 0 takes a free one.
        tls_certificate, tls_key: PEM files; both or neither.
        public_url: the base that clients and runners reach the hub at; derived from the listener when None.
        behind_proxy: plain HTTP is allowed off loopback because a proxy in front speaks TLS.
        queue_limit: tasks that may wait for one environment; more are refused.
        in_flight_limit: tasks given to one runner at a time; more wait in the hub.
        audit_syslog: where audit records are sent too, as `guardhouse.hub.audit.syslog.parse_syslog` reads it.
        trusted_proxies: whose X-Forwarded-For is believed.
        approval_rules: who may approve what.
        webhook, mail: how people are told that somebody waits for them.
        runner_version: what runners should be; an older one is shown as upgradable.
        install_url: where hosts fetch the release from, https; None: people copy it there themselves.
        rate_per_minute: requests of one token or person; 0: no limit.
        public_rate_per_minute: requests of one address to routes that anybody may ask; 0: no limit.
        mcp: what one token may have at `/mcp`.
        oidc: the identity provider that people may sign in through.
        otlp_endpoint: where spans are posted to; None: nowhere.
        managed: the managed sandboxes; None where there are none.
        retention_days: finished tasks are deleted after this; 0 keeps them for ever.
    """

    state_dir: Path
    database: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 8443
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    public_url: str | None = None
    behind_proxy: bool = False
    log_level: str = "info"
    log_format: str = "json"
    queue_limit: int = 1_000
    in_flight_limit: int = 64
    retention_days: int = 90
    runner_version: str = __version__
    install_url: str | None = None
    audit_syslog: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    approval_rules: Rules = field(default_factory=Rules)
    webhook: Webhook | None = None
    mail: Mail | None = None
    managed: ManagedSettings | None = None
    mcp: McpLimits = field(default_factory=McpLimits)
    oidc: OidcSettings | None = None
    rate_per_minute: int = 60_000
    public_rate_per_minute: int = 6_000
    otlp_endpoint: str | None = None

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SetupError("--tls-cert and --tls-key belong together; give both or neither")
        if self.tls_certificate is None and not self.behind_proxy and not is_loopback(self.host):
            raise SetupError(
                f"refusing plain HTTP on {self.host!r}: tokens and output would cross the network unprotected;"
                " give --tls-cert and --tls-key, listen on 127.0.0.1, or say --behind-proxy"
            )
        if self.public_url is not None:
            check_public_url(self.public_url)
        if self.install_url is not None:
            check_install_url(self.install_url)
        if not _PLAIN_VERSION.fullmatch(self.runner_version):
            raise SetupError(f"--runner-version {self.runner_version!r} is no version like {__version__}")
        for name, value, low in (
            ("queue limit", self.queue_limit, 0),
            ("in-flight limit", self.in_flight_limit, 1),
            ("retention in days", self.retention_days, 0),
            ("requests a minute", self.rate_per_minute, 0),
            ("public requests a minute", self.public_rate_per_minute, 0),
        ):
            if value < low:
                raise SetupError(f"{name} must be at least {low}, got {value}")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a loopback address by number, or ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_public_url(url: str) -> None:
    """Raise `SetupError` unless ``url`` is an http(s) address without credentials, query or fragment."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SetupError(f"--public-url {url!r} is not an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SetupError(f"--public-url {url!r} must not carry a user, a query or a fragment")


def check_install_url(url: str) -> None:
    """Raise `SetupError` unless ``url`` is an https address that no shell, systemd or Markdown needs to quote."""
    if not _PLAIN_URL.fullmatch(url) or not urlsplit(url).hostname:
        raise SetupError(
            f"--install-url {url!r} is not like https://files.example.com/guardhouse: https, and nothing in it but"
            " letters, digits and -._~/:%"
        )


def check_otlp_endpoint(url: str) -> str:
    """Return the address that traces are posted to: with ``/v1/traces`` where no path is given.

    Raises:
        SetupError: it is no http(s) address, or carries a user, a query or a fragment.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SetupError(f"--otlp-endpoint {url!r} is not an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SetupError(
            f"--otlp-endpoint {url!r} must not carry a user, a query or a fragment;"
            " headers come from OTEL_EXPORTER_OTLP_HEADERS"
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/v1/traces"


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT`` (all addresses).

    Raises:
        SetupError: no port, or a port outside 0 to 65535.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65_535:
        raise SetupError(f"--listen {text!r} is not HOST:PORT; for example {DEFAULT_LISTEN}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise SetupError(f"--listen {text!r}: write an IPv6 address in brackets, for example [::1]:8443")
    return host or "0.0.0.0", int(port_text)  # noqa: S104 - asked for by writing no host, and refused without TLS
