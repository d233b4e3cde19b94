"""The rows of the route table that are signing in through an identity provider. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import schemas_oidc, sign_in_oidc
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Access, Scope

__all__ = ["OIDC_ROUTES"]

OIDC_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/api/v1/sign-in/methods",
        access=Access.PUBLIC,
        handler=sign_in_oidc.show_sign_in_methods,
        summary="How people sign in here",
        tag="people",
        replies={200: schemas_oidc.SignInMethods},
    ),
    Route(
        method="GET",
        path="/api/v1/sign-in/oidc",
        access=Access.PUBLIC,
        handler=sign_in_oidc.begin_sign_in,
        summary="Send the browser to the identity provider",
        tag="people",
        query=schemas_oidc.OidcBegin,
        replies={302: None},
        errors=(404, 429),
    ),
    Route(
        method="GET",
        path=sign_in_oidc.CALLBACK_PATH,
        access=Access.PUBLIC,
        handler=sign_in_oidc.finish_sign_in,
        summary="Where the identity provider sends the browser back to",
        tag="people",
        query=schemas_oidc.OidcCallback,
        replies={303: None},
        errors=(401, 404, 429),
    ),
    Route(
        method="POST",
        path="/api/v1/self/oidc",
        access=Access.AUTHENTICATED,
        handler=sign_in_oidc.begin_link,
        summary="Begin to link one's own person to an identity of the provider",
        tag="people",
        replies={200: schemas_oidc.LinkBegun},
        errors=(400, 404),
    ),
    Route(
        method="DELETE",
        path="/api/v1/people/{person}/oidc",
        access=Scope.ADMIN,
        handler=sign_in_oidc.unlink_person,
        summary="Forget a person's identity at the provider",
        tag="people",
        replies={204: None},
        errors=(404, 409),
    ),
)
