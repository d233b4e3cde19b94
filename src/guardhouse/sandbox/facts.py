"""What compiling needs to know of a host, an identity's surroundings and an operator's settings: values only.

`HostFacts` is the part of `kernel.probe.HostFeatures` that matters here; this package does not import the kernel's.
Runs at boot and in the CLI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import EgressGrant

__all__ = ["LAUNCHING_PROCESSES", "HostFacts", "ProfileUnavailableError", "Surroundings"]

# Our own processes without which no command starts.
LAUNCHING_PROCESSES: Final = frozenset({"launcher", "init", "monitor"})


class HostFacts(Protocol):
    """What this host gives, as far as a plan depends on it."""

    @property
    def architecture(self) -> str:
        """As uname(2) has it; the only one that a bundle carries filters for."""
        ...

    @property
    def landlock_abi(self) -> int:
        """0 where there is none."""
        ...

    @property
    def privileged(self) -> bool:
        """Namespaces can be made without a user namespace (CAP_SYS_ADMIN)."""
        ...

    @property
    def system_links(self) -> Mapping[str, str]:
        """``/bin`` and its like that are symbolic links here, with the link's text."""
        ...

    @property
    def hostname(self) -> str:
        """The host's own name, one or more labels."""
        ...

    @property
    def layers(self) -> Mapping[str, str]:
        """For each name of `profile.LAYERS`: ``""`` where it can be put up, else why not."""
        ...


class ProfileUnavailableError(SetupError):
    """The host lacks a layer that a profile requires. ``profile`` and ``layer`` say which."""

    def __init__(self, profile: str, layer: str, because: str) -> None:
        super().__init__(
            f"profile {profile!r} requires {layer}, which this host does not give: {because};"
            " 'guardhouse doctor' shows what to do"
        )
        self.profile = profile
        self.layer = layer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Settings of this installation that a plan takes in.

    Attributes:
        protected_paths: absolute paths of the runner's own files and directories; masked in every profile.
        guarded_paths: absolute paths, links resolved, of what the runner is made of and told by: code, policies,
            profiles. Commands may see them; no profile lets one change them.
        switches: names of switches to turn on, where a profile has them.
        own_processes: those of our own processes that the bundle says something of; the launcher needs the default.
        own_paths: what ``{name}`` in a path of one of our own processes stands for.
        parameters: numbers that replace a profile's own, by name of a cgroup limit, or ``tmp_bytes``.
        domains: what is left of the names that a profile in network mode ``domains`` grants; None leaves all.
    """

    protected_paths: tuple[str, ...] = ()
    guarded_paths: tuple[str, ...] = ()
    switches: frozenset[str] = frozenset()
    own_processes: frozenset[str] = LAUNCHING_PROCESSES
    own_paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    domains: tuple[EgressGrant, ...] | None = None
