"""Which policies hold together, by name and digest: what every record of a decision says. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Any

__all__ = ["PolicyId", "chain_digest", "chain_name", "policies_as_json"]

PolicyId = tuple[str, str]
"""A policy's name and digest."""


def chain_name(names: Sequence[str]) -> str:
    """Return the names of policies that hold together as one; empty for none."""
    return "+".join(names)


def chain_digest(digests: Sequence[str]) -> str:
    """Return one digest for policies that hold together, in their order: of one its own, of none nothing.

    Of several it is SHA-256, in lower-case hexadecimal, of their digests joined by newlines.
    """
    if len(digests) < 2:
        return "".join(digests)
    return hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()


def policies_as_json(policy: PolicyId, narrowing: Sequence[PolicyId]) -> dict[str, Any]:
    """Return ``policy`` and, where something narrows it, ``narrowing`` (docs/policy_language.md, "JSON")."""
    found: dict[str, Any] = {"policy": {"name": policy[0], "digest": policy[1]}}
    if narrowing:
        names, digests = zip(*narrowing, strict=True)
        found["narrowing"] = {"name": chain_name(names), "digest": chain_digest(digests)}
        if len(narrowing) > 1:
            found["narrowing"]["policies"] = [{"name": name, "digest": digest} for name, digest in narrowing]
    return found
