"""What `guardhouse run` makes of flags, environment and file; a table, since it is a pure function."""

from pathlib import Path

import pytest

from guardhouse.runner.config import ConfigError, Identity, Protocol, RunnerConfig, resolve_config
from guardhouse.runner.settings import SETTINGS, environment_names

ROOT = Identity(effective_uid=0, home=Path("/root"))
USER = Identity(effective_uid=1000, home=Path("/home/ops"))
URL = "wss://hub.example:8443"
BASE = {"GUARDHOUSE_URL": URL, "GUARDHOUSE_TOKEN_FILE": "/etc/guardhouse/token"}


def resolve(flags=None, environ=None, file_text=None, identity=USER) -> RunnerConfig:
    return resolve_config(
        flags or {}, {**BASE, **(environ or {})}, identity=identity, file_text=file_text, file_name="runner.yaml"
    )


@pytest.mark.parametrize(
    ("flags", "environ", "file_text", "field", "expected"),
    [
        pytest.param({}, {}, None, "log_level", "info", id="default"),
        pytest.param({}, {}, "log_level: error", "log_level", "error", id="file beats default"),
        pytest.param({}, {}, "log-level: error", "log_level", "error", id="dashes in the file"),
        pytest.param(
            {}, {"GUARDHOUSE_LOG_LEVEL": "debug"}, "log_level: error", "log_level", "debug", id="environment beats file"
        ),
        pytest.param(
            {"log_level": "warn"},
            {"GUARDHOUSE_LOG_LEVEL": "debug"},
            "log_level: error",
            "log_level",
            "warning",
            id="flag beats environment",
        ),
        pytest.param({}, {"FLASHDUTY_RUNNER_LOG_LEVEL": "debug"}, None, "log_level", "debug", id="the seed's name"),
        pytest.param(
            {},
            {"FLASHDUTY_RUNNER_LOG_LEVEL": "debug", "GUARDHOUSE_LOG_LEVEL": "error"},
            None,
            "log_level",
            "error",
            id="our name beats the seed's",
        ),
        pytest.param({}, {"GUARDHOUSE_LOG_LEVEL": ""}, None, "log_level", "info", id="empty counts as not set"),
        pytest.param({}, {}, None, "policy", "read_only", id="default policy"),
        pytest.param(
            {}, {"FLASHDUTY_RUNNER_PERMISSION_CONFIG": "/p.yaml"}, None, "policy", "/p.yaml", id="the seed's policy"
        ),
        pytest.param({}, {}, None, "policy_keys", (), id="no pinned key by default"),
        pytest.param(
            {"policy_key": "/a.pub:/b.pub"}, {}, None, "policy_keys", (Path("/a.pub"), Path("/b.pub")), id="two keys"
        ),
        pytest.param(
            {}, {"GUARDHOUSE_POLICY_KEY": "/a.pub"}, None, "policy_keys", (Path("/a.pub"),), id="a key in a variable"
        ),
        pytest.param({}, {}, "policy_key: /a.pub", "policy_keys", (Path("/a.pub"),), id="a key in the file"),
        pytest.param({}, {}, None, "profile", "observe", id="default profile"),
        pytest.param({}, {}, None, "protocol", Protocol.AUTO, id="default protocol"),
        pytest.param({"protocol": "v1"}, {}, None, "protocol", Protocol.V1, id="protocol v1"),
        pytest.param({}, {}, None, "drain_timeout_s", 30.0, id="default drain"),
        pytest.param({"drain_timeout": "90s"}, {}, None, "drain_timeout_s", 90.0, id="seconds with a unit"),
        pytest.param({}, {}, None, "tls_min_version", "1.3", id="TLS 1.3 by default"),
        pytest.param({}, {}, None, "insecure_skip_tls_verify", False, id="verification on by default"),
        pytest.param(
            {"insecure_skip_tls_verify": "false"},
            {"FLASHDUTY_RUNNER_INSECURE_SKIP_TLS_VERIFY": "true"},
            None,
            "insecure_skip_tls_verify",
            False,
            id="the flag set to false beats the environment",
        ),
        pytest.param({}, {}, "max_tasks: 3", "max_tasks", 3, id="numbers in the file are read like flags"),
        pytest.param({"run_as": "sre"}, {}, None, "run_as", "sre", id="run-as"),
        pytest.param({}, {}, None, "workspace", Path("/home/ops/.guardhouse/workspace"), id="a user's workspace"),
        pytest.param({}, {}, None, "workspace_is_default", True, id="the default workspace may be made"),
        pytest.param({"workspace": "/w"}, {}, None, "workspace_is_default", False, id="a named one may not"),
        pytest.param(
            {},
            {"STATE_DIRECTORY": "/var/lib/gh:/var/lib/other"},
            None,
            "state_directory",
            Path("/var/lib/gh"),
            id="systemd's",
        ),
        pytest.param({}, {}, None, "token_file", Path("/etc/guardhouse/token"), id="token file from the environment"),
        pytest.param(
            {"token": "wnt_x"}, {}, None, "token_file", None, id="a token by flag beats a token file by environment"
        ),
    ],
)
def test_resolve(flags, environ, file_text, field, expected) -> None:
    """A flag beats the environment, which beats the file, which beats the default."""
    assert getattr(resolve(flags, environ, file_text), field) == expected


def test_root_keeps_its_state_in_var_lib() -> None:
    """Root's default workspace is below /var/lib/guardhouse."""
    assert resolve(identity=ROOT).workspace == Path("/var/lib/guardhouse/workspace")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_our_environment_name(setting) -> None:
    """Each flag can be given as GUARDHOUSE_<NAME>."""
    assert environment_names(setting)[0] == "GUARDHOUSE_" + setting.name.upper()


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        pytest.param({"GUARDHOUSE_TOKEN": "wnt_a"}, "GUARDHOUSE_TOKEN", id="ours"),
        pytest.param({"FLASHDUTY_RUNNER_TOKEN": "wnt_a"}, "FLASHDUTY_RUNNER_TOKEN", id="the seed's"),
        pytest.param({"CREDENTIALS_DIRECTORY": "/run/c"}, "/run/c/token", id="systemd's"),
        pytest.param(
            {"CREDENTIALS_DIRECTORY": "/run/c", "GUARDHOUSE_TOKEN_FILE": "/t"}, "/t", id="a named file beats systemd's"
        ),
    ],
)
def test_token_place(environ, place) -> None:
    """The configuration says where the token is."""
    config = resolve_config({}, {"GUARDHOUSE_URL": URL, **environ}, identity=USER)
    assert config.token_place == place


def test_configuration_holds_no_token() -> None:
    """Printing a configuration never shows the token, however it was given."""
    config = resolve_config({"token": "wnt_secret"}, {"GUARDHOUSE_URL": URL}, identity=USER)
    assert "wnt_secret" not in repr(config)


@pytest.mark.parametrize(
    ("flags", "file_text", "words"),
    [
        pytest.param({"log_level": "loud"}, None, ("--log-level", "'loud'", "write debug"), id="log level"),
        pytest.param({"policy_key": "/a.pub::/b.pub"}, None, ("--policy-key", "is no path"), id="an empty key"),
        pytest.param({"protocol": "v2"}, None, ("--protocol", "'v2'", "write auto"), id="protocol"),
        pytest.param({"tls_min_version": "1.1"}, None, ("--tls-min-version", "'1.1'", "1.3 or 1.2"), id="old TLS"),
        pytest.param({"drain_timeout": "-1"}, None, ("--drain-timeout", "'-1'", "write 0 to"), id="negative drain"),
        pytest.param({"drain_timeout": "nan"}, None, ("--drain-timeout", "'nan'", "write 0 to"), id="NaN drain"),
        pytest.param({"drain_timeout": "soon"}, None, ("--drain-timeout", "'soon'", "30"), id="drain in words"),
        pytest.param({"max_tasks": "0"}, None, ("--max-tasks", "'0'", "write 1 to"), id="no tasks"),
        pytest.param({"run_as": "root"}, None, ("--run-as", "'root'", "ordinary user"), id="run as root"),
        pytest.param({"run_as": "a b"}, None, ("--run-as", "'a b'", "no user name"), id="run as nobody's name"),
        pytest.param({"insecure_skip_tls_verify": "maybe"}, None, ("--insecure", "'maybe'", "true or"), id="switch"),
        pytest.param({"workspace": ""}, None, ("--workspace", "''", "path"), id="empty workspace"),
        pytest.param({"name": "a\nb"}, None, ("--name", "printable"), id="name with a newline"),
        pytest.param({}, "colour: red", ("runner.yaml:1", "'colour'", "known are"), id="unknown key"),
        pytest.param({}, "a: 1\nlog_level: x", ("runner.yaml:1",), id="the first fault is named by line"),
        pytest.param({}, "name: a\nname: b", ("runner.yaml:2", "twice"), id="a key twice"),
        pytest.param({}, "token: wnt_x", ("runner.yaml:1", "token_file"), id="a token in the file"),
        pytest.param({}, "name: [a]", ("runner.yaml:1", "plain value"), id="a list"),
        pytest.param({}, "- a", ("runner.yaml", "mapping"), id="no mapping"),
        pytest.param({}, "a: [", ("runner.yaml", "not valid YAML"), id="no YAML"),
        pytest.param({}, "log_level: loud", ("runner.yaml:1", "'loud'"), id="a bad value in the file"),
        pytest.param({"token": "t", "token_file": "/t"}, None, ("--token", "--token-file"), id="two tokens"),
    ],
)
def test_refused(flags, file_text, words) -> None:
    """A value that cannot be used is refused with its source, its value and what to write."""
    with pytest.raises(ConfigError) as caught:
        resolve(flags, file_text=file_text)
    for word in words:
        assert word in str(caught.value)


def test_missing_token_is_named() -> None:
    """Without any source of a token the message says how to give one."""
    with pytest.raises(ConfigError, match="token is required: use --token-file"):
        resolve_config({}, {"GUARDHOUSE_URL": URL}, identity=USER)


def test_missing_url_is_named() -> None:
    """Without an address the message says how to give one."""
    with pytest.raises(ConfigError, match="url is required: use --url"):
        resolve_config({}, {"GUARDHOUSE_TOKEN_FILE": "/t"}, identity=USER)
