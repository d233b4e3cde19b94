"""Which commands speak JSON: every one whose answer has content of its own. What has none is named here, with why."""

from collections.abc import Iterator

import click

from guardhouse.cli.main import cli

NO_CONTENT = "its exit status is the whole answer"
STREAM = "what it writes is the file or stream itself"
WITHOUT_JSON = {
    "approval revoke": NO_CONTENT,
    "context use": NO_CONTENT,
    "env delete": NO_CONTENT,
    "env join-token delete": NO_CONTENT,
    "env policy withdraw": NO_CONTENT,
    "hub rotate-sealing-key": NO_CONTENT,
    "logout": NO_CONTENT,
    "mcp-server remove": NO_CONTENT,
    "policy hub withdraw": NO_CONTENT,
    "session delete": NO_CONTENT,
    "skill remove": NO_CONTENT,
    "team add": NO_CONTENT,
    "team remove": NO_CONTENT,
    "token revoke": NO_CONTENT,
    "user accept": NO_CONTENT,
    "user end-sign-in": NO_CONTENT,
    "user password": NO_CONTENT,
    "user unlink": NO_CONTENT,
    "user disable": NO_CONTENT,
    "user enable": NO_CONTENT,
    "audit export": STREAM,
    "mcp": STREAM,
    "policy fmt": STREAM,
    "run": STREAM,
    "sandbox compile": STREAM,
    "session export": STREAM,
    "skill fetch": STREAM,
}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is no group of others, by its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*path, name))
    else:
        yield " ".join(path), command


def test_every_answer_with_content_is_there_as_json() -> None:
    """A command that shows something has `--json`; the table of those that have none is exact."""
    without = {path for path, command in leaves(cli) if not any("--json" in one.opts for one in command.params)}
    assert without == WITHOUT_JSON.keys()
