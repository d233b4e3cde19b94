"""The runner's settings as one table: flag, environment names, file key, default, and what each is for.

`config.py` turns the three sources into a `RunnerConfig` by this table, `cli/run.py` makes the options of
`guardhouse run` from it and docs/runner.md prints it, so the three cannot drift apart. Knows no values.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["ENVIRONMENT_PREFIX", "SEED_PREFIX", "SETTINGS", "Setting", "environment_names"]

ENVIRONMENT_PREFIX: Final = "GUARDHOUSE_"
SEED_PREFIX: Final = "FLASHDUTY_RUNNER_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of `guardhouse run`.

    Attributes:
        name: the field's name, with underscores; the flag is the same with dashes.
        purpose: the help text, one sentence.
        default: what holds when no source says anything, in words.
        seed_names: names after ``FLASHDUTY_RUNNER_`` under which the seed's runner knows it.
        is_switch: the flag may stand without a value and then means ``true``.
        in_file: the configuration file may hold it.
        is_repeatable: the flag may be given several times; in a variable or file several values are joined by ``:``.
        seed_flag: the seed's flag for it, understood and not shown in the help text.
    """

    name: str
    purpose: str
    default: str
    seed_names: tuple[str, ...] = ()
    is_switch: bool = False
    in_file: bool = True
    is_repeatable: bool = False
    seed_flag: str | None = None

    @property
    def flag(self) -> str:
        """The command-line flag, dashes included."""
        return "--" + self.name.replace("_", "-")


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        name="token",
        purpose="The environment's token (wnt_…). Prefer --token-file: a flag is seen in process lists until "
        "the runner has hidden it.",
        default="none; one source of a token is required",
        seed_names=("TOKEN",),
        in_file=False,
    ),
    Setting(
        name="token_file",
        purpose="A file holding the token alone; nobody but its owner and group may read it.",
        default="$CREDENTIALS_DIRECTORY/token where systemd provides it",
    ),
    Setting(
        name="url",
        purpose="The hub's WebSocket address, wss://HOST[:PORT][/PATH].",
        default="none; required",
        seed_names=("URL",),
    ),
    Setting(
        name="workspace",
        purpose="The directory that commands and file operations work in.",
        default="workspace/ in the state directory, made when it is missing",
        seed_names=("WORKSPACE",),
    ),
    Setting(
        name="state_dir",
        purpose="Where the runner keeps its journal.",
        default="$STATE_DIRECTORY, else /var/lib/guardhouse as root, else ~/.guardhouse",
    ),
    Setting(name="log_level", purpose="debug, info, warn or error.", default="info", seed_names=("LOG_LEVEL",)),
    Setting(
        name="policy",
        purpose="Which commands may run: the name of a shipped policy or the path of a file.",
        default="read_only",
        seed_names=("PERMISSION_CONFIG",),
        seed_flag="--permission-config",
    ),
    Setting(
        name="policy_key",
        purpose="A public key (guardhouse policy keygen): only a policy that it signed is taken, at the start and at "
        "each reload. May be given several times; one signature is enough.",
        default="none; a policy needs no signature",
        is_repeatable=True,
    ),
    Setting(
        name="shadow_policy",
        purpose="A second policy that is judged beside the one in force and decides nothing: each result records what "
        "it would have said.",
        default="none",
    ),
    Setting(
        name="ask_bashlex",
        purpose="Also ask bashlex where commands begin in each text that is not plain words: about 4 ms for a short "
        "line, nothing beyond 2,000 characters; a text that it hangs on costs 2 s and is left undecided.",
        default="false; tree-sitter-bash is the second reader",
        is_switch=True,
    ),
    Setting(
        name="tag",
        purpose="A tag of this host, such as production: rules of the policy may ask for it "
        "(when: {environment: […]}). May be given several times.",
        default="none; rules that ask for a tag do not allow",
        is_repeatable=True,
    ),
    Setting(
        name="approval_timeout",
        purpose="Seconds that a command or program waits for a person's answer where a rule says ask; then it is "
        "refused.",
        default="900",
    ),
    Setting(
        name="redact_file",
        purpose="A file of NAME=VALUE lines: values that never leave this host, beside the known shapes of secrets. "
        "May be given several times.",
        default="none",
        is_repeatable=True,
    ),
    Setting(
        name="profile",
        purpose="What a command may touch: the name of a sandbox profile or the path of a file.",
        default="observe",
    ),
    Setting(
        name="ca_file",
        purpose="PEM file of the only certificate authorities to trust for the hub.",
        default="the system's authorities",
    ),
    Setting(name="tls_min_version", purpose="The oldest TLS version accepted: 1.3 or 1.2.", default="1.3"),
    Setting(
        name="insecure_skip_tls_verify",
        purpose="Accept any certificate of the hub. Whoever sits on the path then reads the token and commands "
        "this host; prefer --ca-file.",
        default="false",
        seed_names=("INSECURE_SKIP_TLS_VERIFY",),
        is_switch=True,
    ),
    Setting(
        name="protocol",
        purpose="auto offers guardhouse.v1 and falls back to the plain protocol; v1 never falls back; plain "
        "offers nothing.",
        default="auto",
    ),
    Setting(
        name="name",
        purpose="The name to show until the hub's welcome says one.",
        default="the host's name",
    ),
    Setting(
        name="run_as",
        purpose="As root: the user that runner and commands run as.",
        default="guardhouse if that user exists, else nobody",
    ),
    Setting(
        name="drain_timeout",
        purpose="Seconds that running tasks are given after SIGTERM.",
        default="30",
    ),
    Setting(
        name="max_tasks",
        purpose="Tasks run side by side; further ones wait in a queue of the same size times eight.",
        default="8",
    ),
    Setting(
        name="workspace_quota",
        purpose="Bytes (or 500M, 20G) that the workspace may hold for a write to be admitted; .work/ is not counted.",
        default="0, which is none",
    ),
    Setting(
        name="workspace_quota_files",
        purpose="Files, directories and links that the workspace may hold for a write to be admitted.",
        default="0, which is none",
    ),
    Setting(
        name="output_max_age",
        purpose="Saved outputs in .work/outputs/ older than this (3600, 12h, 7d) are removed; 0 keeps them.",
        default="7d",
    ),
    Setting(
        name="output_max_size",
        purpose="Saved outputs are removed, oldest first, until the rest fits this size; 0 keeps them.",
        default="1G",
    ),
    Setting(
        name="upload_max_age",
        purpose="An upload to which nothing was added for so long is given up, and left-over temporary files go.",
        default="1d",
    ),
    Setting(
        name="fetch_network",
        purpose="A network (10.0.0.0/8) that webfetch may reach although it is private. May be given several times; a "
        "metadata address needs its own /32.",
        default="none",
        is_repeatable=True,
    ),
    Setting(
        name="fetch_timeout",
        purpose="The longest, in seconds, that one web page may take, whatever its task asks for.",
        default="120",
    ),
    Setting(
        name="fetch_max_size",
        purpose="The largest web page (500k, 5M; at most 16M), in bytes as decoded; a larger one is refused.",
        default="5M",
    ),
    Setting(
        name="mcp_profile",
        purpose="What a local MCP server (stdio) may touch: the name of a sandbox profile or the path of a file.",
        default="mcp_server; a rule for its command may name another",
    ),
)


def environment_names(setting: Setting) -> tuple[str, ...]:
    """Return the environment variables read for ``setting``, the strongest first."""
    return (
        ENVIRONMENT_PREFIX + setting.name.upper(),
        *(SEED_PREFIX + seed_name for seed_name in setting.seed_names),
    )
