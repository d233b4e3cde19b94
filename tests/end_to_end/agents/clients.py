"""The agents that are led on the walk: how each is set up, by the lines of docs/mcp.md, and started without a person.

Each has a home directory of its own, an account nowhere, and a scripted model on the loopback. Starts nothing itself.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["AGENTS", "NAME", "Agent", "Hub", "Setup"]

NAME: Final = "guardhouse"
"""What the MCP server is called in every agent's configuration."""


@dataclass(frozen=True)
class Hub:
    """What a user has in hand: where the hub is, a token, the authority behind its certificate.

    Attributes:
        guardhouse: the program, for agents that only start programs.
    """

    url: str
    token: str
    token_file: str
    ca_file: str
    guardhouse: str

    def variables(self) -> dict[str, str]:
        """What `guardhouse mcp` needs in its environment."""
        return {
            "GUARDHOUSE_HUB_URL": self.url,
            "GUARDHOUSE_API_TOKEN_FILE": self.token_file,
            "GUARDHOUSE_CA_FILE": self.ca_file,
        }

    @property
    def bearer(self) -> str:
        """The value of the header."""
        return f"Bearer {self.token}"


@dataclass(frozen=True)
class Setup:
    """What is to be run.

    Attributes:
        before: commands that set the agent up, each as its words.
        command: leads the agent on the walk and ends.
        environment: for both, beside HOME and PATH.
    """

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Agent:
    """An agent: the program to look for, and its set-up as (home, hub, URL of the model, over the stdio bridge?)."""

    program: str
    set_up: Callable[[Path, Hub, str, bool], Setup]


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _claude_code(_home: Path, hub: Hub, model: str, bridge: bool) -> Setup:
    if bridge:
        pairs = [word for name, value in hub.variables().items() for word in ("-e", f"{name}={value}")]
        add = ("claude", "mcp", "add", NAME, *pairs, "--", hub.guardhouse, "mcp")
    else:
        header = f"Authorization: {hub.bearer}"
        add = ("claude", "mcp", "add", "--transport", "http", NAME, f"{hub.url}/mcp", "--header", header)
    return Setup(
        before=(add,),
        command=("claude", "-p", "Walk.", "--allowedTools", f"mcp__{NAME}"),
        environment={
            "ANTHROPIC_BASE_URL": model,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            # Without a person it would begin before a server that is slow to start has said what it has.
            "MCP_CONNECTION_NONBLOCKING": "0",
            "MCP_CONNECT_TIMEOUT_MS": "120000",
            "MCP_TIMEOUT": "120000",
            "NODE_EXTRA_CA_CERTS": hub.ca_file,
        },
    )


def _codex(home: Path, hub: Hub, model: str, bridge: bool) -> Setup:
    if bridge:
        pairs = "\n".join(f'{name} = "{value}"' for name, value in hub.variables().items())
        server = f'command = "{hub.guardhouse}"\nargs = ["mcp"]\n[mcp_servers.{NAME}.env]\n{pairs}\n'
    else:
        server = f'url = "{hub.url}/mcp"\nbearer_token_env_var = "GUARDHOUSE_API_TOKEN"\n'
    text = (
        'model = "scripted"\nmodel_provider = "scripted"\n'
        f'[model_providers.scripted]\nname = "scripted"\nbase_url = "{model}/v1"\nwire_api = "responses"\n'
        # Without a person nobody else can agree to a tool that is not read-only.
        f'[mcp_servers.{NAME}]\ndefault_tools_approval_mode = "approve"\n'
        f"startup_timeout_sec = 120\nrequired = true\n{server}"
    )
    path = home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return Setup(
        command=("codex", "exec", "--skip-git-repo-check", "Walk."),
        environment={"GUARDHOUSE_API_TOKEN": hub.token, "CODEX_CA_CERTIFICATE": hub.ca_file},
    )


def _opencode(home: Path, hub: Hub, model: str, bridge: bool) -> Setup:
    if bridge:
        server: dict[str, Any] = {"type": "local", "command": [hub.guardhouse, "mcp"], "environment": hub.variables()}
    else:
        headers = {"Authorization": hub.bearer}
        server = {"type": "remote", "url": f"{hub.url}/mcp", "headers": headers, "oauth": False}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": f"{model}/v1", "apiKey": "none"}}
    config = {
        "mcp": {NAME: {**server, "enabled": True, "timeout": 120_000}},
        "provider": {"scripted": {**provider, "models": {"scripted": {"tool_call": True}}}},
        "model": "scripted/scripted",
        "small_model": "scripted/scripted",
    }
    _write_json(home / ".config" / "opencode" / "opencode.json", config)
    return Setup(
        command=("opencode", "run", "--model", "scripted/scripted", "Walk."),
        environment={"NODE_EXTRA_CA_CERTS": hub.ca_file, "OPENCODE_DISABLE_AUTOUPDATE": "1"},
    )


def _gemini(home: Path, hub: Hub, model: str, bridge: bool) -> Setup:
    if bridge:
        server: dict[str, Any] = {"command": hub.guardhouse, "args": ["mcp"], "env": hub.variables()}
    else:
        server = {"httpUrl": f"{hub.url}/mcp", "headers": {"Authorization": hub.bearer}}
    settings = {
        "mcpServers": {NAME: {**server, "trust": True, "timeout": 120_000}},
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
    }
    _write_json(home / ".gemini" / "settings.json", settings)
    return Setup(
        command=("gemini", "--model", "gemini-2.5-pro", "--yolo", "-p", "Walk."),
        environment={
            "GEMINI_API_KEY": "none",
            "GOOGLE_GEMINI_BASE_URL": model,
            "NODE_EXTRA_CA_CERTS": hub.ca_file,
        },
    )


AGENTS: Final[dict[str, Agent]] = {
    "Claude Code": Agent("claude", _claude_code),
    "Codex": Agent("codex", _codex),
    "opencode": Agent("opencode", _opencode),
    "Gemini CLI": Agent("gemini", _gemini),
}
