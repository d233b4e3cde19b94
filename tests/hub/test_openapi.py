"""Schemathesis over the whole OpenAPI document: no answer that the document does not describe, no 500, links followed.

A bounded run always; GUARDHOUSE_SCHEMATHESIS_S=600 makes it a long one with a seed of its own.
"""

import os
import re
import secrets
import sys
from functools import partial

import pytest
import trio

from guardhouse.hub.api.routes import ROUTES

LONG_S = int(os.environ.get("GUARDHOUSE_SCHEMATHESIS_S", "0"))
SEED = secrets.randbelow(2**31) if LONG_S else 1
# positive_data_acceptance is left out: what a policy, a cursor or an operation's arguments must be is a grammar that a
# schema cannot say, and a request that breaks it is answered with 400.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "allow_header_conformance,use_after_free,ensure_resource_availability,ignored_auth"
)


@pytest.mark.timeout(LONG_S * 2 + 400)
async def test_the_interface_is_what_its_document_says(hub, tmp_path, monkeypatch):
    """Random requests, chains of them along the document's links, and in the long form the edges of every parameter."""
    # Its wrong tokens, a few for each route, are no guesses: past the limit every answer would be 429 and say nothing.
    monkeypatch.setattr("guardhouse.hub.guesses._BUCKET", 1_000_000.0)
    # Tokens of their own: a chain that begins with the first of all tokens ends the owner's.
    tokens = []
    for _ in range(2):
        created = await hub.http.post("/api/v1/tokens", json={"name": "schemathesis", "scopes": ["admin"]})
        tokens.append(created.json()["secret"])
    token, ended = tokens
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCHEMATHESIS")}
    failed: list[str] = []

    async def run(name: str, phases: str, *chosen: str, token: str = token, is_whole: bool = True) -> None:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "schemathesis.toml").write_text("")
        words = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
            *("run", f"{hub.url}/api/v1/openapi.json", "--header", f"Authorization: Bearer {token}"),
            *("--phases", phases, "--seed", str(SEED), "--checks", CHECKS, "--continue-on-failure"),
            # Counted, not timed: a budget of seconds would be spent before the first request on a busy machine.
            *(("--max-time", str(LONG_S)) if LONG_S else ("--max-examples", "2")),
            *(*chosen, "--request-timeout", "30"),
            *("--no-shrink", "--generation-database", "none", "--no-color", "--warnings", "off"),
        ]
        found = await trio.run_process(
            words, cwd=directory, env=environment, capture_stdout=True, capture_stderr=True, check=False
        )
        text = found.stdout.decode() + found.stderr.decode()
        (directory / "report.txt").write_text(text)
        tried = re.search(r"(\d+) generated", text)
        chosen_of = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", text)
        if found.returncode != 0 or tried is None or int(tried[1]) < (15 if is_whole else 1):
            failed.append(text[-20_000:])
        selected, total, tested = map(int, chosen_of.groups()) if chosen_of is not None else (0, 0, 0)
        if phases != "stateful" and (tested != selected or selected != (total - 2 if is_whole else 1)):
            failed.append(f"{name}: operations are left out\n{text[-2_000:]}")

    async with trio.open_nursery() as nursery:
        single = "coverage,fuzzing" if LONG_S else "fuzzing"
        # A stream of events goes on for minutes; tests/hub/test_events.py reads one.
        rest = ("--exclude-operation-id", "stream_events", "--exclude-operation-id", "end_own_token")
        nursery.start_soon(run, "single", single, *rest)
        nursery.start_soon(run, "stateful", "stateful", *rest)
        # What ends the token that asks has one of its own.
        only = partial(run, "own", single, "--include-operation-id", "end_own_token", token=ended, is_whole=False)
        nursery.start_soon(only)
    assert not failed, "\n".join(failed)
    # A run whose token ended on the way would have tested the 401 only.
    alive = await hub.http.get("/api/v1/self", headers={"authorization": f"Bearer {token}"})
    assert alive.status_code == 200


async def test_links_lead_from_what_is_made_to_what_is_about_it(hub):
    """Every id in a path is found in the answer of another operation, as the document's links say."""
    document = (await hub.http.get("/api/v1/openapi.json")).json()
    operations = {one["operationId"]: one for path in document["paths"].values() for one in path.values()}
    assert len(operations) == len(ROUTES)
    linked = set()
    for operation in operations.values():
        for reply in operation["responses"].values():
            linked |= reply.get("links", {}).keys()
    assert linked <= operations.keys()
    assert {"show_environment", "show_task", "cancel_task", "show_approval", "update_person", "revoke_token"} <= linked


async def test_a_405_names_every_method_of_its_path(hub):
    """Not only those of the table's first row for it."""
    reply = await hub.http.request("OPTIONS", "/api/v1/environments/web-1")
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) == {"DELETE", "GET", "HEAD", "PATCH"}


async def test_the_word_null_is_no_value(hub):
    """It is not the same as leaving a parameter out."""
    assert (await hub.http.get("/api/v1/tasks", params={"state": "null"})).status_code == 400
    assert (await hub.http.get("/api/v1/tasks", params={"text": "null"})).status_code == 200
