"""The part of the route table that is about records of MCP servers. Runs in the hub."""

from typing import Final

from guardhouse.hub.api.door import Route
from guardhouse.hub.api.mcp_servers import (
    create_mcp_server,
    delete_mcp_server,
    list_mcp_servers,
    show_mcp_server,
    test_mcp_server,
    update_mcp_server,
)
from guardhouse.hub.api.schemas_mcp_servers import (
    McpServer,
    McpServerCreate,
    McpServerList,
    McpServerTest,
    McpServerTested,
    McpServerUpdate,
)
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["MCP_SERVER_ROUTES"]

_SERVER: Final = "/api/v1/mcp-servers/{server}"

MCP_SERVER_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/api/v1/mcp-servers",
        access=Scope.ENV_READ,
        handler=list_mcp_servers,
        concern=Concern.LISTS,
        summary="List records of MCP servers",
        tag="mcp",
        replies={200: McpServerList},
    ),
    Route(
        method="POST",
        path="/api/v1/mcp-servers",
        access=Scope.ENV_WRITE,
        handler=create_mcp_server,
        concern=Concern.CREATE_RESOURCE,
        summary="Make a record of an MCP server",
        tag="mcp",
        body=McpServerCreate,
        replies={201: McpServer},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=_SERVER,
        access=Scope.ENV_READ,
        handler=show_mcp_server,
        concern=Concern.SEE_MCP_SERVER,
        summary="Show one record, secrets masked",
        tag="mcp",
        replies={200: McpServer},
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=_SERVER,
        access=Scope.ENV_WRITE,
        handler=update_mcp_server,
        concern=Concern.EDIT_MCP_SERVER,
        summary="Change a record",
        tag="mcp",
        body=McpServerUpdate,
        replies={200: McpServer},
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path=_SERVER,
        access=Scope.ENV_WRITE,
        handler=delete_mcp_server,
        concern=Concern.EDIT_MCP_SERVER,
        summary="Delete a record",
        tag="mcp",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_SERVER}/test",
        access=Scope.TASKS_RUN,
        handler=test_mcp_server,
        concern=Concern.USE_MCP_SERVER,
        summary="Ask a server for its tools in one environment",
        tag="mcp",
        body=McpServerTest,
        replies={200: McpServerTested},
        errors=(404, 409, 429),
    ),
)
