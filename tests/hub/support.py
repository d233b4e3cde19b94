"""People for tests of the hub."""

import io
import zipfile
from typing import Any

import httpx2

PASSWORD = "correct battery horse"


async def become_owner(hub: Any, email: str = "owner@example.com") -> httpx2.Cookies:
    """Use the first owner's link and return the cookie."""
    async with httpx2.AsyncClient(base_url=hub.url, verify=hub.ssl_context or True, timeout=30) as http:
        body = {"token": hub.hub.owner_link.partition("#")[2], "password": PASSWORD, "email": email}
        reply = await http.post("/api/v1/links/accept", json=body)
        assert reply.status_code == 200, reply.text
        return http.cookies


async def invite(hub: Any, email: str, **more: Any) -> tuple[httpx2.Cookies, dict[str, Any]]:
    """Invite somebody, accept for them, and return their cookie and who they are."""
    invited = await hub.http.post("/api/v1/people", json={"email": email, **more})
    assert invited.status_code == 201, invited.text
    async with httpx2.AsyncClient(base_url=hub.url, verify=hub.ssl_context or True, timeout=30) as http:
        body = {"token": invited.json()["link"].partition("#")[2], "password": PASSWORD}
        reply = await http.post("/api/v1/links/accept", json=body)
        assert reply.status_code == 200, reply.text
        return http.cookies, invited.json()["person"]


def make_skill(name: str = "demo", *, answer: str = "one", manifest: str | None = None, **files: str) -> bytes:
    """Return a skill's zip archive: SKILL.md, a script that says the answer, and ``files`` by path."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        front = f"---\nname: {name}\ndescription: answers\nversion: {answer}\n---\nRun it.\n"
        archive.writestr("SKILL.md", manifest or front)
        info = zipfile.ZipInfo("run.sh")
        info.create_system, info.external_attr = 3, 0o100755 << 16
        archive.writestr(info, f"#!/bin/sh\necho the answer is {answer}\n")
        for path, content in files.items():
            archive.writestr(path, content)
    return made.getvalue()
