"""What is said of a session that is not there, or that the caller may not know of. Runs in the hub."""

from guardhouse.hub.api.errors import ApiError

__all__ = ["session_not_found"]


def session_not_found(session_id: str) -> ApiError:
    """Return the 404 of a session."""
    return ApiError(404, "session_not_found", f"no session {session_id!r}", hint="'guardhouse session list' shows them")
