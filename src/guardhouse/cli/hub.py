"""`guardhouse hub`: flags and environment to a `HubConfig`, then the hub. Wiring only."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from guardhouse import __version__
from guardhouse.cli.client import print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.hub_managed import managed_options, managed_settings
from guardhouse.cli.hub_mcp import mcp_limits, mcp_options
from guardhouse.errors import SetupError
from guardhouse.hub.approvals.mail import parse_mail
from guardhouse.hub.approvals.notify import parse_webhook
from guardhouse.hub.approvals.rules import Rules
from guardhouse.hub.config import DEFAULT_LISTEN, LOG_FORMATS, LOG_LEVELS, HubConfig, check_otlp_endpoint, parse_listen
from guardhouse.hub.forwarded import parse_networks
from guardhouse.hub.oidc.settings import parse_oidc

__all__ = ["hub"]

C = TypeVar("C", bound=Callable[..., Any])


def _default_state_dir() -> str:
    if os.environ.get("STATE_DIRECTORY"):
        return os.environ["STATE_DIRECTORY"].split(":")[0]
    if os.geteuid() == 0:
        return "/var/lib/guardhouse-hub"
    base = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return f"{base}/guardhouse-hub"


def _option(flag: str, *names: str, **settings: Any) -> Callable[[C], C]:
    variable = "GUARDHOUSE_HUB_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *names, envvar=variable, show_envvar=True, show_default=True, **settings)


_STATE_DIR = _option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=_default_state_dir,
    help="Database, keys and the owner's token; mode 0700.",
)
_DATABASE = _option(
    "--database",
    metavar="URL",
    help="Keep the store at postgresql://USER@HOST/NAME instead of in the state directory.",
)


def _check_database(context: click.Context, database: str | None) -> None:
    """Refuse a password where every account of the host can read it.

    Raises:
        SetupError: it stands in the arguments.
    """
    if database is None or context.get_parameter_source("database") is not click.core.ParameterSource.COMMANDLINE:
        return
    from guardhouse.hub.backends.postgresql import connection_parameters

    if connection_parameters(database).get("password"):
        raise SetupError(
            "--database: a password in the arguments is readable for every account of this host;"
            " put the address in GUARDHOUSE_HUB_DATABASE, or the password in a file that PGPASSFILE names"
        )


@click.group(invoke_without_command=True)
@_option("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="Where to serve; port 0 takes a free one.")
@_STATE_DIR
@_DATABASE
@_option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@_option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM.")
@_option("--public-url", metavar="URL", help="Where clients and runners reach the hub, if not where it listens.")
@_option("--behind-proxy", is_flag=True, help="Allow plain HTTP off loopback: a proxy in front speaks TLS.")
@_option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="Least level that is logged.")
@_option("--log-format", type=click.Choice(LOG_FORMATS), default="json", help="For machines, or for people.")
@_option("--queue-limit", type=click.IntRange(0), default=1_000, help="Tasks that may wait for one environment.")
@_option("--in-flight-limit", type=click.IntRange(1), default=64, help="Tasks given to one runner at a time.")
@_option("--retention-days", type=click.IntRange(0), default=90, help="Finished tasks are kept so long; 0: for ever.")
@_option("--runner-version", default=__version__, help="What runners should be; older ones are shown as upgradable.")
@_option("--install-url", metavar="URL", help="https address where hosts fetch the release from; the guide uses it.")
@_option("--oidc-issuer", metavar="URL", help="Let people sign in through this OpenID Connect provider.")
@_option("--oidc-client-id", metavar="ID", help="How the provider knows this hub.")
@_option("--oidc-client-secret-file", type=click.Path(path_type=Path), help="The secret of that registration.")
@_option("--oidc-scope", multiple=True, help="Asked for at sign-in; openid, email and profile unless given.")
@_option("--oidc-domain", multiple=True, help="Only people with a verified address of this domain; may be repeated.")
@_option("--oidc-provision", type=click.Choice(["off", "member"]), default="off", help="Make unknown people members.")
@_option("--oidc-groups-claim", default="groups", help="The claim whose values --oidc-map speaks of.")
@_option("--oidc-map", multiple=True, metavar="VALUE=WHAT", help="What a group gives: admin, or team:NAME.")
@_option("--oidc-access-tokens", is_flag=True, help="Take the provider's JWT access tokens at the API and at /mcp.")
@_option("--oidc-ca-file", type=click.Path(path_type=Path), help="The CA that signed the provider's certificate.")
@_option("--rate-per-minute", type=click.IntRange(0), default=60_000, help="Requests of one token or person; 0: all.")
@_option("--public-rate-per-minute", type=click.IntRange(0), default=6_000, help="Of one address without either.")
@_option("--two-people", is_flag=True, help="Two different people must approve what a rule asks about.")
@_option("--no-own-approvals", is_flag=True, help="Nobody approves what they, or a token of theirs, asked for.")
@_option("--webhook-url", metavar="URL", help="Post here when somebody waits for an approval; https.")
@_option("--webhook-secret-file", type=click.Path(path_type=Path), help="What webhooks are signed with (HMAC-SHA256).")
@_option("--webhook-private", is_flag=True, help="Let the webhook go to an address that is not public.")
@_option("--smtp-url", metavar="URL", help="Mail them too, through smtps://[USER@]HOST[:PORT] or smtp:// (STARTTLS).")
@_option("--smtp-password-file", type=click.Path(path_type=Path), help="The password of the user in --smtp-url.")
@_option("--mail-from", metavar="ADDRESS", help="Who mail comes from.")
@_option("--mail-to", multiple=True, metavar="ADDRESS", help="Who is mailed; may be repeated.")
@_option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="NETWORK",
    help="Believe X-Forwarded-For from there (10.0.0.1/32); may be given several times.",
)
@mcp_options(_option)
@managed_options(_option)
@_option("--audit-syslog", metavar="TARGET", help="Send audit records to udp://HOST:514, tcp://… or unix:/dev/log.")
@_option("--otlp-endpoint", metavar="URL", help="Post traces to this OpenTelemetry collector (OTLP/HTTP).")
@click.pass_context
def hub(
    context: click.Context,
    /,
    *,
    listen: str,
    state_dir: Path,
    database: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    public_url: str | None,
    behind_proxy: bool,
    log_level: str,
    log_format: str,
    queue_limit: int,
    in_flight_limit: int,
    retention_days: int,
    runner_version: str,
    install_url: str | None,
    rate_per_minute: int,
    public_rate_per_minute: int,
    oidc_issuer: str | None,
    oidc_client_id: str | None,
    oidc_client_secret_file: Path | None,
    oidc_scope: tuple[str, ...],
    oidc_domain: tuple[str, ...],
    oidc_provision: Literal["off", "member"],
    oidc_groups_claim: str,
    oidc_map: tuple[str, ...],
    oidc_access_tokens: bool,
    oidc_ca_file: Path | None,
    trusted_proxies: tuple[str, ...],
    two_people: bool,
    no_own_approvals: bool,
    webhook_url: str | None,
    webhook_secret_file: Path | None,
    webhook_private: bool,
    smtp_url: str | None,
    smtp_password_file: Path | None,
    mail_from: str | None,
    mail_to: tuple[str, ...],
    audit_syslog: str | None,
    managed_sandbox: bool,
    otlp_endpoint: str | None,
    mcp_rate_per_minute: int,
    mcp_calls: int,
    mcp_streams: int,
    mcp_sessions: int,
    **managed: Any,
) -> None:
    """Serve environments, tasks and the REST API; runners dial in here.

    The first start makes an API token for the owner and says which file it is in. SIGTERM shuts down gracefully,
    a second one at once.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        host, port = parse_listen(listen)
        _check_database(context, database)
        config = HubConfig(
            state_dir=state_dir,
            database=database,
            host=host,
            port=port,
            tls_certificate=tls_cert,
            tls_key=tls_key,
            public_url=public_url,
            behind_proxy=behind_proxy,
            log_level=log_level,
            log_format=log_format,
            queue_limit=queue_limit,
            in_flight_limit=in_flight_limit,
            retention_days=retention_days,
            runner_version=runner_version,
            install_url=install_url,
            trusted_proxies=parse_networks(trusted_proxies),
            approval_rules=Rules(two_people=two_people, own_requests=not no_own_approvals),
            webhook=None
            if webhook_url is None
            else parse_webhook(webhook_url, webhook_secret_file, allow_private=webhook_private),
            mail=None
            if smtp_url is None
            else parse_mail(smtp_url, smtp_password_file, sender=mail_from, recipients=mail_to),
            audit_syslog=audit_syslog,
            rate_per_minute=rate_per_minute,
            public_rate_per_minute=public_rate_per_minute,
            mcp=mcp_limits(
                mcp_rate_per_minute=mcp_rate_per_minute,
                mcp_calls=mcp_calls,
                mcp_streams=mcp_streams,
                mcp_sessions=mcp_sessions,
            ),
            managed=managed_settings(state_dir, **managed) if managed_sandbox else None,
            oidc=None
            if oidc_issuer is None
            else parse_oidc(
                oidc_issuer,
                oidc_client_id,
                oidc_client_secret_file,
                scopes=oidc_scope,
                domains=oidc_domain,
                provision=oidc_provision,
                groups_claim=oidc_groups_claim,
                maps=oidc_map,
                access_tokens=oidc_access_tokens,
                ca_file=oidc_ca_file,
            ),
            otlp_endpoint=None if otlp_endpoint is None else check_otlp_endpoint(otlp_endpoint),
        )
    except SetupError as error:
        click.echo(f"guardhouse hub: {error}", err=True)
        sys.exit(ExitCode.USAGE)
    from guardhouse.hub.process import run

    token_file = state_dir / "owner.token"

    def announce(url: str, owner_link: str | None) -> None:
        click.echo(f"guardhouse hub: listening on {url}", err=True)
        click.echo(f"guardhouse hub: owner's API token is in {token_file}", err=True)
        if owner_link is not None:
            # A journal keeps what is printed, and more people read it than may become the owner.
            shown = owner_link if sys.stderr.isatty() else f"in {state_dir / 'owner.link'}"
            click.echo(f"guardhouse hub: no owner yet; the one-time link to become it (24 h) is {shown}", err=True)

    sys.exit(run(config, announce=announce))


@hub.command("init")
@_STATE_DIR
@_DATABASE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def init(context: click.Context, *, state_dir: Path, database: str | None, as_json: bool) -> None:
    """Make state directory, keys, database and the owner's token without serving."""
    from guardhouse.hub.bootstrap import initialise

    _check_database(context, database)
    initialise(HubConfig(state_dir=state_dir, database=database)).close()
    token_file = state_dir / "owner.token"
    if as_json:
        print_json({"state_dir": str(state_dir), "owner_token_file": str(token_file)})
    else:
        click.echo(token_file)


@hub.command("rotate-sealing-key")
@_STATE_DIR
@_DATABASE
@click.pass_context
def rotate(context: click.Context, *, state_dir: Path, database: str | None) -> None:
    """Seal the runner tokens under a new key. Stop the hub first; tokens stay as they are, runners notice nothing."""
    from guardhouse.hub.sealing import change_sealing_key

    _check_database(context, database)
    count = change_sealing_key(HubConfig(state_dir=state_dir, database=database))
    click.echo(f"sealed {count} runner tokens under a new key; back sealing.key up anew", err=True)


@hub.command("rotate-audit-key")
@_STATE_DIR
@_DATABASE
@click.option("--key-lost", is_flag=True, help="audit.key is lost for good: go on without its word, which stays seen.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def rotate_audit(
    context: click.Context, *, state_dir: Path, database: str | None, key_lost: bool, as_json: bool
) -> None:
    """Let a new key sign the audit log; the old one signs for it. Stop the hub first. Prints the new public key."""
    from guardhouse.hub.audit.rotate import change_audit_key

    _check_database(context, database)
    made = change_audit_key(HubConfig(state_dir=state_dir, database=database), is_lost=key_lost)
    if as_json:
        facts = {"old_key_id": made.old_key_id, "key_id": made.key_id, "public_key": made.public_key, "seq": made.seq}
        print_json(facts)
        return
    click.echo(made.public_key)
    click.echo(
        f"record {made.seq}: key {made.key_id} signs from here on, {made.old_key_id} no more; keep the new public key"
        " where this host cannot change it, back audit.key up, and keep the old one with the backups made before",
        err=True,
    )


@hub.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@_STATE_DIR
@_DATABASE
@click.option("--with-keys", is_flag=True, help="Put sealing.key and audit.key in: whoever reads it has every token.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def backup(
    context: click.Context, *, file: Path, state_dir: Path, database: str | None, with_keys: bool, as_json: bool
) -> None:
    """Write everything the hub keeps to the new file FILE, while it runs or not; nothing is ever overwritten."""
    from guardhouse.hub.backup import make_backup

    _check_database(context, database)
    made = make_backup(HubConfig(state_dir=state_dir, database=database), file, with_keys=with_keys)
    if as_json:
        facts = {"file": str(made.path), "bytes": made.size_bytes, "sha256": made.digest, "has_keys": made.has_keys}
        print_json({**facts, "rows": made.rows})
        return
    click.echo(f"{made.path}: {sum(made.rows.values())} rows, {made.size_bytes} bytes, sha256 {made.digest}")
    if not with_keys:
        click.echo(
            "without keys: keep sealing.key and audit.key elsewhere; they change only when you change them", err=True
        )


@hub.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@_STATE_DIR
@_DATABASE
@click.option("--accept-broken-audit", is_flag=True, help="Restore although the audit log in it does not verify.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def restore(
    context: click.Context,
    *,
    file: Path,
    state_dir: Path,
    database: str | None,
    accept_broken_audit: bool,
    as_json: bool,
) -> None:
    """Put the backup FILE where no store is yet, of either kind; all of it, verified, or nothing."""
    from guardhouse.hub.backup import restore_backup

    _check_database(context, database)
    config = HubConfig(state_dir=state_dir, database=database)
    found = restore_backup(config, file, accept_broken_audit=accept_broken_audit)
    report = found.audit
    if as_json:
        facts = {"step": found.header.step, "made_ms": found.header.made_ms, "hub_version": found.header.hub_version}
        checked = {"good": report.is_good, "records": report.records, "signed_to": report.signed_to}
        print_json({**facts, "rows": found.rows, "audit": checked})
        return
    state = "verifies" if report.is_good else f"has {report.problem_count} problems"
    click.echo(f"restored {sum(found.rows.values())} rows; the audit log of {report.records} records {state}")
