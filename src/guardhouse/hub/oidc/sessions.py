"""The ID tokens of people who are signed in through the provider, kept to sign them out there too.

In memory only: an ID token at rest would be one more thing to lose, and signing out without it works, the provider
only asks first whether it is meant. Knows nothing of HTTP. Runs in the hub.
"""

from collections import OrderedDict
from typing import Final
from urllib.parse import urlencode

__all__ = ["ProviderSessions", "end_session_url"]

# Some kilobytes each; who signed in before these is asked by the provider.
KEPT_MAX: Final = 4_000


class ProviderSessions:
    """ID tokens by sign-in."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, str] = OrderedDict()

    def keep(self, sign_in_id: str, id_token: str) -> None:
        """Remember what the provider said at this sign-in."""
        self._tokens[sign_in_id] = id_token
        if len(self._tokens) > KEPT_MAX:
            self._tokens.popitem(last=False)

    def take(self, sign_in_id: str) -> str | None:
        """Return and forget the ID token of a sign-in; None for a sign-in by password, or one that is not known."""
        return self._tokens.pop(sign_in_id, None)

    def forget(self, sign_in_ids: list[str]) -> None:
        """Forget sign-ins that were ended otherwise."""
        for sign_in_id in sign_in_ids:
            self._tokens.pop(sign_in_id, None)


def end_session_url(endpoint: str, *, client_id: str, back_to: str, id_token: str | None) -> str:
    """Return where a browser goes to end its session at the provider (OpenID Connect RP-Initiated Logout 1.0)."""
    query = {"client_id": client_id, "post_logout_redirect_uri": back_to}
    if id_token is not None:
        query["id_token_hint"] = id_token
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
