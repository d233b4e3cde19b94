"""Where a session runs: what was chosen and what there is, to one environment or a refusal that says why.

Pure: the choice, the runners that may take it and the managed sandbox's word in, the pick out. Runs in the hub.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from guardhouse.errors import Refusal
from guardhouse.hub.presence import SELECTABLE
from guardhouse.hub.store.sessions import SessionRecord

__all__ = ["Candidate", "NothingToChoose", "Picked", "decide_environment", "environment_gone", "explain_unavailable"]


class NothingToChoose(Refusal):
    """No environment can take the session now. Nothing was bound."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A self-hosted environment that the caller may use and that has the tags.

    Attributes:
        status: as `guardhouse.hub.presence` has it, with ``status_reason`` as a sentence.
        takes_tasks: its runner is connected and neither starting nor drained.
        busy: tasks that run or wait there.
    """

    id: str
    name: str
    status: str
    status_reason: str
    takes_tasks: bool
    busy: int = 0

    @property
    def is_selectable(self) -> bool:
        """Whether a session can begin there now; offline and pending ones are shown, and cannot be selected."""
        return self.status in SELECTABLE and self.takes_tasks


@dataclass(frozen=True, kw_only=True)
class Picked:
    """Where a session is bound to. ``environment_id`` is None for a managed sandbox of its own."""

    environment_id: str | None
    warning: str | None = None


def decide_environment(
    session: SessionRecord,
    *,
    named: Candidate | None,
    candidates: Sequence[Candidate],
    managed_refusal: str | None,
) -> Picked:
    """Return where an unbound ``session`` runs from now on.

    A named environment is taken or refused; only one that was deleted since is replaced by Auto, with a warning
    (SEED_FEATURES S202). Auto takes the least busy selectable candidate, by name where several are, and a degraded
    one only where nothing else is; where there is none at all it takes the managed sandbox, with a warning.

    Args:
        named: the environment of the choice; None where it names none, or where that is deleted.
        candidates: what Auto may choose among: those with the tags of the choice that are connected.
        managed_refusal: why the managed sandbox cannot be had, None where it can.

    Raises:
        NothingToChoose: none of it can be had; the text says why, each in turn.
    """
    if session.choice == "managed":
        if managed_refusal is not None:
            raise NothingToChoose(f"the managed sandbox cannot be had: {managed_refusal}")
        return Picked(environment_id=None)
    warnings: list[str] = []
    if session.choice == "named":
        if named is not None:
            if not named.is_selectable:
                raise NothingToChoose(_not_selectable(named))
            return Picked(environment_id=named.id)
        wanted = session.choice_environment_name or session.choice_environment_id
        warnings.append(
            f"environment {wanted!r}, which was chosen for this session, is deleted; one was chosen by Auto"
        )
    selectable = [candidate for candidate in candidates if candidate.is_selectable]
    if selectable:
        best = min(selectable, key=_rank)
        return Picked(environment_id=best.id, warning="; ".join(warnings) or None)
    nothing = _nothing_online(session.choice_tags)
    if managed_refusal is not None:
        raise NothingToChoose("; ".join([*warnings, nothing, f"and no managed sandbox: {managed_refusal}"]))
    warnings.append(
        f"{nothing}, so this session runs in a managed sandbox on the hub's host: it reaches none of your private"
        " networks and has no files of yours"
    )
    return Picked(environment_id=None, warning="; ".join(warnings))


def _rank(candidate: Candidate) -> tuple[bool, int, str, str]:
    return (candidate.status == "degraded", candidate.busy, candidate.name, candidate.id)


def _nothing_online(tags: Sequence[str]) -> str:
    having = f" with the tag{'s' if len(tags) > 1 else ''} {', '.join(tags)}" if tags else ""
    return f"no self-hosted runner that you may use{having} is online"


def _not_selectable(named: Candidate) -> str:
    why = (
        named.status_reason
        if named.status not in SELECTABLE
        else "its runner takes no tasks now (starting or draining)"
    )
    return f"environment {named.name!r} is {named.status} and cannot be selected: {why}"


def explain_unavailable(session: SessionRecord, *, why: str) -> str:
    """Return why a bound session cannot go on, in the sense of the seed's page."""
    return (
        f"environment {session.bound_environment_name!r}, which this session is bound to, is not available: {why}."
        " A session is never moved to another environment"
    )


def environment_gone(session: SessionRecord) -> str:
    """Return what is said of a session whose environment is deleted."""
    return (
        f"environment {session.bound_environment_name!r}, which this session was bound to, is deleted."
        " The session cannot go on, and is never moved to another environment; its history stays"
    )
