"""Which person of the account an ID token's claims are, and what the provider's groups make of them.

A person is known by issuer and subject, never by an address that somebody may have typed in. Pure: claims, settings and
who there is in, a decision out. Runs in the hub.
"""

from dataclasses import dataclass
from typing import Any, Literal

from guardhouse.errors import Refusal
from guardhouse.hub.authorize import Role
from guardhouse.hub.oidc.settings import OidcSettings
from guardhouse.hub.store.people import PersonRecord

__all__ = [
    "Decision",
    "Identity",
    "PersonRefused",
    "add_userinfo",
    "decide_person",
    "lacks_claims",
    "read_identity",
    "wanted_groups",
]


class PersonRefused(Refusal):
    """The provider knows them, this hub lets them not in."""


@dataclass(frozen=True)
class Identity:
    """What the hub takes from an ID token. ``email`` is None unless the provider has verified it."""

    issuer: str
    subject: str
    email: str | None
    name: str | None
    groups: frozenset[str]


@dataclass(frozen=True)
class Decision:
    """``known``: linked already. ``link``: from now on. ``make``: a new member."""

    action: Literal["known", "link", "make"]
    person: PersonRecord | None


def lacks_claims(claims: dict[str, Any], settings: OidcSettings) -> bool:
    """Whether an ID token leaves out what the hub looks for: many providers tell it as userinfo only (Core 5.4)."""
    wanted = {"email", "email_verified"} | ({settings.groups_claim} if settings.maps else set())
    return not wanted <= claims.keys()


def add_userinfo(claims: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Return an ID token's claims with those that ``info``, of the same subject, has besides.

    An address and the word that it is verified come from one place: apart they would vouch for each other.
    """
    address = ("email", "email_verified")
    told = claims if all(name in claims for name in address) else info
    rest = {name: value for name, value in {**info, **claims}.items() if name not in address}
    return rest | {name: told[name] for name in address if name in told}


def read_identity(claims: dict[str, Any], settings: OidcSettings) -> Identity:
    """Return who the claims are about; what has not its type counts as absent."""
    email, name = claims.get("email"), claims.get("name")
    is_address = isinstance(email, str) and 3 <= len(email) <= 254 and email.isprintable() and email.count("@") == 1
    verified = claims.get("email_verified") is True
    groups = claims.get(settings.groups_claim)
    if isinstance(groups, str):
        groups = [groups]
    shown = "".join(letter for letter in name if letter.isprintable()).strip()[:128] if isinstance(name, str) else ""
    return Identity(
        issuer=settings.issuer,
        subject=claims["sub"],
        email=str(email).lower() if is_address and verified and " " not in str(email) else None,
        name=shown or None,
        groups=frozenset(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else frozenset(),
    )


def decide_person(
    identity: Identity,
    settings: OidcSettings,
    *,
    linked: PersonRecord | None,
    same_email: PersonRecord | None,
    linking: PersonRecord | None,
) -> Decision:
    """Return who signs in.

    Args:
        linked: the person with this issuer and subject.
        same_email: the person with the provider's verified address.
        linking: who, signed in already, asked to be linked.

    Raises:
        PersonRefused: nobody, or nobody who may.
    """
    if settings.domains and (identity.email or "").rpartition("@")[2] not in settings.domains:
        raise PersonRefused("the provider has verified no address of a domain that is let in here")
    if linked is not None:
        if linking is not None and linking.id != linked.id:
            raise PersonRefused("this identity of the provider belongs to another person here")
        return Decision("known", _enabled(linked))
    if linking is not None:
        if linking.subject is not None:
            raise PersonRefused("this person has an identity of the provider already; an owner or admin can unlink it")
        return Decision("link", _enabled(linking))
    if same_email is not None:
        # Invited under this address and never here: nobody's account yet, so there is nothing to take over.
        if same_email.password is None and same_email.subject is None:
            return Decision("link", _enabled(same_email))
        raise PersonRefused("a person with this address exists; sign in with the password and link the provider there")
    if settings.provision == "off" or identity.email is None:
        raise PersonRefused("nobody here is known by this identity; ask an owner or admin for an invitation")
    return Decision("make", None)


def _enabled(person: PersonRecord) -> PersonRecord:
    if person.disabled_ms is not None:
        raise PersonRefused("this person is disabled")
    return person


def wanted_groups(identity: Identity, settings: OidcSettings, *, role: str) -> tuple[str, dict[str, bool]]:
    """Return the role, and for each team that the operator mapped whether the person is to be in it.

    Owners stay owners. Without a map to ``admin`` nobody's role changes, and teams that no map names are left alone.
    """
    mine = [one for one in settings.maps if one.value in identity.groups]
    if role != Role.OWNER and any(one.admin for one in settings.maps):
        role = (Role.ADMIN if any(one.admin for one in mine) else Role.MEMBER).value
    teams = {one.team: False for one in settings.maps if one.team is not None}
    return role, teams | {one.team: True for one in mine if one.team is not None}
