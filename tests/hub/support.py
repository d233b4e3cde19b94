"""People for tests of the hub, and its store seen from outside, whichever it is."""

import io
import re
import sqlite3
import ssl
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg

PASSWORD = "correct battery horse"
# For clients that speak plain HTTP: to read the system's authorities anew for each costs more than a request.
NO_TLS = ssl.create_default_context()


@dataclass(frozen=True)
class Store:
    """Where a hub's tables lie: in its state directory, or in the database at ``url``."""

    state_dir: Path
    url: str | None

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, whose values are ``?``, as somebody with the database's rights; return its rows."""
        if self.url is None:
            with closing(sqlite3.connect(self.state_dir / "hub.db")) as connection, connection:
                return connection.execute(statement, values).fetchall()
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

    def dump(self) -> bytes:
        """Return everything that is stored, as bytes to look for a secret in."""
        if self.url is None:
            return b"".join(path.read_bytes() for path in self.state_dir.glob("hub.db*"))
        found = b""
        with psycopg.connect(self.url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (name,) in tables:
                with connection.cursor().copy(f"COPY {name} TO STDOUT") as copy:
                    found += b"".join(bytes(chunk) for chunk in copy)
        # Columns of bytes come as hexadecimal digits.
        return found + b"".join(bytes.fromhex(one.decode()) for one in re.findall(rb"\\\\x((?:[0-9a-f]{2})+)", found))


async def become_owner(hub: Any, email: str = "owner@example.com") -> httpx2.Cookies:
    """Use the first owner's link and return the cookie."""
    async with httpx2.AsyncClient(base_url=hub.url, verify=hub.ssl_context or NO_TLS, timeout=30) as http:
        body = {"token": hub.hub.owner_link.partition("#")[2], "password": PASSWORD, "email": email}
        reply = await http.post("/api/v1/links/accept", json=body)
        assert reply.status_code == 200, reply.text
        return http.cookies


async def invite(hub: Any, email: str, **more: Any) -> tuple[httpx2.Cookies, dict[str, Any]]:
    """Invite somebody, accept for them, and return their cookie and who they are."""
    invited = await hub.http.post("/api/v1/people", json={"email": email, **more})
    assert invited.status_code == 201, invited.text
    async with httpx2.AsyncClient(base_url=hub.url, verify=hub.ssl_context or NO_TLS, timeout=30) as http:
        body = {"token": invited.json()["link"].partition("#")[2], "password": PASSWORD}
        reply = await http.post("/api/v1/links/accept", json=body)
        assert reply.status_code == 200, reply.text
        return http.cookies, invited.json()["person"]


def make_skill(name: str = "demo", *, answer: str = "one", manifest: str | None = None, **files: str) -> bytes:
    """Return a skill's zip archive: SKILL.md, a script that says the answer, and ``files`` by path."""
    front = f"---\nname: {name}\ndescription: answers\nversion: {answer}\n---\nRun it.\n"
    script = f"#!/bin/sh\necho the answer is {answer}\n"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in {"SKILL.md": manifest or front, "run.sh": script, **files}.items():
            # Of 1980, so that the same skill is the same bytes at any time.
            info = zipfile.ZipInfo(path)
            info.create_system, info.external_attr = 3, (0o100755 if path == "run.sh" else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return made.getvalue()
