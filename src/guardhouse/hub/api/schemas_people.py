"""What the routes of people, teams and sign-ins take and give. Runs in the hub."""

from typing import Annotated, Literal

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Name, Output

__all__ = [
    "Email",
    "LinkAccept",
    "LinkCreated",
    "Member",
    "MemberList",
    "Password",
    "PasswordChange",
    "Person",
    "PersonInvite",
    "PersonList",
    "PersonUpdate",
    "SignInList",
    "SignInRequest",
    "SignInShown",
    "SignedOut",
    "Team",
    "TeamCreate",
    "TeamList",
]

# Only what is certainly none is refused; whether it is somebody's is seen when they sign in.
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^\s@\x00-\x1f]+@[^\s@\x00-\x1f]+$(?![\s\S])")]
Password = Annotated[str, Meta(min_length=1, max_length=256)]
RoleName = Literal["owner", "admin", "member"]


class SignInRequest(Input, frozen=True):
    """Who signs in."""

    email: Email
    password: Password


class Person(Output, frozen=True):
    """One person. ``state`` is ``invited`` until they have set a password or signed in through a provider."""

    id: str
    email: str
    name: str
    role: RoleName
    state: Literal["invited", "active", "disabled"]
    teams: list[str]
    created_at: str
    created_by: str
    last_sign_in_at: str | None


class PersonList(Output, frozen=True):
    """Everybody of the account, by address."""

    people: list[Person]


class PersonInvite(Input, frozen=True):
    """A new person. Teams by id or name."""

    email: Email
    name: Name | None = None
    role: RoleName = "member"
    teams: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...], Meta(max_length=100)] = ()


class PersonUpdate(Input, frozen=True):
    """What may change of a person; disabling ends their sign-ins and tokens at once."""

    name: Name | None = None
    role: RoleName | None = None
    disabled: bool | None = None


class LinkCreated(Output, frozen=True):
    """A link that works once, until ``expires_at``. It is shown this once; hand it to the person yourself."""

    person: Person | None
    link: str
    expires_at: str


class LinkAccept(Input, frozen=True):
    """A one-time link's secret (``ghl_…``) and what the person chooses. ``email`` is for the first owner only."""

    token: Annotated[str, Meta(min_length=1, max_length=128)]
    password: Password
    name: Name | None = None
    email: Email | None = None


class PasswordChange(Input, frozen=True):
    """A person's own new password; every other sign-in of theirs ends."""

    current: Password
    new: Password


class SignedOut(Output, frozen=True):
    """Signed out here; the browser goes to ``end_session_url`` to be signed out at the identity provider too."""

    end_session_url: str


class SignInShown(Output, frozen=True):
    """A browser that is signed in."""

    id: str
    current: bool
    created_at: str
    last_used_at: str
    expires_at: str
    address: str | None
    user_agent: str | None


class SignInList(Output, frozen=True):
    """One's own sign-ins, newest first."""

    sign_ins: list[SignInShown]


class Member(Output, frozen=True):
    """Somebody in a team."""

    id: str
    name: str
    email: str


class MemberList(Output, frozen=True):
    """A team's people."""

    members: list[Member]


class Team(Output, frozen=True):
    """A team of the account."""

    id: str
    name: str
    created_at: str


class TeamCreate(Input, frozen=True):
    """A new team."""

    name: Name


class TeamList(Output, frozen=True):
    """Every team, by name."""

    teams: list[Team]
