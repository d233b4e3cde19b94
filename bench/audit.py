"""What the audit log costs a task: processor time of one record, and of a signed checkpoint.

    python bench/audit.py [--records 5000]

A task writes two records (`task.create`, `task.end`), in transactions that are made anyway. Prints one JSON object,
in microseconds of processor time: a record with its hash and its INSERT into SQLite, the hash and the canonical JSON
of it alone, and a checkpoint (one every 512 records, or every minute) with its Ed25519 signature.
"""

import argparse
import json
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from guardhouse.hub.audit.chain import GENESIS, AuditSigner, link_hash
from guardhouse.hub.backends import SqliteBackend
from guardhouse.hub.migrate import migrate_to_newest
from guardhouse.hub.store import audit


def microseconds(call: Callable[[int], Any], count: int) -> float:
    began = time.process_time()
    for number in range(count):
        call(number)
    return round((time.process_time() - began) * 1_000_000 / count, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000)
    options = parser.parse_args()
    signer = AuditSigner(secrets.token_bytes(32))
    with tempfile.TemporaryDirectory() as directory:
        backend = SqliteBackend(Path(directory) / "hub.db")
        with backend.connect_writer() as connection, connection.begin():
            migrate_to_newest(connection)

            def record(number: int) -> None:
                audit.record_audit_event(
                    connection,
                    at_ms=number,
                    actor="tok_bench",
                    action="task.create",
                    target=f"tsk_{number}",
                    address="127.0.0.1",
                    environment="env_bench",
                    task=f"tsk_{number}",
                    command="ls -l /usr",
                    operation="bash",
                    requested_by="bench",
                )

            found = {"record_us": microseconds(record, options.records)}
            last = audit.list_audit_events(connection, before=None, limit=1)[0]
            found["of_which_hash_us"] = microseconds(lambda _: link_hash(GENESIS, last.body()), options.records)

            def checkpoint(number: int) -> None:
                record(number)
                audit.store_checkpoint(connection, signer, at_ms=number)

            found["checkpoint_us"] = round(microseconds(checkpoint, 200) - found["record_us"], 1)
            found["two_records_and_their_share_of_a_checkpoint_us"] = round(
                2 * found["record_us"] + 2 * found["checkpoint_us"] / 512, 1
            )
        backend.close()
    print(json.dumps({**found, "bytes_a_record": len(msgspec.json.encode(last))}, indent=2))


if __name__ == "__main__":
    main()
