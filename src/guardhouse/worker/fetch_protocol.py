"""What the fetch worker and its client say to each other: one request is one hop, never a chain of redirects.

The frames are those of `guardhouse.worker.protocol`. Knows no socket. Runs at both ends.
"""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from guardhouse.errors import Refusal
from guardhouse.limits import FETCH_BODY_CEILING_BYTES, FETCH_BODY_FLOOR_BYTES, FETCH_BODY_MAX_BYTES
from guardhouse.worker.protocol import Failure

__all__ = ["DISABLED", "FetchRefused", "HopArgs", "HopResult", "error_of", "failure_of", "too_large"]

_STATUS: Final = re.compile(r"http_status_(\d{3})")
_MEGABYTE: Final = 1024 * 1024
DISABLED: Final = "fetch_unavailable"


class FetchRefused(Refusal):
    """A page that will not come: the address is refused, the server answers with an error, or the content is unfit.

    Attributes:
        code: a short stable word: ``invalid_url``, ``address_refused``, ``port_refused``, ``unresolved``,
            ``connect_failed``, ``tls_failed``, ``bad_redirect``, ``http_status``, ``too_large``, ``bomb``, ``binary``,
            ``charset``, ``bad_answer``, ``timed_out``, ``fetch_unavailable``.
        status: the HTTP status, where there was one.
    """

    def __init__(self, message: str, *, code: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class HopArgs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Ask one server once.

    Attributes:
        url: in the normal form of `fetch_url.parse_fetch_url`.
        format: what to make of HTML.
        networks: CIDR networks that may be reached although they are private.
        any_port: a rule of the policy names this port, so ports other than 80 and 443 are accepted.
        max_bytes: the largest body, decoded.
    """

    url: str
    format: Literal["markdown", "text", "html"] = "markdown"
    networks: tuple[str, ...] = ()
    any_port: bool = False
    max_bytes: Annotated[int, Meta(ge=FETCH_BODY_FLOOR_BYTES, le=FETCH_BODY_CEILING_BYTES)] = FETCH_BODY_MAX_BYTES


class HopResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the server said; the page's text is the frame's body.

    Attributes:
        status: of HTTP.
        location: where a redirect leads, as the server wrote it.
        content_type: as the server wrote it, shortened.
        notes: what the reader of the text should know, such as replaced characters.
    """

    status: Annotated[int, Meta(ge=100, le=999)]
    location: str | None = None
    content_type: str = ""
    notes: tuple[str, ...] = ()


def too_large(what: str, *, max_bytes: int) -> FetchRefused:
    """Return the refusal of ``what``, which is over the operator's bound."""
    bound = f"{max_bytes // _MEGABYTE}MB" if not max_bytes % _MEGABYTE else f"{max_bytes} bytes"
    return FetchRefused(
        f"response too large (exceeds {bound} limit): {what}; the host's operator sets it (--fetch-max-size)",
        code="too_large",
    )


def failure_of(error: FetchRefused) -> Failure:
    """Return ``error`` as a reply carries it."""
    code = f"http_status_{error.status}" if error.code == "http_status" else error.code
    return Failure(family="refusal", code=code, text=str(error))


def error_of(failure: Failure) -> FetchRefused:
    """Return the error that the worker raised, rebuilt."""
    status = _STATUS.fullmatch(failure.code)
    if status is not None:
        return FetchRefused(failure.text, code="http_status", status=int(status[1]))
    return FetchRefused(failure.text, code=failure.code)
