"""Checks of a provider's JSON Web Tokens: which key may have signed one, and what it must say. Pure.

PyJWT verifies signatures; what it leaves to the caller is here. An algorithm counts only where it is asymmetric, on
the list below and that of the key; a key that is sent along, or named by an address in the token, never does. Runs in
the hub.
"""

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from guardhouse.errors import Refusal

__all__ = [
    "ALGORITHMS",
    "LEEWAY_S",
    "TOKEN_MAX_CHARS",
    "KeySet",
    "TokenRefused",
    "UnknownKey",
    "check_access_token",
    "check_id_token",
    "looks_like_jwt",
]

ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"})
LEEWAY_S: Final = 60
# An ID token is looked at right after it was made; an older one was kept for something.
ID_TOKEN_MAX_AGE_S: Final = 600
TOKEN_MAX_CHARS: Final = 16_384
KEYS_MAX: Final = 64
RSA_MIN_BITS: Final = 2_048
# RFC 9068 names the first; many providers say plain JWT. An ID token for a client has another audience.
_ACCESS_TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})


_OF_KIND: Final[dict[str, frozenset[str]]] = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256"}),
    "EC P-256": frozenset({"ES256"}),
    "EC P-384": frozenset({"ES384"}),
    "OKP Ed25519": frozenset({"EdDSA"}),
}


class TokenRefused(Refusal):
    """A token that proves nothing here. The text is for the hub's log; callers are told less."""


class UnknownKey(TokenRefused):
    """No known key has the token's id: the provider may have made a new one."""


@dataclass(frozen=True)
class _Key:
    id: str | None
    algorithms: frozenset[str]
    jwk: Mapping[str, Any]


class KeySet:
    """A provider's public keys. Those that cannot be used are left out: sets hold keys for other purposes, too."""

    def __init__(self, document: Any) -> None:
        """``document`` is a JWK set (RFC 7517).

        Raises:
            TokenRefused: it is none, or holds more keys than anybody needs.
        """
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list) or len(keys) > KEYS_MAX:
            raise TokenRefused(f"the provider's key set is no list of at most {KEYS_MAX} keys")
        self._keys = [key for key in map(_usable, keys) if key is not None]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, *, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """Return the one key that may have signed.

        Raises:
            UnknownKey: none has this id.
            TokenRefused: it is for another algorithm, or without an id there are several.
        """
        named = [key for key in self._keys if key_id is None or key.id == key_id]
        if not named:
            raise UnknownKey(f"the provider has no key {key_id!r}")
        fitting = [key for key in named if algorithm in key.algorithms]
        if len(fitting) != 1:
            raise TokenRefused(f"{len(fitting)} keys of the provider fit id {key_id!r} and algorithm {algorithm!r}")
        try:
            return jwt.PyJWK(dict(fitting[0].jwk), algorithm=algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            raise TokenRefused(f"the provider's key {key_id!r} cannot be used: {error}") from error


def _usable(jwk: Any) -> _Key | None:
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return None
    kind = "RSA" if jwk.get("kty") == "RSA" else f"{jwk.get('kty')} {jwk.get('crv')}"
    fitting = _OF_KIND.get(kind, frozenset())
    algorithms = fitting if jwk.get("alg") is None else fitting & {str(jwk.get("alg"))}
    key_id = jwk.get("kid")
    if not algorithms or not (key_id is None or isinstance(key_id, str)):
        return None
    try:
        key = jwt.PyJWK(jwk, algorithm=min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_MIN_BITS:
        return None
    return _Key(key_id, algorithms, jwk)


def looks_like_jwt(text: str) -> bool:
    """Return whether a bearer token has a JWT's form; our own tokens never do."""
    return text.startswith("eyJ") and text.count(".") == 2


def check_id_token(
    token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now_s: float
) -> dict[str, Any]:
    """Return the claims of an ID token that was made for this client and this very sign-in (OIDC Core 3.1.3.7).

    Raises:
        TokenRefused: it is not; `UnknownKey` where newer keys could help.
    """
    header, claims = _verified(
        token, keys, issuer=issuer, audiences=[client_id], required=("exp", "iat", "iss", "aud", "sub"), now_s=now_s
    )
    if str(header.get("typ", "JWT")).lower() != "jwt":
        raise TokenRefused(f"an ID token cannot be of type {header.get('typ')!r}")
    party = claims.get("azp")
    if party != client_id and (party is not None or (isinstance(claims["aud"], list) and len(claims["aud"]) > 1)):
        raise TokenRefused(f"the ID token was made for the party {party!r}")
    sent = claims.get("nonce")
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), nonce.encode()):
        raise TokenRefused("the ID token is of another sign-in (nonce)")
    if claims["iat"] < now_s - ID_TOKEN_MAX_AGE_S:
        raise TokenRefused("the ID token is too old for a sign-in that has just happened")
    return claims


def check_access_token(
    token: str, keys: KeySet, *, issuer: str, audiences: Collection[str], now_s: float
) -> dict[str, Any]:
    """Return the claims of a JWT access token that was made for one of ``audiences`` (RFC 9068, RFC 8707).

    Raises:
        TokenRefused: it was not; `UnknownKey` where newer keys could help.
    """
    header, claims = _verified(
        token, keys, issuer=issuer, audiences=audiences, required=("exp", "iss", "aud", "sub"), now_s=now_s
    )
    if str(header.get("typ", "JWT")).lower() not in _ACCESS_TYPES:
        raise TokenRefused(f"an access token cannot be of type {header.get('typ')!r}")
    if "nonce" in claims:
        raise TokenRefused("this is an ID token: it says who signed in, not what a client may do")
    return claims


def _verified(
    token: str, keys: KeySet, *, issuer: str, audiences: Collection[str], required: Collection[str], now_s: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    if len(token) > TOKEN_MAX_CHARS:
        raise TokenRefused(f"the token has {len(token)} characters; at most {TOKEN_MAX_CHARS} are looked at")
    try:
        header: dict[str, Any] = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise TokenRefused(f"algorithm {algorithm!r} is not taken")
        if "crit" in header or not (key_id is None or isinstance(key_id, str)):
            raise TokenRefused("the token's header asks for what is not supported here")
        key = keys.find(key_id=key_id, algorithm=algorithm)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=list(audiences),
            issuer=issuer,
            leeway=LEEWAY_S,
            options={"require": list(required)},
        )
    except jwt.PyJWTError as error:
        raise TokenRefused(f"the token is not valid: {error}") from error
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise TokenRefused("the token's subject is no text of 1 to 255 characters")
    times = [claims[name] for name in ("exp", "iat") if name in claims]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in times):
        raise TokenRefused("the token's times are no numbers")
    if claims["exp"] <= now_s - LEEWAY_S:
        raise TokenRefused("the token is expired")
    return header, claims
