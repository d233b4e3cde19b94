"""Content that a machine's own MCP server answered and that is no text, as far as it may be handed on. Pure.

Images, audio and binary resources go to the caller as blocks of ours. What could be read as words, or taken for an
address of the hub, stays within the text and its marks: links and embedded texts are not handed on as blocks.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp_types import AudioContent, BlobResourceContents, ContentBlock, EmbeddedResource, ImageContent

from guardhouse.mcp_server.models import PartAnswer

__all__ = ["blocks_of", "describe_block"]

# RFC 6838, 4.2: what a type and a subtype may be made of.
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
_SHOWN_CHARS: Final = 200
# Of base64, all blocks together: clients give up on an event of more than 1 MiB, of which the text is a part.
_BLOCKS_MAX_CHARS: Final = 512 * 1024


def describe_block(block: Mapping[str, Any]) -> PartAnswer:
    """Return what a block is, without what is in it."""
    resource = block.get("resource")
    inner: Mapping[str, Any] = resource if isinstance(resource, Mapping) else block
    data = _data(block)
    return PartAnswer(
        type=_short(block.get("type")) or "unknown",
        mime_type=_short(inner.get("mimeType")) or None,
        name=_short(inner.get("name")) or None,
        uri=_short(inner.get("uri")) or None,
        bytes=None if data is None else len(data),
    )


def blocks_of(parts: Iterable[Mapping[str, Any]]) -> list[ContentBlock]:
    """Return the blocks that may be handed on: valid base64 of a valid media type, 512 KiB of it at most."""
    blocks: list[ContentBlock] = []
    left_chars = _BLOCKS_MAX_CHARS
    for part in parts:
        data = _data(part)
        if data is None:
            continue
        encoded = base64.b64encode(data).decode()
        if len(encoded) > left_chars:
            continue
        left_chars -= len(encoded)
        media = _media_type(part)
        match part.get("type"):
            case "image" if media.startswith("image/"):
                blocks.append(ImageContent(type="image", data=encoded, mime_type=media))
            case "audio" if media.startswith("audio/"):
                blocks.append(AudioContent(type="audio", data=encoded, mime_type=media))
            case "resource":
                # The server's own address means nothing here, and one of ours would be a lie.
                uri = f"urn:guardhouse:part:{len(blocks)}"
                contents = BlobResourceContents(uri=uri, mime_type=media or "application/octet-stream", blob=encoded)
                blocks.append(EmbeddedResource(type="resource", resource=contents))
    return blocks


def _data(block: Mapping[str, Any]) -> bytes | None:
    resource = block.get("resource")
    text = resource.get("blob") if isinstance(resource, Mapping) else block.get("data")
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _media_type(block: Mapping[str, Any]) -> str:
    resource = block.get("resource")
    found = (resource if isinstance(resource, Mapping) else block).get("mimeType")
    return found if isinstance(found, str) and _MEDIA_TYPE.fullmatch(found) else ""


def _short(value: Any) -> str:
    return value[:_SHOWN_CHARS] if isinstance(value, str) else ""
