"""Cursors of lists that are ordered by a time and an id. Pure. Runs in the hub."""

from guardhouse.hub.api.errors import ApiError

__all__ = ["parse_cursor", "render_cursor"]


def render_cursor(at_ms: int, record_id: str) -> str:
    """Return the cursor behind the record ``record_id`` of the time ``at_ms`` (Unix ms)."""
    return f"{at_ms}.{record_id}"


def parse_cursor(cursor: str | None) -> tuple[int, str] | None:
    """Return the time (Unix ms) and the id of the last record that the reader has; None for the first page.

    Raises:
        ApiError: 400, it is none of ours.
    """
    if cursor is None:
        return None
    at, _, record_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 15 and record_id):
        raise ApiError(400, "invalid_query", f"cursor {cursor!r} is none of ours", hint="use next_cursor as it came")
    return int(at), record_id
