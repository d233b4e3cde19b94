"""What the routes of join tokens take and give. Runs in the hub."""

from typing import Annotated

from msgspec import Meta, field

from guardhouse.hub.api.schemas import Input, Name, Output, Tags
from guardhouse.hub.api.schemas_environments import EnvironmentScope

__all__ = ["JoinRequest", "JoinToken", "JoinTokenCreate", "JoinTokenCreated", "JoinTokenList", "Joined"]

_END = r"$(?![\s\S])"


class JoinTokenCreate(Input, frozen=True):
    """What machines that join with the token become. With a ``name`` it works once."""

    name: Name | None = None
    scope: EnvironmentScope = EnvironmentScope()
    tags: Tags = field(default_factory=list)
    uses: Annotated[int, Meta(ge=1, le=1_000)] = 1
    expires_in_s: Annotated[int, Meta(ge=60, le=7 * 86_400)] = 3_600


class JoinToken(Output, frozen=True):
    """A join token without its secret."""

    id: str
    name: str | None
    scope: EnvironmentScope
    tags: list[str]
    uses_left: int
    created_at: str
    created_by: str
    expires_at: str


class JoinTokenCreated(Output, frozen=True):
    """A new join token; its secret is shown this once."""

    join_token: JoinToken
    secret: str
    hub_url: str


class JoinTokenList(Output, frozen=True):
    """The join tokens that still work and that the caller may see."""

    join_tokens: list[JoinToken]


class JoinRequest(Input, frozen=True):
    """A machine's public key (Ed25519, 32 bytes in hexadecimal), and proof that it holds the private one."""

    token: Annotated[str, Meta(max_length=128)]
    public_key: Annotated[str, Meta(pattern=rf"^[0-9a-f]{{64}}{_END}")]
    signature: Annotated[str, Meta(pattern=rf"^[0-9a-f]{{128}}{_END}")]


class Joined(Output, frozen=True):
    """The environment that the machine is now."""

    environment_id: str
    name: str | None
    connect_url: str
