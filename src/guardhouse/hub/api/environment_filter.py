"""The `environment` of a list's query as an id. Runs in the hub."""

from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.door import Call
from guardhouse.hub.api.environments import find_environment
from guardhouse.hub.concerns import NotVisible, check_sees

__all__ = ["environment_id_of"]


async def environment_id_of(call: Call, named: str | None) -> str | None:
    """Return the id of the environment that a list is narrowed to; None where it is not.

    An id is taken as it is, also of an environment that is gone: what it lists is bounded by the caller's reach.

    Raises:
        ApiError: 404, there is none of that name, or none that the caller sees.
    """
    if named is None or named.startswith("env_"):
        return named
    found = await find_environment(call, named)
    try:
        check_sees(call.actor, found)
    except NotVisible as error:
        raise environment_not_found(named) from error
    return found.id
