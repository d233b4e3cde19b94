"""`guardhouse run`: flags and environment to a `RunnerConfig`, the token out of sight, then the runner.

The options are made from `runner.settings.SETTINGS`. Wiring only.
"""

import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.runner.config import CONFIG_FILE_MAX_BYTES, ConfigError, Identity, resolve_config
from guardhouse.runner.settings import SETTINGS, Setting, environment_names

__all__ = ["run"]


def _option(setting: Setting) -> Callable[[Any], Any]:
    variables = ", ".join(environment_names(setting))
    text = f"{setting.purpose} [environment: {variables}; default: {setting.default}]"
    if setting.is_repeatable:
        return click.option(setting.flag, setting.name, multiple=True, metavar="TEXT", help=text)
    if setting.is_switch:
        # `--flag` alone means true; `--flag=false` takes back what the environment says.
        return click.option(setting.flag, setting.name, is_flag=False, flag_value="true", default=None, help=text)
    return click.option(setting.flag, setting.name, default=None, metavar="TEXT", help=text)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
        if setting.seed_flag is not None:
            command = click.option(setting.seed_flag, _seed_name(setting), default=None, hidden=True)(command)
    return command


def _seed_name(setting: Setting) -> str:
    return f"seed_{setting.name}"


def _flags(given: dict[str, Any]) -> dict[str, str | None]:
    """Return one text for each setting: repeated flags joined, the seed's flags under our names."""
    flags: dict[str, str | None] = {}
    for setting in SETTINGS:
        value = given[setting.name]
        if setting.is_repeatable:
            value = ":".join(value) or None
        seed_value = given[_seed_name(setting)] if setting.seed_flag is not None else None
        if value is not None and seed_value is not None:
            raise ConfigError(f"{setting.flag} and {setting.seed_flag} are both given; keep {setting.flag}")
        flags[setting.name] = seed_value if value is None else value
    return flags


@click.command(name="run")
@_options
@click.option(
    "--config",
    "config_file",
    default=None,
    metavar="FILE",
    help="YAML file with any of these settings but the token. [environment: GUARDHOUSE_CONFIG]",
)
def run(config_file: str | None, **given: Any) -> None:
    """Join a hub and carry out its tasks on this host, inside the sandbox and under the policy.

    A flag beats the environment, which beats the file, which beats the default. SIGTERM drains, a second one ends
    at once.
    """
    file_name = config_file or os.environ.get("GUARDHOUSE_CONFIG") or None
    try:
        config = resolve_config(
            _flags(given),
            os.environ,
            identity=Identity(effective_uid=os.geteuid(), home=_home()),
            file_text=_read_config(file_name) if file_name is not None else None,
            file_name=file_name or "",
        )
        if config.token_file is None:
            from guardhouse.runner.credential import hide_token

            hide_token(config.token_place, argv=sys.orig_argv, environ=os.environ)
    except ConfigError as error:
        click.echo(f"guardhouse run: {error}", err=True)
        sys.exit(ExitCode.USAGE)
    from guardhouse.runner import boot

    protected = (Path(file_name).absolute(),) if file_name is not None else ()
    statuses = {
        boot.Ending.DRAINED: ExitCode.OK,
        boot.Ending.STOPPED: ExitCode.INTERRUPTED,
        boot.Ending.TOKEN_REFUSED: ExitCode.NOT_AUTHORIZED,
        boot.Ending.CERTIFICATE_REFUSED: ExitCode.UNAVAILABLE,
    }
    sys.exit(statuses[boot.run(config, protected_paths=protected)])


def _home() -> Path | None:
    home = os.environ.get("HOME")
    if home and Path(home).is_absolute():
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return None


def _read_config(file_name: str) -> str:
    try:
        with Path(file_name).open("rb") as file:
            content = file.read(CONFIG_FILE_MAX_BYTES + 1)
        return content.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"--config: cannot read {file_name!r}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config: {file_name!r} is not UTF-8 text; is it the right file?") from None
