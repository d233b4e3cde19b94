"""The key that runner tokens are sealed with: which one is in use, and how another takes its place.

The new key is on the disk before the store changes and takes the old one's name after it; a crash in between leaves
both, and the next start looks which one opens the store. Runs in the hub, at start, and in
`guardhouse hub rotate-sealing-key`.
"""

import secrets

import structlog
import trio
from msgspec import structs
from sqlalchemy import Connection

from guardhouse.errors import SetupError
from guardhouse.hub.audit.keeper import AuditKeeper
from guardhouse.hub.audit.rotate import open_audit_signer
from guardhouse.hub.bootstrap import open_database
from guardhouse.hub.clock import now_ms
from guardhouse.hub.config import HubConfig
from guardhouse.hub.credentials import Sealer
from guardhouse.hub.database import Database
from guardhouse.hub.mcp_servers import mcp_secret_owner
from guardhouse.hub.state_dir import SEALING_KEY_BYTES, StateDir, write_secret_file
from guardhouse.hub.store import audit, mcp_servers, tokens

__all__ = ["change_sealing_key", "open_sealer", "rotate_sealing_key"]

_log = structlog.get_logger("guardhouse.hub")


async def open_sealer(state: StateDir, database: Database) -> Sealer:
    """Return what seals and opens runner tokens; finish a change of key that was cut short.

    Raises:
        SetupError: neither key opens what is stored.
    """
    following = state.next_sealing_key()
    sealed = await database.read(_sealed_things)
    current = Sealer(state.sealing_key(is_in_use=bool(sealed)))
    if following is None:
        if sealed and not _opens(current, sealed[0]):
            raise SetupError(
                "sealing.key does not open the stored runner tokens: it belongs to another store; restore the one that"
                " this database was backed up with"
            )
        return current
    if not sealed or _opens(Sealer(following), sealed[0]):
        state.adopt_next_sealing_key()
        _log.warning("sealing_key_changed", note="an earlier change of the key was finished")
    elif _opens(current, sealed[0]):
        state.drop_next_sealing_key()
        _log.warning("sealing_key_kept", note="an earlier change of the key had not reached the store")
    else:
        raise SetupError("neither sealing.key nor sealing.key.next opens the stored tokens; restore the backup")
    return Sealer(state.sealing_key(is_in_use=bool(sealed)))


def _opens(sealer: Sealer, sealed: tuple[bytes, str]) -> bool:
    try:
        sealer.open(sealed[0], owner=sealed[1])
    except SetupError:
        return False
    return True


def _owner(record: tokens.RunnerTokenRecord) -> str:
    return f"{record.environment_id}/{record.id}"


def _sealed_things(connection: Connection) -> list[tuple[bytes, str]]:
    """Return everything that is sealed, with what it is sealed to."""
    found = [(record.sealed, _owner(record)) for record in tokens.list_runner_tokens(connection, now_ms=0)]
    found += [(record.sealed, mcp_secret_owner(record.id)) for record in mcp_servers.list_mcp_servers(connection)]
    return found


async def rotate_sealing_key(state: StateDir, database: Database) -> int:
    """Seal every runner token anew under a new key; return how many. Tokens stay as they are, runners notice nothing.

    Raises:
        SetupError: a token cannot be opened with the old key; nothing is changed then.
    """
    old = await open_sealer(state, database)
    key = secrets.token_bytes(SEALING_KEY_BYTES)
    new = Sealer(key)
    write_secret_file(state.next_sealing_key_file, key)

    def seal_anew(connection: Connection) -> int:
        records = tokens.list_runner_tokens(connection, now_ms=0)
        for record in records:
            token = old.open(record.sealed, owner=_owner(record))
            tokens.reseal_runner_token(connection, record.id, sealed=new.seal(token, owner=_owner(record)))
        servers = mcp_servers.list_mcp_servers(connection)
        for server in servers:
            owner = mcp_secret_owner(server.id)
            sealed = new.seal(old.open(server.sealed, owner=owner), owner=owner)
            mcp_servers.update_mcp_server(connection, structs.replace(server, sealed=sealed))
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor="hub",
            action="sealing_key.rotate",
            target=None,
            address=None,
            tokens=len(records),
            mcp_servers=len(servers),
        )
        return len(records)

    try:
        count = await database.write(seal_anew)
    except SetupError:
        state.drop_next_sealing_key()
        raise
    state.adopt_next_sealing_key()
    return count


def change_sealing_key(config: HubConfig) -> int:
    """Seal every stored runner token under a new key, of a hub that does not run; return how many.

    Raises:
        SetupError: the hub runs, or a token cannot be opened with the key that is there.
    """

    async def change() -> int | SetupError:
        state = StateDir.open(config.state_dir)
        try:
            database = open_database(config, state)
            async with trio.open_nursery() as nursery:
                await nursery.start(database.run)
                try:
                    keeper = AuditKeeper(database, await open_audit_signer(state, database), state.audit_head)
                    count = await rotate_sealing_key(state, database)
                    await keeper.checkpoint()
                except SetupError as error:
                    # Raised outside of the nursery, which would wrap it.
                    return error
                finally:
                    database.close()
        finally:
            state.close()
        return count

    found = trio.run(change)
    if isinstance(found, SetupError):
        raise found
    return found
