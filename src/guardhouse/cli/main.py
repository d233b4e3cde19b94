"""The `guardhouse` command: arguments to one function of one package. Wiring only.

Groups are imported when they are used, so that `guardhouse try` does not pay for the hub's libraries.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import Final

import click

from guardhouse import __version__
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.errors import GuardhouseError, SetupError

__all__ = ["main"]

# name -> (module, attribute, one line for the list). The line is repeated here so that `--help` imports nothing.
COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "login": ("guardhouse.cli.login", "login", "Sign in at a hub, by a browser or by password."),
    "logout": ("guardhouse.cli.login", "logout", "Revoke the token of a login and forget it."),
    "whoami": ("guardhouse.cli.login", "whoami", "Show who you are at the hub and what you may do."),
    "context": ("guardhouse.cli.context", "context", "Show the hubs that you are signed in at, and choose one."),
    "join": ("guardhouse.cli.join", "join", "Make this machine's key and swap a join token for an environment."),
    "run": ("guardhouse.cli.run", "run", "Join a hub and carry out its tasks on this host."),
    "hub": ("guardhouse.cli.hub", "hub", "Serve environments, tasks and the REST API."),
    "env": ("guardhouse.cli.env", "env", "Create, list, show and delete environments."),
    "exec": ("guardhouse.cli.exec", "exec_", "Run a command in an environment and return its exit status."),
    "fanout": ("guardhouse.cli.fanout", "fanout", "Run a command in many environments, so many at a time."),
    "schedule": ("guardhouse.cli.schedule", "schedule", "List and cancel tasks that start later."),
    "managed": ("guardhouse.cli.managed", "managed", "Show the managed sandboxes and say what they may reach."),
    "session": ("guardhouse.cli.session", "session", "Work in one environment, with its history."),
    "cp": ("guardhouse.cli.copy", "cp", "Copy a file of any size from an environment or to it."),
    "task": ("guardhouse.cli.task", "task", "List tasks, show output and results, cancel."),
    "token": ("guardhouse.cli.token", "token", "Create, list and revoke API tokens."),
    "approval": ("guardhouse.cli.approval", "approval", "Decide what a policy's rules ask people about."),
    "user": ("guardhouse.cli.user", "user", "Invite, list, change and disable people."),
    "team": ("guardhouse.cli.team", "team", "Make teams and put people in them."),
    "events": ("guardhouse.cli.events", "events", "Print what changes at the hub, as it happens."),
    "audit": ("guardhouse.cli.audit", "audit", "Search, export and verify the hub's audit log."),
    "mcp-server": (
        "guardhouse.cli.mcp_server",
        "mcp_server",
        "Keep records of MCP servers that agents use by name.",
    ),
    "skill": ("guardhouse.cli.skill", "skill", "Keep skills and bring them to the runners that lack them."),
    "mcp": ("guardhouse.cli.mcp", "mcp", "Serve an AI agent the hub's tools over stdin and stdout."),
    "try": ("guardhouse.cli.try_", "try_", "Take a command through gates, wall and limits here, without a hub."),
    "policy": ("guardhouse.cli.policy", "policy", "Check, explain, test and compare policies."),
    "sandbox": ("guardhouse.cli.sandbox", "sandbox", "Show, compare, try and compile sandbox profiles."),
    "workspace": ("guardhouse.cli.workspace", "workspace", "Show and clean a workspace."),
    "doctor": ("guardhouse.cli.doctor", "doctor", "Show which layers of the wall this host gives."),
    "version": ("guardhouse.cli.version", "version", "Print the version and what it runs on."),
}


class LazyCommands(click.Group):
    """A click group whose subcommands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`, which is the order of a first day's use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds ``cmd_name``; None when there is no such command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit statuses are listed in docs/cli.md. Every command has --json where a program might read it.",
)
@click.version_option(__version__, prog_name="guardhouse")
def cli() -> None:
    """Run commands on production hosts without having to trust the command."""


def main() -> None:
    """Run the command line; the console script's entry point.

    Errors of ours end in one readable line on stderr and a documented exit status; a defect of ours keeps its
    traceback.
    """
    try:
        cli(prog_name="guardhouse")
    except SetupError as error:
        click.echo(f"guardhouse: {error}", err=True)
        sys.exit(ExitCode.SETUP)
    except GuardhouseError as error:
        click.echo(f"guardhouse: {error}", err=True)
        sys.exit(ExitCode.FAILED)
