"""The hub's pure decisions, and that tables, migrations and files are what they should be."""

from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert

from guardhouse.errors import SetupError
from guardhouse.hub.clock import relative_time
from guardhouse.hub.config import HubConfig, parse_listen
from guardhouse.hub.credentials import Sealer, mint_token
from guardhouse.hub.logs import redact_tokens
from guardhouse.hub.migrate import migrate_to_newest
from guardhouse.hub.presence import ConnectedInstance, decide_presence
from guardhouse.hub.schema import METADATA, approvals
from guardhouse.hub.state_dir import StateDir
from guardhouse.hub.store.approvals import waited_ms
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskRecord, TaskState
from guardhouse.hub.tasks.ends import decide_end
from guardhouse.hub.tasks.sweep import decide_overdue, is_in_doubt
from guardhouse.wire.messages import TaskResult

NOW = 1_800_000_000_000
STARTED = NOW - 3_600_000


def record(**values) -> EnvironmentRecord:
    empty = dict.fromkeys(EnvironmentRecord.__struct_fields__)
    return EnvironmentRecord(
        **{**empty, "id": "env_x", "kind": "byoc", "tags": (), "created_ms": 0, "created_by": "t", **values}
    )


def instance(**values) -> ConnectedInstance:
    return ConnectedInstance(
        **{
            "connected_ms": NOW - 500_000,
            "remote_address": "10.0.0.1",
            "protocol": "plain",
            "last_heartbeat_ms": NOW - 1_000,
            "tasks_in_flight": 0,
            "draining": False,
            **values,
        }
    )


@pytest.mark.parametrize(
    ("environment", "connected", "status", "reason"),
    [
        pytest.param(record(), None, "pending", "no runner has connected", id="never seen"),
        pytest.param(record(first_seen_ms=1), instance(), "online", "connected, last heartbeat just now", id="online"),
        pytest.param(
            record(first_seen_ms=1),
            instance(last_heartbeat_ms=NOW - 89_000),
            "online",
            "last heartbeat 1 minute ago",
            id="89 s",
        ),
        pytest.param(
            record(first_seen_ms=1),
            instance(last_heartbeat_ms=NOW - 90_000),
            "offline",
            "connected, but no heartbeat for 90 s",
            id="90 s",
        ),
        pytest.param(
            record(),
            instance(connected_ms=NOW, last_heartbeat_ms=None),
            "pending",
            "has not come yet",
            id="no heartbeat",
        ),
        pytest.param(
            record(first_seen_ms=1, last_heartbeat_ms=NOW - 120_000, disconnected_ms=NOW - 5, disconnect_reason="cut"),
            None,
            "offline",
            "disconnected just now (cut); last heartbeat 2 minutes ago",
            id="cut",
        ),
        pytest.param(
            record(first_seen_ms=1, last_heartbeat_ms=STARTED - 1),
            None,
            "offline",
            "not connected since the hub started",
            id="before this hub",
        ),
    ],
)
def test_presence(environment, connected, status, reason):
    """Status and reason follow from the record, the connection and the clock alone."""
    found = decide_presence(environment, connected, now_ms=NOW, hub_started_ms=STARTED)
    assert found.status == status
    assert reason in found.reason


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (150, "2 minutes ago"),
        (7_200, "2 hours ago"),
        (90_000, "1 day ago"),
        (-5, "just now"),
    ],
)
def test_relative_time(seconds, text):
    """Times read as the seed's list shows them."""
    assert relative_time(NOW - seconds * 1000, now=NOW) == text


def task(state: str = "sent", *, age_s: float = 0, **values) -> TaskRecord:
    at_ms = NOW - int(age_s * 1000)
    return TaskRecord(
        **{
            "id": "tsk_x",
            "environment_id": "env_x",
            "environment_name": "x",
            "operation": "bash",
            "requested_by": "t",
            "args": b"{}",
            "command": "x",
            "state": state,
            "request_digest": b"",
            "trace_id": "",
            "created_by": "t",
            "protocol": "guardhouse.v1",
            "timeout_ms": 10_000,
            "created_ms": at_ms,
            "sent_ms": at_ms,
            **values,
        }
    )


def test_waiting_for_people_is_no_time_of_the_task():
    """What people took is taken off; what remains counts as ever."""
    asked = partial(decide_overdue, task("running", age_s=1_071), now_ms=NOW, away_s=None, cancel_sent_s_ago=None)
    assert asked(waited_s=1_002.0) is None
    late = asked(waited_s=1_000.0)
    assert late is not None
    assert late.code == "overdue"


def test_waits_side_by_side_count_once():
    """The time in which a task waited is that of all its questions together, up to now for an open one."""
    names = [column.name for column in approvals.columns if not column.nullable]
    engine = create_engine("sqlite://")
    approvals.create(engine)
    with engine.begin() as connection:
        for number, (asked_ms, decided_ms) in enumerate([(100, 300), (200, 250), (400, None), (1_000, 1_200)]):
            row = {name: f"{name}-{number}" for name in names}
            row |= {"asked_ms": asked_ms, "decided_ms": decided_ms, "expires_ms": 0, "votes_needed": 1}
            row |= {"state": "pending", "gate": "exec", "task_id": "t" if number < 3 else "other"}
            connection.execute(insert(approvals).values(**row))
        assert waited_ms(connection, "t", now_ms=500) == 300
        assert waited_ms(connection, "other", now_ms=500) == 200
        assert waited_ms(connection, "none", now_ms=500) == 0


@pytest.mark.parametrize(
    ("live", "away_s", "cancel_s", "state", "code"),
    [
        pytest.param(task("queued", queue_until_ms=NOW + 1), None, None, "wait", "", id="waits in line"),
        pytest.param(task("queued", queue_until_ms=NOW), None, None, "failed", "queue_timeout", id="waited enough"),
        pytest.param(task("running", age_s=69), None, None, "wait", "", id="within its grace"),
        pytest.param(task("running", age_s=71), None, None, None, "overdue", id="told to stop"),
        pytest.param(task("accepted", age_s=9_999), None, None, "wait", "", id="waits in a v1 runner"),
        pytest.param(task("sent", age_s=71, protocol="plain"), None, None, None, "overdue", id="plain is late"),
        pytest.param(task("running", age_s=200), None, 61.0, "timed_out", "unconfirmed", id="no answer to the stop"),
        pytest.param(task("running", cancel_ms=1), None, 61.0, "cancelled", "unconfirmed", id="no answer to a cancel"),
        pytest.param(task("running", protocol="plain"), 89.0, None, "wait", "", id="plain runner just gone"),
        pytest.param(task("running", protocol="plain"), 90.0, None, "lost", "lost", id="plain runner gone"),
        pytest.param(task("running", age_s=3_599), 3_599.0, None, "wait", "", id="v1 runner gone"),
        pytest.param(task("running", age_s=3_700), 3_600.0, None, "lost", "lost", id="v1 runner gone for good"),
        pytest.param(
            task("running", age_s=3_700, timeout_ms=86_400_000), 3_600.0, None, "wait", "", id="it may still run there"
        ),
    ],
)
def test_overdue(live, away_s, cancel_s, state, code):
    """Each deadline ends what nothing else would end, and not before."""
    verdict = decide_overdue(live, now_ms=NOW, away_s=away_s, cancel_sent_s_ago=cancel_s)
    if state == "wait":
        assert verdict is None
    else:
        assert verdict is not None
        assert (verdict.state, verdict.code) == (state, code)


def test_a_task_that_may_never_have_arrived_is_lost_and_not_late():
    """What was sent over a connection that ended, and never heard of, did not run out of time: nobody can know."""
    late = partial(decide_overdue, now_ms=NOW, away_s=None)
    silent = task("sent", age_s=200, protocol="plain")
    assert is_in_doubt(silent)
    verdict = late(silent, cancel_sent_s_ago=61.0, in_doubt=True)
    assert verdict is not None
    assert (verdict.state, verdict.code) == ("lost", "lost")
    assert "cannot say whether the request arrived" in verdict.reason
    told = late(silent, cancel_sent_s_ago=None, in_doubt=True)
    assert told is not None
    assert (told.state, told.code) == (None, "overdue")
    cancelled = late(task("sent", protocol="plain", cancel_ms=1), cancel_sent_s_ago=61.0, in_doubt=True)
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    assert not is_in_doubt(task("sent"))
    assert not is_in_doubt(task("running", protocol="plain"))


@pytest.mark.parametrize(
    ("result", "cancel_asked", "state", "exit_code"),
    [
        pytest.param({"success": True, "exit_code": 3}, False, "succeeded", 3, id="a status is no failure"),
        pytest.param({"success": True, "result": {"exit_code": 4}}, False, "succeeded", 4, id="status inside"),
        pytest.param({"success": False, "error": "command denied: x"}, False, "failed", None, id="denied"),
        pytest.param(
            {"success": True, "result": {"timed_out": True, "exit_code": 124}}, False, "timed_out", 124, id="late"
        ),
        pytest.param({"success": False, "error": "killed"}, True, "cancelled", None, id="plain after a cancel"),
        pytest.param({"success": True, "exit_code": 0}, True, "succeeded", 0, id="ended before the cancel"),
        pytest.param({"success": True, "result": {"cancelled": True}}, True, "cancelled", None, id="cancelled"),
    ],
)
def test_end_of_a_task(result, cancel_asked, state, exit_code):
    """The stored state follows from the runner's result."""
    end = decide_end(TaskResult(task_id="t", **result), at_ms=NOW, cancel_asked=cancel_asked, notes=[])
    assert (end.state, end.exit_code) == (TaskState(state), exit_code)


def test_migrations_make_the_tables():
    """What the steps build is what the code declares."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        migrate_to_newest(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_sealed_token_opens_only_where_it_belongs():
    """A sealed token opens under its key and its record, and under no other."""
    token = mint_token("wnt_")
    sealed = Sealer(b"k" * 32).seal(token, owner="env_a/wtk_a")
    assert Sealer(b"k" * 32).open(sealed, owner="env_a/wtk_a") == token
    assert token.encode() not in sealed
    for key, owner, blob in (
        (b"x" * 32, "env_a/wtk_a", sealed),
        (b"k" * 32, "env_b/wtk_a", sealed),
        (b"k" * 32, "env_a/wtk_a", sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(SetupError, match="was not sealed with this hub's key"):
            Sealer(key).open(blob, owner=owner)


def test_tokens_are_redacted_in_logs():
    """A token in any logged text is cut to its prefix."""
    token = mint_token("ght_")
    event = redact_tokens(None, "info", {"event": f"got {token}!", "n": 1})
    assert event == {"event": "got ght_[redacted]!", "n": 1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"host": "0.0.0.0"}, "refusing plain HTTP", id="plain off loopback"),
        pytest.param({"tls_key": Path("k")}, "belong together", id="half of TLS"),
        pytest.param({"public_url": "ftp://x"}, "is not an http", id="other scheme"),
        pytest.param({"public_url": "https://u:p@x"}, "must not carry", id="credentials in the URL"),
        pytest.param({"in_flight_limit": 0}, "at least 1", id="no tasks"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    """Each wrong setting is named before anything is opened; the same without it is taken."""
    HubConfig(state_dir=Path("x"))
    with pytest.raises(SetupError, match=words):
        HubConfig(state_dir=Path("x"), **settings)


def test_behind_a_proxy_plain_http_is_allowed():
    """The twin of the refusal: the same address, with the proxy named."""
    assert HubConfig(state_dir=Path("x"), host="0.0.0.0", behind_proxy=True).port == 8443


@pytest.mark.parametrize(
    ("text", "place"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), (":8443", ("0.0.0.0", 8443)), ("a.b:1", ("a.b", 1))],
)
def test_listen_addresses(text, place):
    """Host and port are told apart, IPv6 by its brackets."""
    assert parse_listen(text) == place


@pytest.mark.parametrize("text", ["", "localhost", "::1:80", "x:99999", "x:-1", "x:8o"])
def test_bad_listen_addresses(text):
    """What is no address is refused with an example."""
    with pytest.raises(SetupError, match="--listen"):
        parse_listen(text)


def test_open_state_directory_is_refused(tmp_path):
    """A directory that others can read is refused, with the command that mends it; closed, it is taken."""
    path = tmp_path / "state"
    path.mkdir(mode=0o755)
    with pytest.raises(SetupError, match="chmod 700"):
        StateDir.open(path)
    path.chmod(0o700)
    StateDir.open(path).close()


def test_symlinked_state_directory_is_refused(tmp_path):
    """The state never lands where a symlink points."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(SetupError, match="symlink"):
        StateDir.open(tmp_path / "link")
