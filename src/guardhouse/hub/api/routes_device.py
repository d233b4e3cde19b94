"""The rows of the route table that are signing a terminal in and out. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import devices, schemas_tokens
from guardhouse.hub.api import schemas_device as device_schemas
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Access

__all__ = ["DEVICE_ROUTES"]

_DEVICE: Final = "/api/v1/device-sign-ins/{user_code}"

DEVICE_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path=devices.DEVICE_PAGE_PATH,
        access=Access.PUBLIC,
        handler=devices.show_device_page,
        summary="The page on which a person approves a terminal",
        tag="people",
        media_type="text/html",
        replies={200: str},
    ),
    Route(
        method="POST",
        path="/api/v1/device-sign-ins",
        access=Access.PUBLIC,
        handler=devices.begin_device_sign_in,
        summary="Begin to sign a terminal in: a code for a person to approve",
        tag="people",
        body=device_schemas.DeviceSignInBegin,
        replies={201: device_schemas.DeviceSignInBegun},
        errors=(403, 429),
    ),
    Route(
        method="POST",
        path="/api/v1/device-token",
        access=Access.PUBLIC,
        handler=devices.collect_device_token,
        summary="Collect the API token of a terminal that was approved; shown this once",
        tag="people",
        body=device_schemas.DeviceCollect,
        replies={201: schemas_tokens.TokenCreated, 202: device_schemas.DevicePending},
        errors=(401, 403, 429),
    ),
    Route(
        method="POST",
        path="/api/v1/sign-in/token",
        access=Access.PUBLIC,
        handler=devices.token_by_password,
        summary="Swap address and password for an API token of one's own; shown this once",
        tag="people",
        body=device_schemas.PasswordLogin,
        replies={201: schemas_tokens.TokenCreated},
        errors=(401, 403, 429),
    ),
    Route(
        method="GET",
        path=_DEVICE,
        access=Access.AUTHENTICATED,
        handler=devices.show_device,
        summary="Show the terminal that waits under a code",
        tag="people",
        replies={200: device_schemas.DeviceSignInShown},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_DEVICE}/approve",
        access=Access.AUTHENTICATED,
        handler=devices.approve_device,
        summary="Let a terminal have a token of one's own",
        tag="people",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_DEVICE}/deny",
        access=Access.AUTHENTICATED,
        handler=devices.deny_device,
        summary="Refuse a terminal",
        tag="people",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path="/api/v1/self/token",
        access=Access.AUTHENTICATED,
        handler=devices.end_own_token,
        summary="Revoke the API token that asks",
        tag="tokens",
        replies={204: None},
        errors=(400,),
    ),
)
