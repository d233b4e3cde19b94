"""A real hub for each test: real Hypercorn, real TLS on loopback, SQLite on disk and a real PostgreSQL server.

Every test that has a hub runs on both stores, but those of the modules in `ON_ONE`, on SQLite only. With
GUARDHOUSE_TEST_STORE=postgresql all run on that, and none on SQLite. Both begin with the tables of a template, made
once by the migrations: whoever tests those starts a hub without `start_hub`.
"""

import inspect
import os
import secrets
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import argon2
import httpx2
import pytest
import trio
import trustme
from mcp.server.mcpserver.tools import Tool
from tests.hub.support import NO_TLS, Store
from tests.support.postgresql import Cluster, find_programs, running_cluster

from guardhouse.hub.backends import PostgresqlBackend, SqliteBackend
from guardhouse.hub.config import HubConfig
from guardhouse.hub.database import Database
from guardhouse.hub.server import RunningHub, open_hub

# What another store cannot change the outcome of, each with the reason.
ON_ONE = {
    "test_approvals_with_runner": "what real runners do; test_approvals asks the store",
    "test_clock": "what counts time is in memory",
    "test_asking_operations": "what real runners do; test_approvals asks the store",
    "test_hard_starts": "what the files of a state directory do; test_postgresql has its server's",
    "test_killed_at_each_step": "eight hubs; the long form has GUARDHOUSE_TEST_STORE",
    "test_managed": "what real sandboxes do, for half a minute; test_managed_store asks the store",
    "test_mcp_door": "what counts calls is in memory",
    "test_openapi": "thousands of requests; the long form has GUARDHOUSE_TEST_STORE",
    "test_skills_with_runner": "what real runners do; test_skills asks the store",
    "test_transport": "what is said before there is a request",
    # Of tests/cli_client, whose hub is the same: the command line sees REST only.
    "test_commands": "REST only",
    "test_copy": "REST only",
    "test_login": "REST only",
    "test_reach": "REST only",
    "test_runs": "REST only",
    "test_session": "REST only",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    if "store_url" not in metafunc.fixturenames or module == "test_postgresql":
        return
    stores = ["sqlite"]
    if metafunc.definition.get_closest_marker("one_store") is not None:
        metafunc.parametrize("store_url", stores, indirect=True)
        return
    if os.environ.get("GUARDHOUSE_TEST_STORE") == "postgresql":
        stores = ["postgresql"]
    elif module not in ON_ONE and metafunc.module.__name__.startswith("tests.hub."):
        stores.append("postgresql")
    metafunc.parametrize("store_url", stores, indirect=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here: initdb and postgres (Debian: postgresql)")
    with running_cluster(programs) as cluster:
        template = cluster.new_database(is_empty=True)
        database = Database(PostgresqlBackend(template))
        database.dispose()
        cluster.keep_as_template(template)
        yield cluster


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the hub's tables, as the migrations make them."""
    file = tmp_path_factory.mktemp("template") / "hub.db"
    Database(SqliteBackend(file)).dispose()
    return file


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of an empty database of the test's own; None for SQLite in the state directory."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    url = cluster.new_database()
    yield url
    cluster.drop(url)


@dataclass
class HubUnderTest:
    """A hub, and an HTTP client that speaks to it as its owner."""

    hub: RunningHub
    http: httpx2.AsyncClient
    state_dir: Path
    ssl_context: ssl.SSLContext | None
    store: Store

    @property
    def url(self) -> str:
        return self.hub.url

    async def environment(self, name: str = "web-1", **more: Any) -> dict[str, Any]:
        reply = await self.http.post("/api/v1/environments", json={"name": name, **more})
        assert reply.status_code == 201, reply.text
        return reply.json()

    async def start(self, command: str = "true", *, environment: str = "web-1", **more: Any) -> dict[str, Any]:
        body = {"environment_id": environment, "operation": "bash", "args": {"command": command}, **more}
        reply = await self.http.post("/api/v1/tasks", json=body)
        assert reply.status_code in {200, 202}, reply.text
        return reply.json()

    async def result(self, task_id: str, *, wait_s: float = 30) -> dict[str, Any]:
        reply = await self.http.get(f"/api/v1/tasks/{task_id}/result", params={"wait_s": wait_s})
        assert reply.status_code in {200, 202}, reply.text
        return reply.json()

    async def status(self, name: str = "web-1") -> dict[str, Any]:
        return (await self.http.get(f"/api/v1/environments/{name}")).json()

    async def until(self, condition: Callable[[], Any], *, within_s: float = 30) -> Any:
        """Ask again and again for what happens in another task; the only place that polls."""
        with trio.fail_after(within_s):
            while True:
                found = await condition()
                if found:
                    return found
                await trio.sleep(0.01)

    async def until_online(self, name: str = "web-1", *, within_s: float = 30) -> None:
        async def is_online() -> bool:
            return (await self.status(name)).get("status") == "online"

        await self.until(is_online, within_s=within_s)


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id with small parameters: a test of signing in is none of the hash's cost."""
    hasher = partial(argon2.PasswordHasher, time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr("guardhouse.hub.people.passwords.argon2.PasswordHasher", hasher)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def tools_made_once() -> Iterator[None]:
    """The MCP tools' schemas, which are the same for every hub and half of the time that one takes to start."""
    made: dict[CodeType, Tool] = {}
    make = Tool.from_function

    def from_function(function: Callable[..., Any], **settings: Any) -> Tool:
        code = inspect.unwrap(function).__code__
        if code not in made:
            made[code] = make(function, **settings)
        return made[code].model_copy(update={"fn": function})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tool, "from_function", from_function)
        yield


@pytest.fixture
def start_hub(
    tmp_path: Path, authority: trustme.CA, store_url: str | None, sqlite_template: Path, tools_made_once: None
) -> Any:
    """Return a function that starts a hub on the same state directory, as often as a test likes."""

    @asynccontextmanager
    async def start(
        *, tls: bool = False, listen_port: int = 0, is_new: bool = False, **settings: Any
    ) -> AsyncIterator[HubUnderTest]:
        # With ``is_new`` the hub makes its state directory and everything in it itself.
        state_dir = tmp_path / "state"
        if store_url is None and not is_new and not state_dir.exists():
            state_dir.mkdir(mode=0o700)
            shutil.copyfile(sqlite_template, state_dir / "hub.db")
            for name in ("sealing.key", "audit.key"):
                (state_dir / name).touch(mode=0o600)
                (state_dir / name).write_bytes(secrets.token_bytes(32))
        context = None
        if tls:
            issued = authority.issue_cert("localhost", "127.0.0.1")
            key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
            issued.private_key_pem.write_to_path(str(key))
            chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            settings |= {"tls_certificate": chain, "tls_key": key}
            context = ssl.create_default_context()
            authority.configure_trust(context)
        settings.setdefault("database", store_url)
        async with open_hub(HubConfig(state_dir=state_dir, port=listen_port, **settings)) as hub:
            token = (state_dir / "owner.token").read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            verify = context if context is not None else NO_TLS
            async with httpx2.AsyncClient(base_url=hub.url, headers=headers, verify=verify, timeout=60) as http:
                yield HubUnderTest(hub, http, state_dir, context, Store(state_dir, settings["database"]))

    return start


@pytest.fixture
async def hub(start_hub: Any) -> AsyncIterator[HubUnderTest]:
    async with start_hub() as found:
        yield found
