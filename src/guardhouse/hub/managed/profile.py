"""The sandbox profile and the policy that a managed sandbox's runner is started with, as the texts of their files.

Pure. Runs in the hub; the runner reads and checks what it is given.
"""

import json
from collections.abc import Sequence

from guardhouse.hub.managed.settings import Domain

__all__ = ["policy_text", "profile_text"]


def profile_text(domains: Sequence[Domain]) -> str:
    """Return ``isolate``, with the account's allow-list of domains where there is one; JSON, which YAML contains."""
    profile: dict[str, object] = {
        "profile": "managed",
        "summary": "a session's managed sandbox: isolate, and the account's domains",
        "extends": "isolate",
    }
    if domains:
        why = "the account's allow-list for managed sandboxes"
        profile["network"] = {
            "mode": "domains",
            "why": why,
            "domains": [{"domain": one.domain, "ports": list(one.ports), "why": why} for one in domains],
        }
    return json.dumps(profile, indent=1) + "\n"


def policy_text(domains: Sequence[Domain]) -> str:
    """Return what may run there: every command, since nothing of the host or of others is in reach of it.

    Web pages, and MCP servers with an address, are fetched by the runner and not by the sandbox, so they are held to
    the same allow-list here.
    """
    because = "nothing of the host or of other sessions is in reach"
    policy = {
        "version": 1,
        "about": "For managed sandboxes: the wall decides what is in reach, and inside it everything may run.",
        "permission": {
            "bash": [{"match": "*", "then": "allow", "because": because, "examples": {"allow": ["make -j2 test"]}}],
            "webfetch": [
                {
                    "match": f"{one.domain}:{port}/*",
                    "then": "allow",
                    "because": "the account's allow-list for managed sandboxes",
                }
                for one in domains
                for port in one.ports
            ],
        },
    }
    return json.dumps(policy, indent=1) + "\n"
