"""Every credential in memory: API tokens, sign-ins and runner tokens, each to whom it stands for. Runs in the hub."""

import hmac
import math
from typing import Final

import msgspec

from guardhouse.hub.authorize.principal import AuthenticationFailed, Principal, TooManyGuesses
from guardhouse.hub.authorize.scopes import ROLE_SCOPES, Role, Scope
from guardhouse.hub.clock import now_ms, steady_ms
from guardhouse.hub.credentials import (
    API_TOKEN_PREFIX,
    RUNNER_TOKEN_PREFIX,
    SIGN_IN_PREFIX,
    mint_token,
    token_digest,
)
from guardhouse.hub.guesses import GuessLimit
from guardhouse.hub.source import source_of
from guardhouse.hub.store.joins import RunnerKeyRecord
from guardhouse.hub.store.people import PersonRecord, SignInRecord
from guardhouse.hub.store.tokens import ApiTokenRecord, RunnerTokenRecord

__all__ = ["SIGN_IN_ABSOLUTE_MS", "Credentials"]

# A sign-in ends after so long without a request, and after so long at all.
SIGN_IN_IDLE_MS: Final = 8 * 3_600_000
SIGN_IN_ABSOLUTE_MS: Final = 72 * 3_600_000
# Its cookie gets a new value after so long; the old one serves requests that are on their way.
SIGN_IN_ROTATE_MS: Final = 15 * 60_000
SIGN_IN_GRACE_MS: Final = 60_000


class _SignIn:
    """A sign-in in memory, with the cookie value before the last rotation."""

    __slots__ = ("old_digest", "old_until_ms", "record")

    def __init__(self, record: SignInRecord) -> None:
        self.record = record
        self.old_digest: bytes | None = None
        self.old_until_ms = 0


class Credentials:
    """Every valid token's digest, person and sign-in in memory, so that no request waits for the disk.

    The store is written first and this second, so that what is here is always stored.
    """

    def __init__(
        self,
        api_tokens: list[ApiTokenRecord],
        runner_tokens: list[RunnerTokenRecord],
        *,
        people: list[PersonRecord] | None = None,
        memberships: dict[str, frozenset[str]] | None = None,
        sign_ins: list[SignInRecord] | None = None,
        runner_keys: list[RunnerKeyRecord] | None = None,
    ) -> None:
        self._api = {record.digest: record for record in api_tokens if record.revoked_ms is None}
        # Of revoked ones too: what they made may live on, and what they asked for stays their owner's.
        self._makers = {record.id: record for record in api_tokens}
        self._runner = {record.digest: record for record in runner_tokens}
        self._runner_keys: dict[str, dict[bytes, RunnerKeyRecord]] = {}
        for key in runner_keys or []:
            self.add_runner_key(key)
        self._people = {record.id: record for record in people or []}
        self._memberships = memberships or {}
        self._sign_ins = {record.digest: _SignIn(record) for record in sign_ins or []}
        self._guesses = GuessLimit()
        self._tokens_used_ms: dict[str, int] = {}
        self._sign_ins_used: set[str] = set()

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
        source = self._check_may_try(digest, address)
        record = self._api.get(digest) if token.startswith(API_TOKEN_PREFIX) else None
        if record is None or not hmac.compare_digest(record.digest, digest) or _is_over(record.expires_ms, now_ms):
            self._guesses.note_wrong(source, digest, now_ms=steady_ms())
            raise AuthenticationFailed("API token unknown, expired or revoked")
        person = self._people.get(record.person_id) if record.person_id is not None else None
        if record.person_id is not None and (person is None or person.disabled_ms is not None):
            self._guesses.note_wrong(source, digest, now_ms=steady_ms())
            raise AuthenticationFailed("API token unknown, expired or revoked")
        self._guesses.note_right(source, digest)
        self._tokens_used_ms[record.id] = now_ms
        return self._of_token(record, person)

    def _of_token(self, record: ApiTokenRecord, person: PersonRecord | None) -> Principal:
        scopes = frozenset(Scope(scope) for scope in record.scopes)
        if person is not None:
            own = ROLE_SCOPES[Role(person.role)]
            # "admin" contains the others: whoever is no admin any more keeps them.
            scopes = own if Scope.ADMIN in scopes else scopes & own
        return Principal(
            id=record.id,
            name=record.name,
            scopes=scopes,
            expires_ms=record.expires_ms,
            person=person,
            teams=self._memberships.get(person.id, frozenset()) if person is not None else frozenset(),
            environments=None if record.environments is None else frozenset(record.environments),
            tags=None if record.tags is None else frozenset(record.tags),
        )

    def standing(self, actor_id: str, *, now_ms: int) -> Principal:
        """Return what a token or a person may do now, by id: for what they asked to be done later.

        Raises:
            AuthenticationFailed: the token was revoked or is over, or the person was disabled.
        """
        # A copy, since the store's thread asks too.
        token = next((record for record in tuple(self._api.values()) if record.id == actor_id), None)
        person_id = token.person_id if token is not None else actor_id
        person = self._people.get(person_id) if person_id is not None else None
        is_gone = person is None if person_id is not None else False
        if is_gone or (person is not None and person.disabled_ms is not None):
            raise AuthenticationFailed(f"{actor_id} is no valid token or person any more")
        if token is not None:
            if _is_over(token.expires_ms, now_ms):
                raise AuthenticationFailed(f"token {token.name!r} has expired")
            return self._of_token(token, person)
        if person is None:
            raise AuthenticationFailed(f"{actor_id} is no valid token or person any more")
        return Principal(
            id=person.id,
            name=person.name,
            scopes=ROLE_SCOPES[Role(person.role)],
            person=person,
            teams=self._memberships.get(person.id, frozenset()),
        )

    def check_still(self, principal: Principal, *, now_ms: int) -> None:
        """Refuse where ``principal``, who was let in before, would not be let in now with the same rights.

        Raises:
            AuthenticationFailed: revoked, signed out, disabled or over; or another role, other teams than then.
        """
        record = self._makers.get(principal.id)
        if record is not None:
            if record.digest not in self._api or _is_over(record.expires_ms, now_ms):
                raise AuthenticationFailed(f"token {principal.name!r} was revoked or is over")
            person_id = record.person_id
        else:
            gone = principal.sign_in_id is not None and self._find_sign_in(principal.sign_in_id) is None
            if gone or _is_over(principal.expires_ms, now_ms):
                raise AuthenticationFailed("signed out; sign in again")
            person_id = principal.id
        if person_id is None:
            return
        person = self._people.get(person_id)
        if person is None or person.disabled_ms is not None:
            raise AuthenticationFailed(f"{principal.name!r} is disabled")
        if not principal.scopes <= ROLE_SCOPES[Role(person.role)] or principal.teams != self.teams_of(person_id):
            raise AuthenticationFailed(f"the rights of {principal.name!r} have changed; ask again")

    def _find_sign_in(self, sign_in_id: str) -> _SignIn | None:
        return next((one for one in self._sign_ins.values() if one.record.id == sign_in_id), None)

    def signed_in(self, secret: str, *, now_ms: int, address: str | None) -> Principal:
        """Return whose browser sent this cookie.

        Raises:
            AuthenticationFailed: no such sign-in, or it is over, or the person was disabled.
            TooManyGuesses: it was not looked at.
        """
        digest = token_digest(secret)
        source = self._check_may_try(digest, address)
        found = self._sign_ins.get(digest)
        if found is None or (digest == found.old_digest and now_ms >= found.old_until_ms):
            self._guesses.note_wrong(source, digest, now_ms=steady_ms())
            raise AuthenticationFailed("signed out; sign in again")
        record = found.record
        person = self._people.get(record.person_id)
        idle = now_ms - record.last_used_ms >= SIGN_IN_IDLE_MS
        if person is None or person.disabled_ms is not None or idle or _is_over(record.expires_ms, now_ms):
            raise AuthenticationFailed("the sign-in is over; sign in again")
        found.record = msgspec.structs.replace(record, last_used_ms=now_ms)
        self._sign_ins_used.add(record.id)
        return Principal(
            id=person.id,
            name=person.name,
            scopes=ROLE_SCOPES[Role(person.role)],
            expires_ms=record.expires_ms,
            person=person,
            teams=self._memberships.get(person.id, frozenset()),
            sign_in_id=record.id,
        )

    def rotate_sign_in(self, sign_in_id: str, *, now_ms: int) -> tuple[SignInRecord, str] | None:
        """Return a sign-in with its new cookie value where it is time for one, else None; the caller stores it."""
        found = self._find_sign_in(sign_in_id)
        if found is None or now_ms - found.record.rotated_ms < SIGN_IN_ROTATE_MS:
            return None
        secret = mint_token(SIGN_IN_PREFIX)
        if found.old_digest is not None:
            self._sign_ins.pop(found.old_digest, None)
        found.old_digest, found.old_until_ms = found.record.digest, now_ms + SIGN_IN_GRACE_MS
        found.record = msgspec.structs.replace(found.record, digest=token_digest(secret), rotated_ms=now_ms)
        self._sign_ins[found.record.digest] = found
        return found.record, secret

    def check_may_guess(self, key: bytes, *, address: str | None) -> str:
        """Return the source of a try to sign in, or refuse to look at it.

        Raises:
            TooManyGuesses: too many wrong ones came from there.
        """
        return self._check_may_try(key, address)

    def note_guess(self, source: str, key: bytes, *, right: bool) -> None:
        """Count how a try to sign in ended."""
        if right:
            self._guesses.note_right(source, key)
        else:
            self._guesses.note_wrong(source, key, now_ms=steady_ms())

    def person(self, person_id: str) -> PersonRecord | None:
        """Return a person, disabled ones too."""
        return self._people.get(person_id)

    def person_by_email(self, email: str) -> PersonRecord | None:
        """Return whose address this is; letter case aside."""
        wanted = email.lower()
        return next((person for person in self._people.values() if person.email == wanted), None)

    def person_by_subject(self, *, issuer: str, subject: str) -> PersonRecord | None:
        """Return whom an identity provider knows under ``subject``."""
        found = (person for person in self._people.values() if person.subject == subject and person.issuer == issuer)
        return next(found, None)

    def teams_of(self, person_id: str) -> frozenset[str]:
        """Return the ids of a person's teams."""
        return self._memberships.get(person_id, frozenset())

    def token_owner(self, token_id: str) -> str | None:
        """Return the id of the person whose API token this is, or was before it was revoked; None for the account's."""
        record = self._makers.get(token_id)
        return None if record is None else record.person_id

    def lineage(self, actor_id: str) -> frozenset[str]:
        """Return ``actor_id`` and, of an API token, the tokens that it comes from; those of scope ``admin`` left out.

        Whoever holds a token of a lineage may hold all that was made with it.
        """
        found: set[str] = set()
        record = self._makers.get(actor_id)
        if record is None:
            return frozenset({actor_id})
        while record is not None and Scope.ADMIN.value not in record.scopes:
            found.add(record.id)
            record = self._makers.get(record.created_by)
        return frozenset(found)

    def sign_ins_of(self, person_id: str, *, now_ms: int) -> list[SignInRecord]:
        """Return a person's sign-ins that are not over, newest first."""
        found = {one.record.id: one.record for one in self._sign_ins.values() if one.record.person_id == person_id}
        alive = [
            record
            for record in found.values()
            if now_ms - record.last_used_ms < SIGN_IN_IDLE_MS and not _is_over(record.expires_ms, now_ms)
        ]
        return sorted(alive, key=lambda record: -record.created_ms)

    def put_person(self, record: PersonRecord) -> None:
        """Note a stored person, new or changed."""
        self._people[record.id] = record

    def put_memberships(self, memberships: dict[str, frozenset[str]]) -> None:
        """Note who is in which team."""
        self._memberships = memberships

    def add_sign_in(self, record: SignInRecord) -> None:
        """Let a stored sign-in in."""
        self._sign_ins[record.digest] = _SignIn(record)

    def drop_sign_ins(self, ids: list[str]) -> None:
        """Shut sign-ins out."""
        self._sign_ins = {digest: one for digest, one in self._sign_ins.items() if one.record.id not in ids}

    def take_uses(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return when which API tokens and sign-ins were used since this was asked last (Unix ms)."""
        tokens, self._tokens_used_ms = self._tokens_used_ms, {}
        used, self._sign_ins_used = self._sign_ins_used, set()
        signed = {one.record.id: one.record.last_used_ms for one in self._sign_ins.values() if one.record.id in used}
        return tokens, signed

    def runner(self, token: str, *, now_ms: int, address: str | None) -> RunnerTokenRecord:
        """Return the runner token's record, which names its environment; otherwise as `principal`.

        Raises:
            AuthenticationFailed: no such valid token.
            TooManyGuesses: it was not looked at.
        """
        digest = token_digest(token)
        source = self._check_may_try(digest, address)
        record = self._runner.get(digest) if token.startswith(RUNNER_TOKEN_PREFIX) else None
        if record is None or not hmac.compare_digest(record.digest, digest) or _is_over(record.expires_ms, now_ms):
            self._guesses.note_wrong(source, digest, now_ms=steady_ms())
            raise AuthenticationFailed("runner token unknown, expired or revoked")
        self._guesses.note_right(source, digest)
        return record

    def still_opens(self, environment_id: str, digest: bytes | None) -> bool:
        """Whether a runner token with ``digest``, or with None a machine's key, opens the environment now."""
        at_ms = now_ms()
        if digest is None:
            return bool(self.runner_keys(environment_id, now_ms=at_ms))
        record = self._runner.get(digest)
        return record is not None and not _is_over(record.expires_ms, at_ms)

    def runner_keys(self, environment_id: str, *, now_ms: int) -> list[bytes]:
        """Return the public keys (Ed25519) that open the environment's connection."""
        return [
            record.public_key
            for record in self._runner_keys.get(environment_id, {}).values()
            if not _is_over(record.expires_ms, now_ms)
        ]

    def add_runner_key(self, record: RunnerKeyRecord) -> None:
        """Let a stored key in."""
        self._runner_keys.setdefault(record.environment_id, {})[record.public_key] = record

    def end_runner_keys(self, environment_id: str, *, at_ms: int) -> None:
        """Let an environment's keys end."""
        for record in list(self._runner_keys.get(environment_id, {}).values()):
            end_ms = min(at_ms, record.expires_ms or at_ms)
            self.add_runner_key(msgspec.structs.replace(record, expires_ms=end_ms))

    def _check_may_try(self, digest: bytes, address: str | None) -> str:
        source = source_of(address)
        wait_s = self._guesses.wait_s(source, digest, now_ms=steady_ms())
        if wait_s:
            raise TooManyGuesses(
                f"too many wrong tokens came from {source}; this one was not looked at, try again in"
                f" {math.ceil(wait_s)} s"
            )
        return source

    def add_api_token(self, record: ApiTokenRecord) -> None:
        """Let a stored token in."""
        self._api[record.digest] = record
        self._makers[record.id] = record

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
        self._runner_keys.pop(environment_id, None)


def _is_over(expires_ms: int | None, now_ms: int) -> bool:
    return expires_ms is not None and expires_ms <= now_ms
