"""Managed sandboxes in both stores, without their runners: who sees one, what goes with it, what may be reached."""

from functools import partial

import msgspec
import pytest
from sqlalchemy.exc import IntegrityError

from guardhouse.hub.managed.settings import Domain
from guardhouse.hub.store import environments, managed
from guardhouse.hub.store.managed import SandboxRecord

SANDBOX = SandboxRecord(
    environment_id="env_one", session_id="ses_one", state="running", created_ms=1_800_000_000_000, active_ms=1
)


def made(name: str, *, at_ms: int) -> "partial[None]":
    record = msgspec.structs.replace(SANDBOX, environment_id=f"env_{name}", session_id=f"ses_{name}", created_ms=at_ms)
    return partial(
        managed.insert_sandbox,
        record=record,
        name=f"sandbox-{name}",
        owner="usr_max",
        team_id=None,
        created_by="usr_max",
    )


async def test_life_of_a_stored_sandbox(hub):
    """Stored with its environment, listed by age, changed, shared, and deleted with everything of it."""
    database = hub.hub.services.database
    await database.write(made("two", at_ms=1_800_000_000_002))
    await database.write(made("one", at_ms=1_800_000_000_001))
    with pytest.raises(IntegrityError):
        await database.write(made("one", at_ms=3))
    assert [one.environment_id for one in await database.read(managed.list_sandboxes)] == ["env_one", "env_two"]
    # More bytes than 32 bits have, and a text with what a JSON or SQL literal would have to escape.
    values = {"state": "reclaimed", "size_bytes": 5 * 2**40, "files": 3, "loss": 'it\'s "gone"\n€', "is_told": False}
    await database.write(partial(managed.update_sandbox, environment_id="env_one", **values))
    first, second = await database.read(managed.list_sandboxes)
    assert {name: getattr(first, name) for name in values} == values
    assert (second.state, second.loss, second.is_told) == ("running", None, True)
    with pytest.raises(IntegrityError):
        await database.write(partial(managed.update_sandbox, environment_id="env_one", state="thawing"))

    stored = await database.read(partial(environments.find_environment, id_or_name="env_one"))
    assert (stored.kind, stored.owner, stored.team_id) == ("cloud", "usr_max", None)
    await database.write(partial(managed.share_sandbox, environment_id="env_one", owner=None, team_id=None))
    assert (await database.read(partial(environments.find_environment, id_or_name="env_one"))).owner is None
    ordinary = (await hub.environment())["environment"]["id"]
    await database.write(partial(managed.share_sandbox, environment_id=ordinary, owner="usr_max", team_id=None))
    assert (await database.read(partial(environments.find_environment, id_or_name=ordinary))).owner is None

    assert await database.write(partial(managed.delete_sandbox, environment_id="env_one"))
    assert not await database.write(partial(managed.delete_sandbox, environment_id="env_one"))
    assert await database.read(partial(environments.find_environment, id_or_name="env_one")) is None
    assert [one.environment_id for one in await database.read(managed.list_sandboxes)] == ["env_two"]


async def test_what_sandboxes_may_reach(hub):
    """One list for the account, replaced as a whole."""
    database = hub.hub.services.database
    assert await database.read(managed.list_domains) == ()
    for domains in ((Domain(domain="*.example.com", ports=(80, 443)), Domain(domain="a.example.org")), ()):
        await database.write(partial(managed.store_domains, domains=domains, at_ms=1, actor="usr_max"))
        assert await database.read(managed.list_domains) == domains
