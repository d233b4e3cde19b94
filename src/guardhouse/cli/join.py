"""`guardhouse join`: this machine makes a key and swaps a join token for an environment. Wiring only."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from guardhouse.cli.client import ClientError, HubClient, HubUnreachable, Settings, check_url, print_json
from guardhouse.cli.exit_codes import ExitCode

__all__ = ["join"]

TOKEN_MAX_BYTES: Final = 4_096


@click.command()
@click.option("--hub", metavar="URL", required=True, envvar="GUARDHOUSE_HUB_URL", show_envvar=True, help="The hub.")
@click.option("--join-token-file", required=True, metavar="FILE", help="Holds the join token; - reads standard input.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The key's new file (0600).")
@click.option("--ca-file", envvar="GUARDHOUSE_CA_FILE", show_envvar=True, help="CA that signed the hub's certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def join(*, hub: str, join_token_file: str, out: Path, ca_file: str | None, as_json: bool) -> None:
    """Make a key on this machine and swap a join token for an environment that only this key opens.

    Then: guardhouse run --url CONNECT_URL --token-file OUT. Exit 4: the token is unknown, over or used up.
    """
    try:
        check_url(hub)
        joined = _join(hub, _read_token(join_token_file), out, ca_file)
    except ClientError as error:
        click.echo(f"guardhouse join: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        print_json({**joined, "key_file": str(out)})
        return
    click.echo(joined["environment_id"])
    click.echo(f"guardhouse run --url {joined['connect_url']} --token-file {out}", err=True)


def _read_token(file: str) -> str:
    try:
        if file == "-":
            text = sys.stdin.read(TOKEN_MAX_BYTES).strip()
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(TOKEN_MAX_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"cannot read the join token from {file!r}: {error}", exit_code=ExitCode.USAGE) from error
    if not text.startswith("ghj_") or not text.isascii() or len(text.split()) != 1:
        raise ClientError(
            f"{file!r} holds no join token (ghj_…); make one with 'guardhouse env join-token create'",
            exit_code=ExitCode.USAGE,
        )
    return text


def _join(hub: str, token: str, out: Path, ca_file: str | None) -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from guardhouse.wire.proof import format_key, join_text

    key = Ed25519PrivateKey.generate()
    public_key = key.public_key().public_bytes_raw()
    body = {
        "token": token,
        "public_key": public_key.hex(),
        "signature": key.sign(join_text(token=token, public_key=public_key)).hex(),
    }
    try:
        # Before the token is used up: a place that cannot be written costs nothing then.
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ClientError(f"cannot make {str(out)!r}: {error.strerror}", exit_code=ExitCode.USAGE) from error
    with os.fdopen(fd, "w") as file:
        try:
            settings = Settings(hub.rstrip("/"), "", Path(ca_file) if ca_file else None)
            with HubClient(settings) as client:
                joined = _ask(client, body)
        except ClientError:
            out.unlink()
            raise
        file.write(format_key(joined["environment_id"], key.private_bytes_raw()) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return joined


def _ask(client: HubClient, body: dict[str, str]) -> dict[str, Any]:
    """Ask again where no answer came: the hub knows the key and takes no second use for it."""
    for wait_s in (1.0, 2.0, 4.0):
        try:
            return client.request("POST", "/api/v1/join", body=body)
        except HubUnreachable as error:
            click.echo(f"guardhouse join: {error}; trying again", err=True)
            time.sleep(wait_s)
    return client.request("POST", "/api/v1/join", body=body)
