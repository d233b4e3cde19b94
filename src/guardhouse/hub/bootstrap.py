"""What a hub has before it serves anything: its store, its first API token, the link for its first owner.

Runs in the hub, at start, and in `guardhouse hub init`.
"""

from functools import partial
from typing import Final

import trio
from sqlalchemy import Connection

from guardhouse.hub.api.people import link_url, make_link
from guardhouse.hub.authorize import Scope
from guardhouse.hub.backends import choose_backend
from guardhouse.hub.clock import now_ms
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import API_TOKEN_PREFIX, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.database import Database
from guardhouse.hub.state_dir import StateDir, write_secret_file
from guardhouse.hub.store import audit, people, tokens

__all__ = ["ensure_owner_token", "initialise", "make_owner_link", "open_database"]

OWNER_LINK_VALID_MS: Final = 24 * 3_600_000


def open_database(config: HubConfig, state: StateDir) -> Database:
    """Open the store that ``config`` names, and make the sealing key where there is neither.

    Raises:
        SetupError: the store cannot be had, or the key that it was sealed with is missing.
    """
    backend = choose_backend(state.database, config.database)
    state.sealing_key(is_in_use=backend.exists())
    return Database(backend)


def initialise(config: HubConfig) -> StateDir:
    """Make state directory, key, database and owner token, and return the directory, still locked.

    Raises:
        SetupError: one of them cannot be had.
    """

    async def prepare() -> StateDir:
        state = StateDir.open(config.state_dir)
        database = open_database(config, state)
        state.audit_key()
        async with trio.open_nursery() as nursery:
            await nursery.start(database.run)
            await ensure_owner_token(database, state)
            database.close()
        return state

    return trio.run(prepare)


async def ensure_owner_token(database: Database, state: StateDir) -> bool:
    """Make the first API token, of scope ``admin``, and write it to its file; return whether it was made now."""
    if await database.read(tokens.count_api_tokens):
        return False
    secret = mint_token(API_TOKEN_PREFIX)
    # The file first: a crash between the two leaves a token that opens nothing, and the next start makes another.
    write_secret_file(state.owner_token_file, secret.encode() + b"\n")
    record = tokens.ApiTokenRecord(
        id=mint_id("tok"),
        name="owner",
        digest=token_digest(secret),
        hint=token_hint(secret),
        scopes=(Scope.ADMIN.value,),
        created_ms=now_ms(),
        created_by="hub",
        expires_ms=None,
        revoked_ms=None,
        last_used_ms=None,
    )
    await database.write(partial(tokens.insert_api_token, record=record))
    return True


async def make_owner_link(database: Database, public_url: str, state: StateDir) -> str | None:
    """Return a one-time link for the first owner, and write it to its file; None where there is an owner.

    Each start makes a new one, and the one before works no more.
    """

    def make(connection: Connection) -> str | None:
        if people.count_active_owners(connection):
            return None
        at_ms = now_ms()
        link, secret = make_link(
            purpose="owner", person_id=None, actor="hub", at_ms=at_ms, valid_ms=OWNER_LINK_VALID_MS
        )
        people.insert_link(connection, link)
        audit.record_audit_event(
            connection, at_ms=at_ms, actor="hub", action="link.create", target=link.id, address=None, purpose="owner"
        )
        return link_url(public_url, secret)

    url = await database.write(make)
    if url is None:
        state.owner_link_file.unlink(missing_ok=True)
    else:
        write_secret_file(state.owner_link_file, url.encode() + b"\n")
    return url
