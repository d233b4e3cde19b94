"""The hub's tables, on SQLite and PostgreSQL. The migrations make them; a test compares the two.

Times are Unix milliseconds, UTC. JSON is text that msgspec wrote. Every record names its account, and `created_by` and
`actor` hold a prefixed id: ``usr_…`` of a person, ``tok_…`` of an API token, or ``hub`` and ``runner``. Runs in the
hub.
"""

from guardhouse.hub.schema.approvals import approval_grants, approvals, notifications
from guardhouse.hub.schema.audit import audit_checkpoints, audit_events, audit_positions, store_holders
from guardhouse.hub.schema.environments import (
    environment_tags,
    environments,
    hub_policies,
    hub_policy_answers,
    join_tokens,
    runner_keys,
    runner_tokens,
)
from guardhouse.hub.schema.mcp_servers import mcp_server_checks, mcp_servers
from guardhouse.hub.schema.metadata import ACCOUNT_ID, METADATA, accounts
from guardhouse.hub.schema.people import api_tokens, one_time_links, people, sign_ins, team_members, teams
from guardhouse.hub.schema.runs import fanout_children, fanouts, schedules
from guardhouse.hub.schema.sessions import managed_domains, managed_sandboxes, sessions
from guardhouse.hub.schema.skills import skill_archive_parts, skill_bindings, skill_copies, skill_versions, skills
from guardhouse.hub.schema.tasks import task_output, tasks

__all__ = [
    "ACCOUNT_ID",
    "METADATA",
    "accounts",
    "api_tokens",
    "approval_grants",
    "approvals",
    "audit_checkpoints",
    "audit_events",
    "audit_positions",
    "environment_tags",
    "environments",
    "fanout_children",
    "fanouts",
    "hub_policies",
    "hub_policy_answers",
    "join_tokens",
    "managed_domains",
    "managed_sandboxes",
    "mcp_server_checks",
    "mcp_servers",
    "notifications",
    "one_time_links",
    "people",
    "runner_keys",
    "runner_tokens",
    "schedules",
    "sessions",
    "sign_ins",
    "skill_archive_parts",
    "skill_bindings",
    "skill_copies",
    "skill_versions",
    "skills",
    "store_holders",
    "task_output",
    "tasks",
    "team_members",
    "teams",
]
