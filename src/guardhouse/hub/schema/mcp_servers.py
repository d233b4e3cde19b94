"""The hub's tables of what agents use in environments: records of MCP servers.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, String, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from guardhouse.hub.schema.metadata import METADATA

__all__ = ["mcp_server_checks", "mcp_servers"]

mcp_servers = Table(
    "mcp_servers",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("name", String(255), nullable=False),
    # The name in lower case: two that differ in case only would be one to people.
    Column("name_key", String(255), nullable=False),
    Column("team_id", ForeignKey("teams.id")),
    # NULL: in any environment.
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE")),
    Column("enabled", Boolean, nullable=False),
    Column("transport", String(32), nullable=False),
    Column("command", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("connect_timeout_ms", BigInteger),
    Column("call_timeout_ms", BigInteger),
    # Values of environment and headers, sealed as `guardhouse.hub.mcp_servers` writes them; only their names are open.
    Column("secret_names", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Unique("account_id", "name_key"),
)

# What a server answered when it was asked for its tools last, in each environment: they differ by place.
mcp_server_checks = Table(
    "mcp_server_checks",
    METADATA,
    Column("server_id", String(40), ForeignKey("mcp_servers.id", ondelete="CASCADE"), primary_key=True),
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    Column("checked_ms", BigInteger, nullable=False),
    Column("tool_count", Integer),
    Column("error", Text),
)
