"""Device sign-ins on their way: a terminal asks, a person who is signed in in a browser says yes (RFC 8628).

They are in memory only, for ten minutes: a restart of the hub ends them, and nobody's secret is stored before there is
a token. Nobody needs to be known to begin one, so how many there are is bounded, in all and for each source. Pure but
for random numbers: told the time. Runs in the hub.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from guardhouse.errors import Refusal
from guardhouse.hub.credentials import DEVICE_PREFIX, mint_id, mint_token, token_digest

__all__ = [
    "DEVICE_SIGN_IN_VALID_MS",
    "POLL_INTERVAL_S",
    "DeviceSignIn",
    "DeviceSignInUnknown",
    "DeviceSignIns",
    "TooManyDevices",
    "normal_user_code",
]

DEVICE_SIGN_IN_VALID_MS: Final = 600_000
# How often a terminal asks whether somebody has said yes.
POLL_INTERVAL_S: Final = 2
# Consonants: no word comes out by chance, and no letter looks like a digit (RFC 8628, 6.1). 20**8 are 34.5 bits.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_CODE_LETTERS: Final = 8
# Some 300 bytes each.
PENDING_MAX: Final = 10_000
PENDING_PER_SOURCE_MAX: Final = 20


class DeviceSignInUnknown(Refusal):
    """No device sign-in has this code: it is wrong, over, or was used. The text does not say which."""


class TooManyDevices(Refusal):
    """Too many device sign-ins are on their way, in all or from one source."""


class DeviceSignIn(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal that waits. Times are Unix ms.

    Attributes:
        device_digest: of the secret that the terminal holds; the secret itself is nowhere here.
        user_code: what a person types, as ``BCDF-GHJK``.
        name: what the token will be called, as the terminal says it.
        scopes: what it asks for; None: all that the person may do.
        token_life_ms: how long the token is to work.
        source, address: where it asks from, as it counts and as it is shown.
        person_id: who said yes; None while nobody has.
        is_denied: somebody said no.
    """

    id: str
    device_digest: bytes
    user_code: str
    name: str
    scopes: tuple[str, ...] | None
    token_life_ms: int
    source: str
    address: str | None
    created_ms: int
    expires_ms: int
    person_id: str | None = None
    is_denied: bool = False


def normal_user_code(text: str) -> str:
    """Return a code as people type it in the one form that it is kept in: ``bcdf ghjk`` is ``BCDF-GHJK``."""
    letters = "".join(letter for letter in text.upper() if letter not in "- \t")
    return f"{letters[:4]}-{letters[4:]}"


class DeviceSignIns:
    """The terminals that wait."""

    def __init__(self) -> None:
        # In the order in which they began, so the first is the first to be over.
        self._by_digest: dict[bytes, DeviceSignIn] = {}
        self._by_code: dict[str, bytes] = {}

    def begin(
        self,
        *,
        name: str,
        scopes: tuple[str, ...] | None,
        token_life_ms: int,
        source: str,
        address: str | None,
        now_ms: int,
    ) -> tuple[DeviceSignIn, str]:
        """Return a new one, and the secret that its terminal asks with.

        Raises:
            TooManyDevices: there is no room, or this source has too many already.
        """
        self._forget(now_ms)
        of_source = sum(one.source == source for one in self._by_digest.values())
        if of_source >= PENDING_PER_SOURCE_MAX or len(self._by_digest) >= PENDING_MAX:
            whose = f"from {source}" if of_source >= PENDING_PER_SOURCE_MAX else "in all"
            raise TooManyDevices(f"too many device sign-ins are on their way {whose}; they are over in ten minutes")
        secret = mint_token(DEVICE_PREFIX)
        code = self._new_code()
        while code in self._by_code:
            code = self._new_code()
        made = DeviceSignIn(
            id=mint_id("dev"),
            device_digest=token_digest(secret),
            user_code=code,
            name=name,
            scopes=scopes,
            token_life_ms=token_life_ms,
            source=source,
            address=address,
            created_ms=now_ms,
            expires_ms=now_ms + DEVICE_SIGN_IN_VALID_MS,
        )
        self._keep(made)
        return made, secret

    @staticmethod
    def _new_code() -> str:
        return normal_user_code("".join(secrets.choice(_LETTERS) for _ in range(_CODE_LETTERS)))

    def find(self, user_code: str, *, now_ms: int) -> DeviceSignIn:
        """Return the one that waits for an answer under ``user_code``.

        Raises:
            DeviceSignInUnknown: there is none, or it was answered.
        """
        digest = self._by_code.get(normal_user_code(user_code))
        found = self._by_digest.get(digest) if digest is not None else None
        if found is None or found.expires_ms <= now_ms or found.is_denied or found.person_id is not None:
            raise DeviceSignInUnknown("no terminal waits under this code: it is wrong, over or was used already")
        return found

    @contextmanager
    def answering(self, user_code: str, *, now_ms: int) -> Iterator[DeviceSignIn]:
        """Hold the one that waits under ``user_code``: nobody else finds it, so that one answer is recorded, not two.

        The caller records its answer and then uses `answer`; left without that, it waits for an answer again.

        Raises:
            DeviceSignInUnknown: as `find`.
        """
        found = self.find(user_code, now_ms=now_ms)
        del self._by_code[found.user_code]
        try:
            yield found
        finally:
            if found.device_digest in self._by_digest:
                self._by_code[found.user_code] = found.device_digest

    def answer(self, found: DeviceSignIn, *, person_id: str | None) -> None:
        """Let ``person_id`` say yes to one that is held, or with None say no.

        Raises:
            DeviceSignInUnknown: its time is over.
        """
        if found.device_digest not in self._by_digest:
            raise DeviceSignInUnknown("this terminal's ten minutes are over")
        self._by_digest[found.device_digest] = msgspec.structs.replace(
            found, person_id=person_id, is_denied=person_id is None
        )

    def collect(self, device_secret: str, *, now_ms: int) -> DeviceSignIn:
        """Return how the one with this secret stands; once somebody has answered, it is over with this.

        Raises:
            DeviceSignInUnknown: there is none, it is over, or was collected.
        """
        found = self._by_digest.get(token_digest(device_secret))
        if found is None or found.expires_ms <= now_ms:
            raise DeviceSignInUnknown("this device sign-in is unknown, over or was used already")
        if found.is_denied or found.person_id is not None:
            self._drop(found)
        return found

    def put_back(self, collected: DeviceSignIn) -> None:
        """Let one that was collected be collected again: its token could not be stored."""
        self._keep(collected)

    def _keep(self, one: DeviceSignIn) -> None:
        self._by_digest[one.device_digest] = one
        self._by_code[one.user_code] = one.device_digest

    def _drop(self, one: DeviceSignIn) -> None:
        self._by_digest.pop(one.device_digest, None)
        self._by_code.pop(one.user_code, None)

    def _forget(self, now_ms: int) -> None:
        for one in [one for one in self._by_digest.values() if one.expires_ms <= now_ms]:
            self._drop(one)
