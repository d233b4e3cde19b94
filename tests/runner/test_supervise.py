"""Which protocol is tried next and when the runner gives up: decided without a clock or a socket."""

import pytest

from guardhouse.runner.config import Protocol
from guardhouse.runner.dial import ConnectFailed, Fault, Form
from guardhouse.runner.supervise import Attempts, Refused


def refused(status: int = 401, *, knows_bearer: bool = False) -> ConnectFailed:
    return ConnectFailed(
        "authentication failed: no", fault=Fault.AUTHENTICATION, status=status, knows_bearer=knows_bearer
    )


NETWORK = ConnectFailed("failed to connect: refused", fault=Fault.NETWORK)
CERTIFICATE = ConnectFailed("failed to connect: expired", fault=Fault.TLS)


def test_v1_is_offered_first() -> None:
    """The first attempt puts the token into a header and offers guardhouse.v1."""
    assert Attempts(Protocol.AUTO).form is Form.V1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_platform_that_finds_no_token_is_asked_once_in_the_plain_form(status) -> None:
    """The plain form follows at once, and only once."""
    attempts = Attempts(Protocol.AUTO)
    assert attempts.failed(refused(status)) is True
    assert attempts.form is Form.PLAIN
    with pytest.raises(Refused, match="authentication failed"):
        attempts.failed(refused())


def test_a_platform_that_reads_the_header_never_sees_the_token_elsewhere() -> None:
    """When the answer says that the header was read, the token is wrong and is not put into an address."""
    attempts = Attempts(Protocol.AUTO)
    with pytest.raises(Refused):
        attempts.failed(refused(knows_bearer=True))
    assert attempts.form is Form.V1


def test_protocol_v1_never_falls_back() -> None:
    """--protocol v1 keeps the token out of any address."""
    attempts = Attempts(Protocol.V1)
    with pytest.raises(Refused):
        attempts.failed(refused())
    assert attempts.form is Form.V1


def test_protocol_plain_offers_nothing() -> None:
    """--protocol plain starts with the plain form."""
    assert Attempts(Protocol.PLAIN).form is Form.PLAIN


def test_a_platform_that_chose_v1_cannot_be_replaced_by_one_that_does_not() -> None:
    """After one v1 connection a refusal, or a hang-up before the welcome, never brings the plain form."""
    attempts = Attempts(Protocol.AUTO)
    attempts.connected(is_v1=True)
    attempts.ended(welcomed=True)
    assert attempts.failed(refused()) is False
    assert attempts.ended(welcomed=False) is False
    assert attempts.form is Form.V1


def test_a_hang_up_before_the_welcome_brings_the_plain_form() -> None:
    """A platform that upgrades and hangs up may want the token in the query."""
    attempts = Attempts(Protocol.AUTO)
    attempts.connected(is_v1=False)
    assert attempts.ended(welcomed=False) is True
    assert attempts.form is Form.PLAIN


def test_a_plain_platform_that_reads_the_header_is_kept() -> None:
    """A welcome without the subprotocol is good as it is: no second attempt with the token in the address."""
    attempts = Attempts(Protocol.AUTO)
    attempts.connected(is_v1=False)
    assert attempts.ended(welcomed=True) is False
    assert attempts.form is Form.V1


@pytest.mark.parametrize("failure", [refused(knows_bearer=True), CERTIFICATE])
def test_a_first_contact_that_is_refused_ends_the_runner(failure) -> None:
    """A wrong token or certificate at the start is said and ends the runner."""
    with pytest.raises(Refused):
        Attempts(Protocol.AUTO).failed(failure)


@pytest.mark.parametrize("failure", [refused(knows_bearer=True), CERTIFICATE])
def test_later_refusals_are_retried(failure) -> None:
    """Once welcomed, the runner keeps trying: the platform may be in the middle of being mended."""
    attempts = Attempts(Protocol.AUTO)
    attempts.connected(is_v1=True)
    attempts.ended(welcomed=True)
    assert attempts.failed(failure) is False


def test_the_network_is_retried_from_the_start() -> None:
    """A hub that is not there yet is waited for."""
    assert Attempts(Protocol.AUTO).failed(NETWORK) is False
