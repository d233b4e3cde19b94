"""Who asks, and whether they may: API tokens to principals, and the one check that every route passes.

The table itself is `guardhouse.hub.api.routes`: each row names the access it needs. Knows nothing of HTTP.
Runs in the hub.
"""

import hmac
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from guardhouse.errors import Refusal
from guardhouse.hub.credentials import API_TOKEN_PREFIX, RUNNER_TOKEN_PREFIX, token_digest
from guardhouse.hub.guesses import GuessLimit, source_of
from guardhouse.hub.store.tokens import ApiTokenRecord, RunnerTokenRecord

__all__ = [
    "ALL_SCOPES",
    "Access",
    "AccessDenied",
    "AuthenticationFailed",
    "Credentials",
    "Principal",
    "Scope",
    "TooManyGuesses",
    "check_access",
    "check_grant",
]


class Scope(StrEnum):
    """What an API token may do. ``admin`` contains the others and grants what it has not itself."""

    ENV_READ = "env:read"
    ENV_WRITE = "env:write"
    TASKS_READ = "tasks:read"
    TASKS_RUN = "tasks:run"
    TOKENS_WRITE = "tokens:write"
    ADMIN = "admin"


ALL_SCOPES: Final = frozenset(Scope)


class Access(StrEnum):
    """What a route asks for where it is not a scope."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"
    RUNNER = "runner"


class AuthenticationFailed(Refusal):
    """No token, or one that is unknown, expired or revoked. The text does not say which."""


class TooManyGuesses(Refusal):
    """The source has presented too many wrong tokens; this one was not looked at."""


class AccessDenied(Refusal):
    """A known caller lacks the scope."""


@dataclass(frozen=True)
class Principal:
    """Who asks. ``id`` is what `created_by` and the audit log store."""

    id: str
    name: str
    scopes: frozenset[Scope]
    expires_ms: int | None = None


class Credentials:
    """Every valid token's digest in memory, so that no request waits for the disk to be told who it is.

    The store is written first and this second, so that what is here is always stored.
    """

    def __init__(self, api_tokens: list[ApiTokenRecord], runner_tokens: list[RunnerTokenRecord]) -> None:
        self._api = {record.digest: record for record in api_tokens if record.revoked_ms is None}
        self._runner = {record.digest: record for record in runner_tokens}
        self._guesses = GuessLimit()

    def principal(self, token: str, *, now_ms: int, address: str | None) -> Principal:
        """Return whose API token this is.

        A dictionary is asked for a SHA-256 of what was sent: its timing tells of the digest, not of the token.

        Args:
            address: where it came from; wrong tokens are counted by it.

        Raises:
            AuthenticationFailed: no such valid token.
            TooManyGuesses: it was not looked at.
        """
        if token.startswith(RUNNER_TOKEN_PREFIX):
            raise AuthenticationFailed("a runner token (wnt_…) opens the runner gateway only; use an API token (ght_…)")
        digest = token_digest(token)
        source = self._check_may_try(digest, address, now_ms)
        record = self._api.get(digest) if token.startswith(API_TOKEN_PREFIX) else None
        if record is None or not hmac.compare_digest(record.digest, digest) or _is_over(record.expires_ms, now_ms):
            self._guesses.note_wrong(source, digest, now_ms=now_ms)
            raise AuthenticationFailed("API token unknown, expired or revoked")
        self._guesses.note_right(source, digest)
        scopes = frozenset(Scope(scope) for scope in record.scopes)
        return Principal(record.id, record.name, scopes, record.expires_ms)

    def runner(self, token: str, *, now_ms: int, address: str | None) -> RunnerTokenRecord:
        """Return the runner token's record, which names its environment; otherwise as `principal`.

        Raises:
            AuthenticationFailed: no such valid token.
            TooManyGuesses: it was not looked at.
        """
        digest = token_digest(token)
        source = self._check_may_try(digest, address, now_ms)
        record = self._runner.get(digest) if token.startswith(RUNNER_TOKEN_PREFIX) else None
        if record is None or not hmac.compare_digest(record.digest, digest) or _is_over(record.expires_ms, now_ms):
            self._guesses.note_wrong(source, digest, now_ms=now_ms)
            raise AuthenticationFailed("runner token unknown, expired or revoked")
        self._guesses.note_right(source, digest)
        return record

    def _check_may_try(self, digest: bytes, address: str | None, now_ms: int) -> str:
        source = source_of(address)
        wait_s = self._guesses.wait_s(source, digest, now_ms=now_ms)
        if wait_s:
            raise TooManyGuesses(
                f"too many wrong tokens came from {source}; this one was not looked at, try again in"
                f" {math.ceil(wait_s)} s"
            )
        return source

    def add_api_token(self, record: ApiTokenRecord) -> None:
        """Let a stored token in."""
        self._api[record.digest] = record

    def drop_api_token(self, token_id: str) -> None:
        """Shut a revoked token out."""
        self._api = {digest: record for digest, record in self._api.items() if record.id != token_id}

    def add_runner_token(self, record: RunnerTokenRecord, *, others_end_ms: int | None = None) -> None:
        """Let a stored runner token in; the environment's other tokens end at ``others_end_ms`` when given."""
        if others_end_ms is not None:
            for digest, other in list(self._runner.items()):
                if other.environment_id == record.environment_id:
                    end_ms = min(others_end_ms, other.expires_ms or others_end_ms)
                    self._runner[digest] = msgspec.structs.replace(other, expires_ms=end_ms)
        self._runner[record.digest] = record

    def drop_environment(self, environment_id: str) -> None:
        """Shut every token of a deleted environment out."""
        self._runner = {
            digest: record for digest, record in self._runner.items() if record.environment_id != environment_id
        }


def _is_over(expires_ms: int | None, now_ms: int) -> bool:
    return expires_ms is not None and expires_ms <= now_ms


def check_access(principal: Principal | None, access: Scope | Access) -> None:
    """Refuse unless ``principal`` may use a route that asks for ``access``.

    Raises:
        AuthenticationFailed: nobody asks, and the route is not public.
        AccessDenied: the scope is missing.
    """
    if access is Access.PUBLIC:
        return
    if principal is None or access is Access.RUNNER:
        raise AuthenticationFailed("this needs an API token: send 'Authorization: Bearer ght_…'")
    if access is Access.AUTHENTICATED or Scope.ADMIN in principal.scopes or access in principal.scopes:
        return
    raise AccessDenied(f"token {principal.name!r} lacks the scope {access.value!r}")


def check_grant(principal: Principal, scopes: frozenset[Scope]) -> None:
    """Refuse unless ``principal`` may hand ``scopes`` to a new token: nobody gives what they do not have.

    Raises:
        AccessDenied: a scope is not the principal's own.
    """
    if Scope.ADMIN in principal.scopes:
        return
    missing = sorted(scopes - principal.scopes)
    if missing:
        raise AccessDenied(f"token {principal.name!r} cannot grant what it lacks: {', '.join(missing)}")
