"""The identity provider over HTTP: discovery, keys, the exchange of a code for tokens, and userinfo.

Everything that it answers is bounded and checked; nothing is followed elsewhere. Documents are kept for an hour; an
unknown key asks again, but not more often than every half minute, so that no flood of tokens becomes one of
requests. Knows nothing of people. Runs in the hub.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus

import httpx2
import structlog
import trio

from guardhouse.errors import GuardhouseError, PeerError, SetupError
from guardhouse.hub.oidc.settings import OidcSettings, is_allowed_url
from guardhouse.hub.oidc.tokens import TOKEN_MAX_CHARS, KeySet, TokenRefused, UnknownKey
from guardhouse.wire.json_text import parse_json

__all__ = ["Discovery", "Exchanged", "Provider", "ProviderUnavailable"]

_log = structlog.get_logger("guardhouse.hub.oidc")

T = TypeVar("T")

TIMEOUT_S: Final = 10.0
ANSWER_MAX_BYTES: Final = 256 * 1024
ANSWER_MAX_NODES: Final = 20_000
DOCUMENTS_VALID_S: Final = 3_600.0
KEYS_AGAIN_S: Final = 30.0
# After a failure everybody is told so at once for a moment, instead of each waiting for the same time limit.
FAILED_AGAIN_S: Final = 5.0
# What may stand in an Authorization header (RFC 6750, 2.1).
_WORD: Final = re.compile(r"[\x21-\x7e]+")


class ProviderUnavailable(GuardhouseError):  # noqa: N818 - a state of the provider, told to the client as 503
    """The provider did not answer, or not what the specifications say."""


@dataclass(frozen=True)
class Discovery:
    """What the hub needs of the provider's metadata (OpenID Connect Discovery 1.0).

    ``end_session_endpoint`` and ``userinfo_endpoint`` are None where the provider has none, or one that is no https
    address.
    """

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    posts_secret: bool
    names_issuer: bool
    end_session_endpoint: str | None
    userinfo_endpoint: str | None


@dataclass(frozen=True)
class Exchanged:
    """What a code was good for. ``access_token`` is for the provider's own userinfo endpoint; None: none came."""

    id_token: str
    access_token: str | None


class Provider:
    """One provider. Made once; asks nothing before somebody signs in."""

    def __init__(self, settings: OidcSettings) -> None:
        """Raises `SetupError` where the CA file cannot be used."""
        self.settings = settings
        try:
            self._context = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(f"--oidc-ca-file {str(settings.ca_file)!r} cannot be used: {error}") from error
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._lock = trio.Lock()
        self._discovery: tuple[Discovery, float] | None = None
        self._keys: tuple[KeySet, float] | None = None
        self._failed: tuple[str, float] | None = None

    async def discovery(self) -> Discovery:
        """Return the provider's metadata.

        Raises:
            ProviderUnavailable: it cannot be had, or names another issuer or an address that is not https.
        """
        async with self._lock:
            return await self._discover()

    async def _discover(self) -> Discovery:
        now_s = trio.current_time()
        if self._discovery is not None and now_s < self._discovery[1] + DOCUMENTS_VALID_S:
            return self._discovery[0]
        url = self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = _checked_discovery(await self._fetch("GET", url), issuer=self.settings.issuer)
        self._discovery = (found, trio.current_time())
        return found

    async def with_keys(self, use: Callable[[KeySet], T]) -> T:
        """Return what ``use`` makes of the provider's keys; once more with newer ones where it misses one.

        Raises:
            TokenRefused: whatever ``use`` raises.
            ProviderUnavailable: no keys can be had.
        """
        keys, asked_s = await self._current_keys(not_before_s=trio.current_time() - DOCUMENTS_VALID_S)
        try:
            return use(keys)
        except UnknownKey:
            if trio.current_time() < asked_s + KEYS_AGAIN_S:
                raise
        keys, _ = await self._current_keys(not_before_s=trio.current_time() - KEYS_AGAIN_S)
        return use(keys)

    async def _current_keys(self, *, not_before_s: float) -> tuple[KeySet, float]:
        async with self._lock:
            if self._keys is None or self._keys[1] < not_before_s:
                document = await self._fetch("GET", (await self._discover()).jwks_uri)
                try:
                    self._keys = (KeySet(document), trio.current_time())
                except TokenRefused as error:
                    raise ProviderUnavailable(str(error)) from error
            return self._keys

    async def exchange(self, code: str, *, verifier: str, redirect_uri: str) -> Exchanged:
        """Return the tokens that the provider gives for ``code``; nothing of them is checked yet.

        Raises:
            TokenRefused: it gives none for this code.
            ProviderUnavailable: it does not answer as it should.
        """
        discovery, settings = await self.discovery(), self.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        auth = None
        if settings.client_secret is None:
            form["client_id"] = settings.client_id
        elif discovery.posts_secret:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        else:
            # RFC 6749, 2.3.1: both are form-encoded first.
            auth = httpx2.BasicAuth(quote_plus(settings.client_id), quote_plus(settings.client_secret))
        answer = await self._fetch("POST", discovery.token_endpoint, form=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise TokenRefused("the provider's answer holds no ID token")
        access = answer.get("access_token")
        is_word = isinstance(access, str) and 0 < len(access) <= TOKEN_MAX_CHARS and _WORD.fullmatch(access)
        return Exchanged(token, access if is_word else None)

    async def userinfo(self, access_token: str | None, *, subject: str) -> dict[str, Any]:
        """Return what the provider says of ``subject`` beside the ID token (OIDC Core 5.3); nothing where it cannot.

        Raises:
            TokenRefused: it says nothing for this token, or speaks of somebody else.
            ProviderUnavailable: it does not answer as it should.
        """
        url = (await self.discovery()).userinfo_endpoint
        if url is None or access_token is None:
            return {}
        found = await self._fetch("GET", url, bearer=access_token)
        if found.get("sub") != subject:
            raise TokenRefused("the provider's userinfo is about somebody else than the ID token")
        return found

    async def _fetch(
        self,
        method: str,
        url: str,
        *,
        form: dict[str, str] | None = None,
        auth: httpx2.BasicAuth | None = None,
        bearer: str | None = None,
    ) -> dict[str, Any]:
        # What fails for one person's code or token may do for the next.
        is_everybodys = form is None and bearer is None
        if is_everybodys and self._failed is not None and trio.current_time() < self._failed[1] + FAILED_AGAIN_S:
            raise ProviderUnavailable(self._failed[0])
        try:
            status, content = await self._ask(method, url, form=form, auth=auth, bearer=bearer)
            if not is_everybodys and 400 <= status < 500:
                what = "code" if bearer is None else "access token that it had just given"
                raise TokenRefused(f"the provider took the {what} for invalid (status {status})")
            if status != 200:
                raise ProviderUnavailable(f"the provider answered {url} with status {status}")
            value = parse_json(content, max_bytes=ANSWER_MAX_BYTES, max_nodes=ANSWER_MAX_NODES)
            if not isinstance(value, dict):
                raise ProviderUnavailable(f"the provider's answer from {url} is no JSON object")
        except PeerError as error:
            raise self._note_failure(f"the provider's answer from {url} is no JSON: {error}", is_everybodys) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, trio.TooSlowError, OSError) as error:
            why = str(error) or type(error).__name__
            raise self._note_failure(f"the provider does not answer at {url}: {why}", is_everybodys) from error
        except ProviderUnavailable as error:
            raise self._note_failure(str(error), is_everybodys) from error
        self._failed = None
        return value

    def _note_failure(self, text: str, is_everybodys: bool, /) -> ProviderUnavailable:  # noqa: FBT001 - private
        _log.warning("provider_failed", error=text)
        if is_everybodys:
            self._failed = (text, trio.current_time())
        return ProviderUnavailable(text)

    async def _ask(
        self, method: str, url: str, *, form: dict[str, str] | None, auth: httpx2.BasicAuth | None, bearer: str | None
    ) -> tuple[int, bytes]:
        # A proxy of the environment would see codes and secrets; a packed answer could unpack to any size.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        with trio.fail_after(TIMEOUT_S):
            async with (
                httpx2.AsyncClient(
                    verify=self._context, trust_env=False, follow_redirects=False, timeout=TIMEOUT_S
                ) as http,
                http.stream(method, url, data=form, auth=auth, headers=headers) as reply,
            ):
                if reply.headers.get("content-encoding", "identity") != "identity":
                    raise ProviderUnavailable(f"the provider packed its answer from {url}, which nobody asked for")
                content = b""
                async for chunk in reply.aiter_raw():
                    content += chunk
                    if len(content) > ANSWER_MAX_BYTES:
                        raise ProviderUnavailable(f"the provider's answer from {url} is over {ANSWER_MAX_BYTES} bytes")
                return reply.status_code, content


def _checked_discovery(document: dict[str, Any], *, issuer: str) -> Discovery:
    if document.get("issuer") != issuer:
        raise ProviderUnavailable(
            f"the provider says that it is {document.get('issuer')!r}, not {issuer!r}; --oidc-issuer must be the same"
        )
    urls = {name: document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
    for name, url in urls.items():
        if not _is_usable(url, issuer=issuer, may_have_query=name == "authorization_endpoint"):
            raise ProviderUnavailable(f"the provider's {name} {url!r} is no https address")
    # Nobody is kept from signing in by these; people are signed out here only, and known by their ID token alone.
    further: dict[str, str | None] = {}
    for name in ("end_session_endpoint", "userinfo_endpoint"):
        url = document.get(name)
        if url is not None and not _is_usable(url, issuer=issuer, may_have_query=name == "end_session_endpoint"):
            _log.warning("provider_endpoint_refused", endpoint=name, url=str(url)[:512])
            url = None
        further[name] = url
    challenges = document.get("code_challenge_methods_supported", ["S256"])
    if not isinstance(challenges, list) or "S256" not in challenges:
        raise ProviderUnavailable("the provider does not support PKCE with S256, without which no code is safe")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    posts = isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods
    return Discovery(
        authorization_endpoint=str(urls["authorization_endpoint"]),
        token_endpoint=str(urls["token_endpoint"]),
        jwks_uri=str(urls["jwks_uri"]),
        posts_secret=posts,
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        end_session_endpoint=further["end_session_endpoint"],
        userinfo_endpoint=further["userinfo_endpoint"],
    )


def _is_usable(url: object, *, issuer: str, may_have_query: bool) -> bool:
    """Return whether ``url`` is https, or, where the issuer is on loopback itself, plain http there.

    What only the browser is sent to may have a query of its own; nothing secret of the hub's goes there.
    """
    if not isinstance(url, str) or "#" in url:
        return False
    plain = url.partition("?")[0] if may_have_query else url
    return is_allowed_url(plain) and not (plain.startswith("http:") and not issuer.startswith("http:"))
