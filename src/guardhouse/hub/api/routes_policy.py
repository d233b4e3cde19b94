"""The part of the route table that is about the hub's policies. Runs in the hub."""

from typing import Final

from guardhouse.hub.api import policies, schemas_policy
from guardhouse.hub.api.door import Route
from guardhouse.hub.authorize import Scope
from guardhouse.hub.concerns import Concern

__all__ = ["POLICY_ROUTES"]

_ENVIRONMENT: Final = "/api/v1/environments/{environment}"
_TEAM: Final = "/api/v1/teams/{team}"

POLICY_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path=f"{_ENVIRONMENT}/policy",
        access=Scope.ENV_READ,
        handler=policies.show_policy,
        concern=Concern.SEE_ENVIRONMENT,
        summary="Show the hub's policy for an environment and what its runner says of it",
        tag="environments",
        replies={200: schemas_policy.EnvironmentPolicyView},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path=f"{_ENVIRONMENT}/policy",
        access=Scope.ENV_WRITE,
        handler=policies.put_policy,
        concern=Concern.EDIT_ENVIRONMENT,
        summary="Have the runner hold a policy next to its own, which it must narrow",
        tag="environments",
        body=schemas_policy.PolicyPut,
        body_max_bytes=schemas_policy.POLICY_BODY_MAX_BYTES,
        replies={200: schemas_policy.EnvironmentPolicyView},
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{_ENVIRONMENT}/policy",
        access=Scope.ENV_WRITE,
        handler=policies.withdraw_policy,
        concern=Concern.EDIT_ENVIRONMENT,
        summary="Withdraw the hub's policy; the runner's own holds without it",
        tag="environments",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_ENVIRONMENT}/policies",
        access=Scope.ENV_READ,
        handler=policies.list_held_policies,
        concern=Concern.SEE_ENVIRONMENT,
        summary="List the hub's policies of account, team and environment that hold there, with the runner's answers",
        tag="environments",
        replies={200: schemas_policy.HeldPolicyList},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/policy",
        access=Scope.ADMIN,
        handler=policies.show_account_policy,
        summary="Show the account's policy and what the runners say of it",
        tag="environments",
        replies={200: schemas_policy.SharedPolicyView},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/v1/policy",
        access=Scope.ADMIN,
        handler=policies.put_account_policy,
        summary="Have every runner hold a policy next to its own, which it must narrow",
        tag="environments",
        body=schemas_policy.PolicyPut,
        body_max_bytes=schemas_policy.POLICY_BODY_MAX_BYTES,
        replies={200: schemas_policy.SharedPolicyView},
    ),
    Route(
        method="DELETE",
        path="/api/v1/policy",
        access=Scope.ADMIN,
        handler=policies.withdraw_account_policy,
        summary="Withdraw the account's policy",
        tag="environments",
        replies={204: None},
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_TEAM}/policy",
        access=Scope.ADMIN,
        handler=policies.show_team_policy,
        summary="Show a team's policy and what the runners of its environments say of it",
        tag="environments",
        replies={200: schemas_policy.SharedPolicyView},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path=f"{_TEAM}/policy",
        access=Scope.ADMIN,
        handler=policies.put_team_policy,
        summary="Have the runners of a team's environments hold a policy next to their own, which it must narrow",
        tag="environments",
        body=schemas_policy.PolicyPut,
        body_max_bytes=schemas_policy.POLICY_BODY_MAX_BYTES,
        replies={200: schemas_policy.SharedPolicyView},
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{_TEAM}/policy",
        access=Scope.ADMIN,
        handler=policies.withdraw_team_policy,
        summary="Withdraw a team's policy",
        tag="environments",
        replies={204: None},
        errors=(404,),
    ),
)
