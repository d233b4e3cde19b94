"""What the routes of an environment's life cycle take and give: draining and the onboarding guide. Runs in the hub."""

from typing import Annotated, Literal

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Output

__all__ = ["DrainRequest", "Guide", "GuideSection", "GuideStep"]


class DrainRequest(Input, frozen=True):
    """Why the environment is drained; people and the audit log are shown it."""

    reason: Annotated[str, Meta(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$(?![\s\S])")] = ""


class GuideStep(Output, frozen=True):
    """One step: a sentence, and what to type, line by line, in a shell."""

    text: str
    commands: list[str]


class GuideSection(Output, frozen=True):
    """The steps of one purpose."""

    id: Literal["install", "manual", "upgrade", "uninstall", "purge"]
    title: str
    steps: list[GuideStep]


class Guide(Output, frozen=True):
    """How a host becomes this environment's runner and stops being it. Holds no secret.

    ``token_file`` is where the steps look for the token, which ``GET …/token`` answers; ``markdown`` is all of it.
    """

    environment_id: str
    connect_url: str
    runner_version: str
    token_file: str
    sections: list[GuideSection]
    markdown: str
