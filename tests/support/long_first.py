"""Which modules of the suite take long: they begin first, so that no process of pytest-xdist ends with one by itself.

By itself pytest-xdist begins with the modules of the most tests, which leaves those of one test and two minutes to the
end (`--dist loadfile --no-loadscope-reorder` keeps the order that this module makes). What is not named here comes
after, as it was collected. Runs in pytest.
"""

from typing import Final, Protocol, TypeVar

__all__ = ["LONG_FIRST", "in_order"]

# By how long they took on two cores, from `pytest --durations=0`; above some 15 s of a quiet machine.
LONG_FIRST: Final = (
    "tests/end_to_end/test_policy_cases.py",
    "tests/launcher/test_thousand_commands.py",
    "tests/escapes/test_attacks.py",
    "tests/gate/test_ordinary_user.py",
    "tests/runner_mcp/test_servers.py",
    "tests/cli_client/test_commands.py",
    "tests/gate/test_normal_work.py",
    "tests/gate/test_corpus_same_output.py",
    "tests/runner/test_plain_platform.py",
    "tests/hub/test_gateway.py",
    "tests/end_to_end/test_mcp_approvals.py",
    "tests/hub/test_api.py",
    "tests/hub/test_openapi.py",
    "tests/runner/test_try.py",
    "tests/runner/test_refused_at_start.py",
    "tests/hub/test_audit.py",
    "tests/hub/test_managed.py",
    "tests/hub/test_people.py",
    "tests/hub/test_decisions.py",
    "tests/gate/test_attacks.py",
    "tests/runner/test_reload.py",
    "tests/hub/test_approvals.py",
    "tests/hub/test_killed_at_each_step.py",
    "tests/hub/test_files.py",
    "tests/hub/test_life_cycle.py",
    "tests/cli_client/test_reach.py",
    "tests/gate/test_notified.py",
    "tests/hub/test_approvals_with_runner.py",
    "tests/hub/test_persistence.py",
    "tests/hub/test_oidc.py",
    "tests/end_to_end/test_mcp.py",
    "tests/launcher/test_ordinary_user.py",
    "tests/launcher/test_parser_worker.py",
    "tests/hub/test_asking_operations.py",
    "tests/gate/test_helpers.py",
    "tests/cli_client/test_login.py",
    "tests/cli_client/test_copy.py",
    "tests/gate/test_without_ptrace.py",
    "tests/hub/test_postgresql.py",
    "tests/hub/test_mcp_door.py",
    "tests/hub/test_skills_with_runner.py",
    "tests/hub/test_session_choice.py",
    "tests/hub/test_admission.py",
    "tests/worker/test_fetch_client.py",
    "tests/worker/test_fetch_hop.py",
    "tests/end_to_end/test_agents.py",
    "tests/end_to_end/test_asking.py",
    "tests/escapes/test_bombs.py",
    "tests/egress/test_runner.py",
    "tests/runner/test_run_flags.py",
    "tests/gate/test_evasions.py",
)
_PLACES: Final = {module: place for place, module in enumerate(LONG_FIRST)}


class _Test(Protocol):
    @property
    def nodeid(self) -> str: ...


T = TypeVar("T", bound=_Test)


def in_order(tests: list[T]) -> list[T]:
    """Return ``tests`` with the long modules' first; the order within a module, and of the others, stays."""
    return sorted(tests, key=lambda test: _PLACES.get(test.nodeid.partition("::")[0], len(LONG_FIRST)))
