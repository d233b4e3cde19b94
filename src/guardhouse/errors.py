"""The four families of errors; the family, not the call site, decides what happens next.

| family           | whose fault                                 | what the program does               |
|------------------|---------------------------------------------|-------------------------------------|
| `PeerError`      | the other side broke a protocol             | answer or disconnect, count, go on  |
| `Refusal`        | nobody's: a policy or the wall said no      | answer `success: false`, audit it   |
| `SetupError`     | this host or its configuration lacks a must | refuse to start or to run, name it  |
| `InvariantError` | ours                                        | stop this process; never caught     |

Knows nothing of who raises them. Every process imports it, so it imports nothing.
"""

__all__ = ["GuardhouseError", "InvariantError", "PeerError", "Refusal", "SetupError"]


class GuardhouseError(Exception):
    """The root of every error that Guardhouse raises on purpose."""


class PeerError(GuardhouseError):
    """The other side of a connection broke its protocol.

    ``code`` is a short stable word for programs (``oversized``, ``malformed``, …); the text is for people.
    """

    def __init__(self, message: str, *, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code


class Refusal(GuardhouseError):  # noqa: N818 - the family's name; a refusal is an answer, not a fault
    """Policy, workspace or wall said no. The text names the rule or layer, its place and the next step."""


class SetupError(GuardhouseError):
    """A protection, file or setting that was promised or asked for cannot be had here."""


class InvariantError(GuardhouseError):
    """A promise that our own code makes to itself does not hold. Never caught to carry on."""
