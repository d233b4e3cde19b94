"""`guardhouse mcp`: the hub's MCP server over stdin and stdout, for agents that only start programs."""

from functools import partial

import click
import httpx2
import trio

from guardhouse.cli.client import HubClient, hub_options
from guardhouse.mcp_server.bridge import carry
from guardhouse.mcp_server.endpoint import MCP_PATH

__all__ = ["mcp"]


@click.command(
    epilog="Give it to an agent as its command, with GUARDHOUSE_HUB_URL and GUARDHOUSE_API_TOKEN_FILE in the"
    " environment; docs/mcp.md has the lines for common agents. Messages go to stdout, everything else to stderr."
)
@hub_options
def mcp(client: HubClient) -> None:
    """Serve an AI agent the hub's tools over stdin and stdout.

    The hub is asked first whose token it is, so that a wrong one is told in words and not as a broken server.
    """
    client.request("GET", "/api/v1/self")
    trio.run(partial(_carry, client))


async def _carry(client: HubClient) -> None:
    async with client.open_async(httpx2.Timeout(30.0, read=None)) as http:
        await carry(client.url + MCP_PATH, http)
