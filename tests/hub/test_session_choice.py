"""Where a session runs and who sees it: decisions, without a hub."""

from dataclasses import replace

import msgspec
import pytest

from guardhouse.hub.authorize import AccessDenied, Principal, Role, Scope
from guardhouse.hub.concerns import NotVisible
from guardhouse.hub.sessions.choice import Candidate, NothingToChoose, decide_environment
from guardhouse.hub.sessions.rules import check_creates_session, check_edits_session, check_sees_session
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.people import PersonRecord
from guardhouse.hub.store.sessions import SessionRecord

SESSION = SessionRecord(
    id="ses_1", title="t", scope="personal", team_id=None, created_by="usr_max", created_by_name="max",
    person_id="usr_max", created_ms=1, active_ms=1, choice="auto",
)  # fmt: skip
NAMED = msgspec.structs.replace(SESSION, choice="named", choice_environment_id="env_w", choice_environment_name="web-1")
WEB = Candidate(id="env_w", name="web-1", status="online", status_reason="connected", takes_tasks=True, busy=2)
NO_MANAGED = "there is none here"


def pick(session: SessionRecord, *candidates: Candidate, named: Candidate | None = None, managed: str | None = None):
    return decide_environment(session, named=named, candidates=candidates, managed_refusal=managed)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        pytest.param([WEB], "env_w", id="the only one"),
        pytest.param([WEB, replace(WEB, id="env_b", name="b", busy=1)], "env_b", id="the least busy"),
        pytest.param([WEB, replace(WEB, id="env_a", name="a")], "env_a", id="by name where both are as busy"),
        pytest.param([WEB, replace(WEB, id="env_o", status="offline", busy=0)], "env_w", id="never an offline one"),
        pytest.param([WEB, replace(WEB, id="env_d", takes_tasks=False, busy=0)], "env_w", id="never a draining one"),
        pytest.param([WEB, replace(WEB, id="env_s", status="degraded", busy=0)], "env_w", id="a degraded one last"),
        pytest.param([replace(WEB, status="degraded")], "env_w", id="a degraded one before none"),
        pytest.param([replace(WEB, status="pending")], None, id="none is selectable"),
        pytest.param([], None, id="none is there"),
    ],
)
def test_auto_takes_the_least_busy_online_one(candidates, chosen):
    """Auto takes a runner while one is online, else the managed sandbox; only then there is something to warn of."""
    found = pick(SESSION, *candidates)
    assert found.environment_id == chosen
    assert (found.warning is None) == (chosen is not None)


def test_the_fallback_says_what_was_not_there_and_what_it_means():
    """The warning names the tags that nobody has, and that no private network is reached."""
    warning = pick(msgspec.structs.replace(SESSION, choice_tags=("gpu", "eu"))).warning
    assert "tags gpu, eu" in warning
    assert "managed sandbox" in warning
    assert "none of your private networks" in warning


@pytest.mark.parametrize(
    ("session", "named", "managed", "words"),
    [
        pytest.param(
            SESSION, None, NO_MANAGED, f"is online; and no managed sandbox: {NO_MANAGED}", id="Auto finds none"
        ),
        pytest.param(
            msgspec.structs.replace(SESSION, choice="managed"), None, NO_MANAGED, NO_MANAGED, id="none to force"
        ),
        pytest.param(
            NAMED, replace(WEB, status="offline", status_reason="gone since"), None, "gone since", id="offline"
        ),
        pytest.param(NAMED, replace(WEB, status="pending"), None, "is pending and cannot be selected", id="pending"),
        pytest.param(NAMED, replace(WEB, takes_tasks=False), None, "starting or draining", id="draining"),
    ],
)
def test_refusals_say_why(session, named, managed, words):
    """What was named is never replaced while it exists: it is refused, though another is online."""
    with pytest.raises(NothingToChoose, match=words):
        pick(session, *([replace(WEB, id="env_x")] if session.choice == "named" else []), named=named, managed=managed)


def test_managed_ignores_runners():
    """Whoever asks for the managed sandbox gets it though a runner is online."""
    assert pick(msgspec.structs.replace(SESSION, choice="managed"), WEB).environment_id is None


def test_a_deleted_choice_falls_back_with_a_warning():
    """One that is deleted before the first task is replaced by Auto, and that is said (SEED_FEATURES S202)."""
    found = pick(NAMED, replace(WEB, id="env_x"))
    assert found.environment_id == "env_x"
    assert "'web-1'" in found.warning
    assert "deleted" in found.warning
    both = pick(NAMED).warning
    assert "deleted" in both
    assert "managed sandbox" in both


def person(name: str, *, role: Role = Role.MEMBER, teams: tuple[str, ...] = (), token: bool = False) -> Principal:
    record = PersonRecord(
        id=f"usr_{name}", email=f"{name}@x", name=name, role=role.value, password=None, issuer=None, subject=None,
        created_ms=1, created_by="hub", disabled_ms=None, last_sign_in_ms=None,
    )  # fmt: skip
    scopes = frozenset({Scope.ADMIN} if role is not Role.MEMBER else {Scope.TASKS_RUN, Scope.TASKS_READ})
    return Principal(
        id=f"tok_{name}" if token else record.id, name=name, scopes=scopes, person=record, teams=frozenset(teams)
    )


TEAM = msgspec.structs.replace(SESSION, scope="team", team_id="team_p")
ACCOUNT = msgspec.structs.replace(SESSION, scope="account")
TOKEN = Principal(id="tok_ci", name="ci", scopes=frozenset({Scope.TASKS_RUN}))
OF_TOKEN = msgspec.structs.replace(SESSION, created_by="tok_ci", person_id=None)


@pytest.mark.parametrize(
    ("who", "session", "sees", "edits"),
    [
        pytest.param(person("max"), SESSION, True, True, id="own"),
        pytest.param(person("max", token=True), SESSION, True, True, id="own, by a token"),
        pytest.param(person("eva"), SESSION, False, False, id="another's personal one"),
        pytest.param(person("eva", role=Role.ADMIN), SESSION, True, True, id="an admin sees all"),
        pytest.param(person("eva", teams=("team_p",)), TEAM, True, True, id="of one's team"),
        pytest.param(person("eva", teams=("team_q",)), TEAM, False, False, id="of another team"),
        pytest.param(person("max"), TEAM, True, True, id="own, of a team that one has left"),
        pytest.param(person("eva"), ACCOUNT, True, False, id="of the account: use it, not change it"),
        pytest.param(TOKEN, OF_TOKEN, True, True, id="a token's own"),
        pytest.param(person("eva"), OF_TOKEN, False, False, id="a token's, for another"),
    ],
)
def test_who_sees_and_edits(who, session, sees, edits):
    """Personal: whose it is; team: its people; account: everybody sees; owners and admins all."""
    for check, expected in ((check_sees_session, sees), (check_edits_session, edits)):
        if expected:
            check(who, session, None)
        else:
            with pytest.raises((NotVisible, AccessDenied)):
                check(who, session, None)


def environment(environment_id: str) -> EnvironmentRecord:
    fields = dict.fromkeys(EnvironmentRecord.__struct_fields__)
    return EnvironmentRecord(**{**fields, "id": environment_id, "kind": "byoc", "tags": ()})


def test_narrowed_tokens_see_what_is_bound_within():
    """A person's token for one environment sees of the person's sessions only those that are bound there."""
    narrowed = replace(person("max", token=True), environments=frozenset({"env_w"}))
    check_sees_session(narrowed, SESSION, environment("env_w"))
    for elsewhere in (None, environment("env_x")):
        with pytest.raises(NotVisible):
            check_sees_session(narrowed, SESSION, elsewhere)
    check_sees_session(narrowed, msgspec.structs.replace(SESSION, created_by=narrowed.id), None)


def test_sessions_of_a_team_are_made_by_its_people():
    """A member makes none for a team that they are not in."""
    check_creates_session(person("eva", teams=("team_p",)), "team_p")
    check_creates_session(person("eva"), None)
    with pytest.raises(AccessDenied):
        check_creates_session(person("eva"), "team_p")
