"""Web pages for tasks: the policy is asked about every URL, and private addresses stay closed without a grant."""

import pytest
from tests.worker.test_fetch_client import client_of
from tests.worker.test_fetch_hop import answering, serving

from guardhouse.policy import load_policy
from guardhouse.policy.operation import OperationDenied
from guardhouse.runner.bounds import FetchBounds
from guardhouse.runner.files import BoundedText
from guardhouse.runner.web import WebService
from guardhouse.wire.operations import WebfetchArgs
from guardhouse.worker.fetch_client import FetchRefused

OPEN = 'permission: {bash: {"*": deny}}'
RULED = 'permission: {bash: {"*": deny}, webfetch: {"*": deny, "http://127.0.0.1:%d/public*": allow}}'


class Unbounded:
    """A files service for pages that fit one message."""

    async def bound(self, text: str, *, operation: str, command: str = "") -> BoundedText:
        assert operation == "webfetch"
        return BoundedText(text=text)


def service(policy: str, client, *, networks: tuple[str, ...] = ()) -> WebService:
    return WebService(
        load_policy(policy, name="p"), client=client, files=Unbounded(), bounds=FetchBounds(networks=networks)
    )


async def test_a_page_of_a_granted_network() -> None:
    """Allowed by a rule that names the port, in a network that the operator opened: the page comes."""
    with serving(answering(b"hello")) as port:
        async with client_of() as (client, _):
            web = service(RULED % port, client, networks=("127.0.0.1/32",))
            page = await web.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/public/x", format="text"))
    assert (page.content.strip(), page.status) == ("hello", 200)


async def test_a_private_address_stays_closed() -> None:
    """The same page without the operator's grant is refused, whatever the policy says."""
    with serving(answering(b"hello")) as port:
        async with client_of() as (client, _):
            with pytest.raises(FetchRefused, match=r"127\.0\.0\.1") as caught:
                await service(RULED % port, client).fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/public/x"))
    assert caught.value.code == "address_refused"


async def test_a_rule_says_no() -> None:
    """Another path of the same server is denied by the policy before anything is asked of the network."""
    async with client_of() as (client, workers):
        web = service(RULED % 8000, client, networks=("127.0.0.1/32",))
        with pytest.raises(OperationDenied):
            await web.fetch(WebfetchArgs(url="http://127.0.0.1:8000/private"))
        assert workers.processes == []


async def test_without_rules_the_customary_ports_alone() -> None:
    """A policy without a webfetch section opens no other port than 80 and 443."""
    async with client_of() as (client, _):
        with pytest.raises(FetchRefused):
            await service(OPEN, client, networks=("127.0.0.1/32",)).fetch(
                WebfetchArgs(url="http://127.0.0.1:8000/private")
            )


async def test_the_operator_bounds_a_page() -> None:
    """A page within the operator's bound comes, one byte more is refused, whatever the default is."""
    with serving(answering(b"x" * 2_000)) as port:
        async with client_of() as (client, _):
            for bound, code in ((2_000, None), (1_999, "too_large")):
                web = WebService(
                    load_policy(RULED % port, name="p"), client=client, files=Unbounded(),
                    bounds=FetchBounds(networks=("127.0.0.1/32",), max_bytes=bound),
                )  # fmt: skip
                asked = WebfetchArgs(url=f"http://127.0.0.1:{port}/public", format="text")
                if code is None:
                    assert len((await web.fetch(asked)).content) == bound
                    continue
                with pytest.raises(FetchRefused, match=r"exceeds 1999 bytes limit.*--fetch-max-size") as caught:
                    await web.fetch(asked)
                assert caught.value.code == code
