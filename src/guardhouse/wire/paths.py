"""File names as JSON: text beside the exact bytes where text cannot hold them.

A Linux name is bytes. JSON holds Unicode text only, and a name that is not valid UTF-8 has none. So ``path`` is
what people read (U+FFFD for each bad byte) and ``path_b64``, there only when the name is not valid UTF-8, is what
counts. Knows nothing of files. Runs in the runner, its files worker and the hub.
"""

from guardhouse.errors import PeerError

__all__ = ["path_as_bytes", "path_as_text", "path_b64"]


def path_as_text(raw: bytes) -> str:
    """Return the text of a name for people: exact when it is valid UTF-8, else with U+FFFD."""
    return raw.decode("utf-8", "replace")


def path_b64(raw: bytes) -> bytes | None:
    """Return what the ``path_b64`` field holds (msgspec writes it as base64): None when the text is exact."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    return None


def path_as_bytes(path: str, path_b64: bytes | None = None) -> bytes:
    """Return the name that ``path`` and ``path_b64`` stand for.

    Raises:
        PeerError: ``invalid_args``: the two disagree, so that what people and rules read is not what would be
            opened; or the bytes hold a NUL; or the text is not valid Unicode.
    """
    if path_b64 is None:
        try:
            raw = path.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PeerError(f"invalid path: {path!r} is not valid Unicode", code="invalid_args") from error
    else:
        raw = path_b64
        if path_as_text(raw) != path:
            raise PeerError(
                f"invalid path: path {path!r} is not the text of path_b64 ({path_as_text(raw)!r});"
                " send the bytes decoded as UTF-8 with U+FFFD for each bad byte",
                code="invalid_args",
            )
    if b"\0" in raw:
        raise PeerError(f"invalid path: {path!r} holds a NUL", code="invalid_args")
    return raw
