"""Which sessions of the older era each caller has open, and which of them makes room for a new one. Pure."""

from collections import OrderedDict

__all__ = ["SessionBook"]


class SessionBook:
    """Sessions by caller, each with when it was used last; one that was idle for longer is gone, at the SDK too."""

    def __init__(self, *, most: int, idle_s: float) -> None:
        """``most`` sessions of one caller; ``idle_s`` is after how long the SDK ends an idle one."""
        self._most = most
        self._idle_s = idle_s
        self._used_s: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used_s)

    def note_use(self, caller: str, session_id: str, *, now_s: float) -> None:
        """Write down that a session was used just now; one that is not known is new."""
        self._used_s[session_id] = (caller, now_s)
        self._used_s.move_to_end(session_id)
        while self._used_s:
            oldest, (_, used_s) = next(iter(self._used_s.items()))
            if now_s - used_s <= self._idle_s:
                break
            del self._used_s[oldest]

    def knows(self, session_id: str) -> bool:
        """Whether it is written down as open."""
        return session_id in self._used_s

    def forget(self, session_id: str) -> None:
        """Strike out a session that has ended."""
        self._used_s.pop(session_id, None)

    def surplus(self, caller: str) -> list[str]:
        """Return those sessions of ``caller`` beyond what it may have, the ones not used for longest first."""
        own = [session_id for session_id, (owner, _) in self._used_s.items() if owner == caller]
        return own[: max(0, len(own) - self._most)]
