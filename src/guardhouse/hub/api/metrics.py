"""The route of the hub's figures for Prometheus. Runs in the hub."""

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from guardhouse.hub.api.door import Call, Reply, Route
from guardhouse.hub.authorize import Scope

__all__ = ["METRICS_ROUTES", "show_metrics"]


async def show_metrics(call: Call) -> Reply:
    """Answer the hub's figures in Prometheus' text format; no label names anybody or anything but the hub's parts."""
    body = await call.services.metrics.render(call.services)
    return Reply(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)


METRICS_ROUTES = (
    Route(
        method="GET",
        path="/metrics",
        access=Scope.METRICS_READ,
        handler=show_metrics,
        summary="Figures for Prometheus",
        tag="hub",
        media_type="text/plain",
        replies={200: str},
    ),
)
