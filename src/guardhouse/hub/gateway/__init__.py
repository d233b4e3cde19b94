"""Where runners connect: the upgrade, one link a connection, and who is connected now."""

from guardhouse.hub.gateway.endpoint import RunnerGateway
from guardhouse.hub.gateway.links import Links

__all__ = ["Links", "RunnerGateway"]
