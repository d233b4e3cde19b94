"""Passwords: which are taken, how they are hashed (argon2id), and how one is compared. Runs in the hub."""

from collections.abc import Callable
from typing import Final

import argon2
import trio
from argon2.exceptions import InvalidHashError, VerificationError

from guardhouse.errors import Refusal

__all__ = ["PASSWORD_MIN_CHARS", "PasswordRefused", "Passwords", "TooBusy", "check_password"]

# NIST SP 800-63B-4, 3.1.1.2: length is what counts, 15 where it is the only factor; no rules of composition.
PASSWORD_MIN_CHARS: Final = 15
PASSWORD_MAX_CHARS: Final = 256
# Each hash takes 64 MiB and some 50 ms (RFC 9106, second recommended option): two at a time, a few in line.
_AT_A_TIME: Final = 2
_IN_LINE: Final = 32


class PasswordRefused(Refusal):
    """A new password is too short, too long or too easily guessed."""


class TooBusy(Refusal):
    """Too many passwords are being compared already."""


class Passwords:
    """Hashes and compares passwords in threads, a few at a time."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher()
        self._limiter = trio.CapacityLimiter(_AT_A_TIME)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """Return the argon2id hash that is stored.

        Raises:
            TooBusy: see there.
        """
        self._check_line()
        return await trio.to_thread.run_sync(self._hasher.hash, password, limiter=self._limiter)

    async def is_right(self, password: str, stored: str | None, *, check: Callable[[], object]) -> bool:
        """Tell whether ``password`` is the stored one; takes as long where None is stored, and says no.

        Args:
            check: raises where it may not be looked at any more; called when its turn has come, since many that came
                at once would else all be let in by what was true before the first was wrong.

        Raises:
            TooBusy: see there; and whatever ``check`` raises.
        """
        self._check_line()
        async with self._limiter:
            check()
            if stored is None and self._nobody is None:
                self._nobody = await trio.to_thread.run_sync(self._hasher.hash, "nobody")
            # Where there is no such person something is compared too, so that the time tells nothing.
            right = await trio.to_thread.run_sync(self._compare, password[:PASSWORD_MAX_CHARS], stored or self._nobody)
            return right and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """Tell whether a hash was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _compare(self, password: str, stored: str | None) -> bool:
        try:
            return self._hasher.verify(stored or "", password)
        except (VerificationError, InvalidHashError):
            return False

    def _check_line(self) -> None:
        if self._limiter.statistics().tasks_waiting >= _IN_LINE:
            raise TooBusy("too many people are signing in at once; try again in a moment")


def check_password(password: str, *, email: str, name: str) -> None:
    """Refuse a new password that is easily guessed.

    Raises:
        PasswordRefused: it is.
    """
    if len(password) < PASSWORD_MIN_CHARS:
        raise PasswordRefused(f"the password has {len(password)} characters; take at least {PASSWORD_MIN_CHARS}")
    if len(password) > PASSWORD_MAX_CHARS:
        raise PasswordRefused(f"the password has {len(password)} characters; take at most {PASSWORD_MAX_CHARS}")
    folded = password.casefold()
    if len(set(folded)) < 5:
        raise PasswordRefused("the password repeats a few characters; take several unrelated words")
    for part in (email.partition("@")[0], name):
        rest = folded.replace(part.casefold(), "") if part else folded
        if len(rest) < 8:
            raise PasswordRefused("the password is little more than your name or address; take unrelated words")
