"""Every error of the REST interface in one shape: ``{"error": {"code", "message", "hint", "retryable"}}``.

Knows which family of error becomes which status. Runs in the hub.
"""

from typing import Final

import msgspec

from guardhouse.errors import GuardhouseError, PeerError, Refusal
from guardhouse.hub.authorize import AccessDenied, AuthenticationFailed, TooManyGuesses
from guardhouse.hub.database import StoreUnavailable
from guardhouse.hub.mcp_servers import McpServerUnusable
from guardhouse.hub.oidc.provider import ProviderUnavailable
from guardhouse.hub.people.passwords import PasswordRefused, TooBusy
from guardhouse.hub.rates import TooManyRequests
from guardhouse.hub.store.environments import NameTaken

__all__ = ["ApiError", "ErrorBody", "ErrorReply", "as_api_error"]


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: a stable word for programs, a sentence for people, what to do next, whether again helps."""

    code: str
    message: str
    hint: str
    retryable: bool


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success."""

    error: ErrorBody


class ApiError(GuardhouseError):
    """A refusal with its HTTP status."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.body = ErrorReply(error=ErrorBody(code=code, message=message, hint=hint, retryable=retryable))


_PEER_STATUS: Final = {"oversized": 413}


def as_api_error(error: GuardhouseError) -> ApiError:
    """Return what a caller is told of ``error``."""
    match error:
        case ApiError():
            return error
        case AuthenticationFailed():
            return ApiError(
                401, "authentication_failed", str(error), hint="check the token; 'guardhouse token create' makes one"
            )
        case TooManyGuesses():
            return ApiError(
                429, "too_many_guesses", str(error), hint="find out who sends wrong tokens from there", retryable=True
            )
        case TooManyRequests():
            return ApiError(
                429,
                "too_many_requests",
                str(error),
                hint="wait as Retry-After says; wait_s and event streams spare polling",
                retryable=True,
                retry_after_s=error.wait_s,
            )
        case AccessDenied():
            return ApiError(403, "access_denied", str(error), hint="ask an owner or admin for the right")
        case TooBusy():
            return ApiError(429, "too_busy", str(error), hint="try again in a moment", retryable=True)
        case PasswordRefused():
            return ApiError(400, "password_refused", str(error), hint="a password manager makes good ones")
        case NameTaken():
            return ApiError(409, "name_taken", str(error), hint="choose another name")
        case StoreUnavailable():
            return ApiError(
                503, "store_unavailable", str(error), hint="check the hub's disk and its log", retryable=True
            )
        case ProviderUnavailable():
            return ApiError(
                503, "provider_unavailable", str(error), hint="check --oidc-issuer and the provider", retryable=True
            )
        case McpServerUnusable():
            return ApiError(409, "mcp_server_unusable", str(error), hint="'guardhouse mcp-server show' says more")
        case PeerError():
            return ApiError(_PEER_STATUS.get(error.code, 400), error.code, str(error), hint="see /api/v1/openapi.json")
        case Refusal():
            return ApiError(403, "refused", str(error))
        case _:
            return ApiError(500, "internal", "the hub could not do this", hint="the hub's log has the reason")
