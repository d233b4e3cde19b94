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
