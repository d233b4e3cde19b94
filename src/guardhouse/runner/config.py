"""What `guardhouse run` was told, from flags, environment, file and defaults, as one checked value.

A pure function of what it is handed: it reads no file, no environment and no clock, and it never keeps the
token: the configuration only says where the token is, to be read after the launcher has started. Runs in the
boot process.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import yaml

from guardhouse.errors import SetupError
from guardhouse.limits import APPROVAL_TIMEOUT_DEFAULT_S, APPROVAL_TIMEOUT_MAX_S, DRAIN_TIMEOUT_S
from guardhouse.runner.bounds import (
    FetchBounds,
    WorkspaceBounds,
    parse_age,
    parse_fetch_size,
    parse_fetch_timeout,
    parse_file_count,
    parse_networks,
    parse_size,
)
from guardhouse.runner.hub_url import HubUrl, parse_hub_url
from guardhouse.runner.settings import SETTINGS, Setting, environment_names

__all__ = [
    "CONFIG_FILE_MAX_BYTES",
    "ConfigError",
    "Identity",
    "Protocol",
    "RunnerConfig",
    "resolve_config",
    "resolve_workspace_bounds",
]

CONFIG_FILE_MAX_BYTES: Final = 256 * 1024
_MAX_TASKS_LIMIT: Final = 256
_DRAIN_LIMIT_S: Final = 3600.0
_LOG_LEVELS: Final = {"debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error"}
_SWITCHES: Final = {
    "true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip

T = TypeVar("T")


class ConfigError(SetupError):
    """A setting has a value that cannot be used. The text names source, value and next step."""


class Protocol(StrEnum):
    """Which protocol the runner offers the platform."""

    AUTO = "auto"
    V1 = "v1"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who started the runner: what decides the defaults. ``home`` is None where no home directory is known."""

    effective_uid: int
    home: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """Everything `guardhouse run` was told, checked. Holds no token.

    Attributes:
        token_place: the flag, variable or file that gives the token, for messages.
        token_file: the file to read it from; None when ``token_place`` is a flag or variable that holds it.
        workspace_is_default: nobody named the workspace, so it may be made.
        drain_timeout_s: seconds that tasks get after the first SIGTERM.
        tags: this host's, for rules with conditions; None where it was given none.
        approval_timeout_s: how long a question waits for people.
    """

    url: HubUrl
    token_place: str
    token_file: Path | None
    workspace: Path
    workspace_is_default: bool
    state_directory: Path
    log_level: str
    policy: str
    policy_keys: tuple[Path, ...]
    shadow_policy: str | None
    ask_bashlex: bool
    redact_files: tuple[Path, ...]
    profile: str
    mcp_profile: str
    ca_file: Path | None
    tls_min_version: str
    insecure_skip_tls_verify: bool
    protocol: Protocol
    name: str | None
    run_as: str | None
    drain_timeout_s: float
    max_tasks: int
    workspace_bounds: WorkspaceBounds
    fetch_bounds: FetchBounds
    tags: frozenset[str] | None = None
    approval_timeout_s: float = APPROVAL_TIMEOUT_DEFAULT_S


@dataclass(frozen=True, slots=True)
class _Given:
    """One setting's text and the place that it came from, for messages."""

    text: str
    place: str

    def read_as(self, parse: Callable[[str], T], *, show_value: bool = True) -> T:
        try:
            return parse(self.text)
        except ValueError as error:
            shown = repr(self.text) if show_value else "the value"
            raise ConfigError(f"{self.place}: {shown} {error}") from None


def resolve_config(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    identity: Identity,
    file_text: str | None = None,
    file_name: str = "",
) -> RunnerConfig:
    """Return the runner's configuration: a flag beats the environment, which beats the file and the default.

    Args:
        flags: the text of each flag by setting name (see `settings.SETTINGS`); None or absent when not given.
        environ: the process environment; an empty value counts as not set.
        identity: who runs this, which decides where state lives by default.
        file_text: the configuration file's content, YAML: one mapping of setting names to plain values.
        file_name: the file's name, for messages.

    Raises:
        ConfigError: a value cannot be used, or the address or every source of a token is missing.
    """
    in_file = _read_file(file_text, file_name) if file_text is not None else {}
    given = {
        setting.name: found for setting in SETTINGS if (found := _find(setting, flags, environ, in_file)) is not None
    }

    def optional(name: str, parse: Callable[[str], T]) -> T | None:
        return given[name].read_as(parse) if name in given else None

    def value(name: str, parse: Callable[[str], T], default: T) -> T:
        return given[name].read_as(parse) if name in given else default

    if "url" not in given:
        raise ConfigError("url is required: use --url or set GUARDHOUSE_URL to wss://HOST[:PORT][/PATH]")
    # The address is not repeated in a message: a token pasted into it would be.
    url = given["url"].read_as(parse_hub_url, show_value=False)
    token_place, token_file = _token_source(flags, environ, in_file)
    state_directory = optional("state_dir", _absolute_path) or _default_state_directory(environ, identity)
    workspace = optional("workspace", _absolute_path)
    return RunnerConfig(
        url=url,
        token_place=token_place,
        token_file=token_file,
        workspace=workspace or state_directory / "workspace",
        workspace_is_default=workspace is None,
        state_directory=state_directory,
        log_level=value("log_level", _log_level, "info"),
        policy=value("policy", _non_empty, "read_only"),
        policy_keys=value("policy_key", _paths, ()),
        shadow_policy=optional("shadow_policy", _non_empty),
        ask_bashlex=value("ask_bashlex", _switch, default=False),
        redact_files=value("redact_file", _paths, ()),
        profile=value("profile", _non_empty, "observe"),
        mcp_profile=value("mcp_profile", _non_empty, "mcp_server"),
        ca_file=optional("ca_file", _absolute_path),
        tls_min_version=value("tls_min_version", _tls_version, "1.3"),
        insecure_skip_tls_verify=value("insecure_skip_tls_verify", _switch, default=False),
        protocol=value("protocol", _protocol, Protocol.AUTO),
        name=optional("name", _display_name),
        run_as=optional("run_as", _user_name),
        drain_timeout_s=value("drain_timeout", _drain_timeout, DRAIN_TIMEOUT_S),
        max_tasks=value("max_tasks", _max_tasks, 8),
        workspace_bounds=_workspace_bounds(given),
        fetch_bounds=FetchBounds(
            networks=value("fetch_network", parse_networks, ()),
            timeout_s=value("fetch_timeout", parse_fetch_timeout, FetchBounds().timeout_s),
            max_bytes=value("fetch_max_size", parse_fetch_size, FetchBounds().max_bytes),
        ),
        tags=optional("tag", _tags),
        approval_timeout_s=value("approval_timeout", _approval_timeout, APPROVAL_TIMEOUT_DEFAULT_S),
    )


def resolve_workspace_bounds(
    environ: Mapping[str, str], *, file_text: str | None = None, file_name: str = ""
) -> WorkspaceBounds:
    """Return the bounds of the workspace alone, as `resolve_config` would with the same environment and file.

    Raises:
        ConfigError: a value cannot be used.
    """
    in_file = _read_file(file_text, file_name) if file_text is not None else {}
    return _workspace_bounds(
        {setting.name: found for setting in SETTINGS if (found := _find(setting, {}, environ, in_file)) is not None}
    )


def _workspace_bounds(given: Mapping[str, "_Given"]) -> WorkspaceBounds:
    default = WorkspaceBounds()

    def value(name: str, parse: Callable[[str], T], otherwise: T) -> T:
        return given[name].read_as(parse) if name in given else otherwise

    return WorkspaceBounds(
        quota_bytes=value("workspace_quota", parse_size, default.quota_bytes),
        quota_files=value("workspace_quota_files", parse_file_count, default.quota_files),
        spill_max_age_s=value("output_max_age", parse_age, default.spill_max_age_s),
        spill_max_bytes=value("output_max_size", parse_size, default.spill_max_bytes),
        stale_after_s=value("upload_max_age", parse_age, default.stale_after_s),
    )


def _find(
    setting: Setting,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    in_file: Mapping[str, _Given],
) -> _Given | None:
    flag = flags.get(setting.name)
    if flag is not None:
        return _Given(flag, setting.flag)
    for variable in environment_names(setting):
        if environ.get(variable):
            return _Given(environ[variable], variable)
    return in_file.get(setting.name)


def _token_source(
    flags: Mapping[str, str | None], environ: Mapping[str, str], in_file: Mapping[str, _Given]
) -> tuple[str, Path | None]:
    """Return where the token is and, for a file, its path. Of two equally strong sources neither is guessed."""
    if flags.get("token") is not None and flags.get("token_file") is not None:
        raise ConfigError("--token and --token-file are both given; keep --token-file")
    if flags.get("token") is not None:
        return "--token", None
    file_flag = flags.get("token_file")
    if file_flag is not None:
        return file_flag, _Given(file_flag, "--token-file").read_as(_absolute_path)
    if environ.get("GUARDHOUSE_TOKEN") and environ.get("GUARDHOUSE_TOKEN_FILE"):
        raise ConfigError("GUARDHOUSE_TOKEN and GUARDHOUSE_TOKEN_FILE are both set; keep GUARDHOUSE_TOKEN_FILE")
    if environ.get("GUARDHOUSE_TOKEN_FILE"):
        given = _Given(environ["GUARDHOUSE_TOKEN_FILE"], "GUARDHOUSE_TOKEN_FILE")
        return given.text, given.read_as(_absolute_path)
    for variable in ("GUARDHOUSE_TOKEN", "FLASHDUTY_RUNNER_TOKEN"):
        if environ.get(variable):
            return variable, None
    if "token_file" in in_file:
        return in_file["token_file"].text, in_file["token_file"].read_as(_absolute_path)
    if environ.get("CREDENTIALS_DIRECTORY"):
        # systemd.exec(5), LoadCredential=: one file a credential, readable by this service alone.
        path = Path(environ["CREDENTIALS_DIRECTORY"]) / "token"
        return str(path), path
    raise ConfigError(
        "token is required: use --token-file FILE, set GUARDHOUSE_TOKEN_FILE, give systemd LoadCredential=token:FILE,"
        " or use --token / GUARDHOUSE_TOKEN"
    )


def _default_state_directory(environ: Mapping[str, str], identity: Identity) -> Path:
    if environ.get("STATE_DIRECTORY"):
        # systemd.exec(5), StateDirectory=: several are joined by colons; the first is ours.
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    if identity.effective_uid == 0:
        return Path("/var/lib/guardhouse")
    if identity.home is None:
        raise ConfigError("no home directory is known to keep state in; use --state-dir DIRECTORY")
    return identity.home / ".guardhouse"


def _read_file(text: str, file_name: str) -> dict[str, _Given]:
    """Read the configuration file: each value stays text, so that it meets the same check as a flag."""
    if len(text.encode()) > CONFIG_FILE_MAX_BYTES:
        raise ConfigError(f"{file_name}: larger than {CONFIG_FILE_MAX_BYTES} bytes; is it the right file?")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file_name}: not valid YAML: {error}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{file_name}: must be one mapping of settings, such as 'log_level: info'")
    known = {setting.name: setting for setting in SETTINGS}
    found: dict[str, _Given] = {}
    for key_node, value_node in root.value:
        place = f"{file_name}:{key_node.start_mark.line + 1}"
        name = str(key_node.value).replace("-", "_")
        if name not in known:
            raise ConfigError(f"{place}: unknown setting {name!r}; known are {', '.join(sorted(known))}")
        if not known[name].in_file:
            raise ConfigError(f"{place}: {name!r} does not belong in this file; write 'token_file: FILE'")
        if name in found:
            raise ConfigError(f"{place}: {name!r} stands twice; keep one")
        if not isinstance(value_node, yaml.ScalarNode):
            raise ConfigError(f"{place}: {name!r} must be one plain value, not a list or mapping")
        found[name] = _Given(value_node.value, place)
    return found


def _absolute_path(text: str) -> Path:
    """Read a path; a relative one is meant from where the runner was started."""
    if not text or "\0" in text:
        raise ValueError("is no path; write the path of a file or directory")
    return Path(text).absolute()


def _paths(text: str) -> tuple[Path, ...]:
    """Read paths joined by colons, as in ``PATH``."""
    return tuple(_absolute_path(part) for part in text.split(":"))


def _non_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; write a name or a path")
    return text


def _log_level(text: str) -> str:
    level = _LOG_LEVELS.get(text.lower())
    if level is None:
        raise ValueError("is no log level; write debug, info, warn or error")
    return level


def _tls_version(text: str) -> str:
    if text not in ("1.2", "1.3"):
        raise ValueError("is not supported; write 1.3 or 1.2")
    return text


def _switch(text: str) -> bool:
    answer = _SWITCHES.get(text.lower())
    if answer is None:
        raise ValueError("is neither yes nor no; write true or false")
    return answer


def _protocol(text: str) -> Protocol:
    try:
        return Protocol(text)
    except ValueError:
        raise ValueError("is no protocol; write auto, v1 or plain") from None


def _display_name(text: str) -> str:
    # 128 characters: the seed's limit for an environment's name (SEED_FEATURES S9).
    if not text.strip() or len(text) > 128 or not text.isprintable():
        raise ValueError("is no name; write 1 to 128 printable characters")
    return text


def _user_name(text: str) -> str:
    # The form that useradd(8) accepts, or a numeric id.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10}", text):
        raise ValueError("is no user name; write a user of this host, such as guardhouse")
    if text in ("root", "0"):
        raise ValueError("would run commands with every right on this host; name an ordinary user")
    return text


def _drain_timeout(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        raise ValueError("is no number of seconds; write for example 30") from None
    if not 0 <= seconds <= _DRAIN_LIMIT_S:
        raise ValueError(f"is out of range; write 0 to {_DRAIN_LIMIT_S:.0f} seconds")
    return seconds


def _tags(text: str) -> frozenset[str]:
    tags = frozenset(text.split(":"))
    if not all(re.fullmatch(r"[\w.@/+-]{1,64}", tag) for tag in tags):
        raise ValueError("is no list of tags; write words of at most 64 letters, digits and . _ @ / + -, joined by ':'")
    return tags


def _approval_timeout(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        raise ValueError("is no number of seconds; write for example 900") from None
    if not 1 <= seconds <= APPROVAL_TIMEOUT_MAX_S:
        raise ValueError(f"is out of range; write 1 to {APPROVAL_TIMEOUT_MAX_S:.0f} seconds")
    return seconds


def _max_tasks(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MAX_TASKS_LIMIT:
        raise ValueError(f"is out of range; write 1 to {_MAX_TASKS_LIMIT}")
    return int(text)
