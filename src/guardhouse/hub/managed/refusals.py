"""The refusal that says why no managed sandbox can be had. Runs in the hub."""

from guardhouse.hub.api.errors import ApiError

__all__ = ["unavailable"]


def unavailable(why: str) -> ApiError:
    """Return it; ``why`` goes on after a colon."""
    return ApiError(
        409,
        "environment_unavailable",
        f"the managed sandbox cannot be had: {why}",
        hint="the hub's log has more; choose a self-hosted environment, or try again",
        retryable=True,
    )
