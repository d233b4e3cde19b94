"""The client and real worker processes: redirects under the policy's eye, limits kept, a dead worker replaced."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from tests.worker.test_fetch_hop import answering, endless, raw, serving

from guardhouse.errors import Refusal
from guardhouse.wire.operations import WebfetchArgs
from guardhouse.worker.fetch_client import FetchClient, FetchRefused, UrlGrant

GRANT = UrlGrant(any_port=True, networks=("127.0.0.1/32",))


class Workers:
    """Starts worker processes as the launcher does, unconfined."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "guardhouse.worker.fetch", str(theirs.fileno())]
        process = await trio.to_thread.run_sync(lambda: subprocess.Popen(command, pass_fds=[theirs.fileno()]))
        self.processes.append(process)
        theirs.close()
        return ours

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@asynccontextmanager
async def client_of() -> AsyncIterator[tuple[FetchClient, Workers]]:
    workers = Workers()
    try:
        async with FetchClient(workers.start) as client:
            yield client, workers
    finally:
        workers.stop()


def granted(_url: str) -> UrlGrant:
    return GRANT


async def test_a_page_after_redirects() -> None:
    """Each URL on the way is asked about, in its normal form, before it is requested."""
    asked = []

    def handler(sock: socket.socket, request: bytes) -> None:
        path = request.split()[1]
        if path == b"/end":
            answering("caf\u00e9".encode())(sock, request)
        else:
            answering(b"", status="302 Found", headers="Location: /b/../end#x\r\n")(sock, request)

    def check(url: str) -> UrlGrant:
        asked.append(url)
        return GRANT

    with serving(handler) as port:
        async with client_of() as (client, workers):
            page = await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/start"), check)
    assert (page.content.decode(), page.status) == ("caf\u00e9", 200)
    assert page.url == f"http://127.0.0.1:{port}/end"
    assert asked == [f"http://127.0.0.1:{port}/start", page.url]
    assert len(workers.processes) == 1


async def test_the_policy_stops_a_redirect() -> None:
    """A redirect to what the policy refuses is never requested."""
    seen = []

    def handler(sock: socket.socket, request: bytes) -> None:
        seen.append(request.split()[1])
        answering(b"", status="302 Found", headers="Location: /secret\r\n")(sock, request)

    def check(url: str) -> UrlGrant:
        if url.endswith("/secret"):
            raise Refusal("webfetch denied: a rule")
        return GRANT

    with serving(handler) as port:
        async with client_of() as (client, _):
            with pytest.raises(Refusal, match="a rule"):
                await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), check)
    assert seen == [b"/"]


async def test_a_redirect_loop_ends() -> None:
    """Ten redirects are followed and the eleventh is not."""
    seen = []

    def handler(sock: socket.socket, request: bytes) -> None:
        seen.append(request)
        answering(b"", status="301 Moved", headers="Location: /\r\n")(sock, request)

    with serving(handler) as port:
        async with client_of() as (client, _):
            with pytest.raises(FetchRefused, match="too many redirects"):
                await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)
    assert len(seen) == 11


async def test_a_redirect_to_a_private_address_needs_its_own_grant() -> None:
    """A page cannot lead to where its own grant does not reach, metadata above all."""
    location = "Location: http://169.254.169.254/latest/meta-data/\r\n"
    with serving(answering(b"", status="302 Found", headers=location)) as port:
        async with client_of() as (client, _):
            with pytest.raises(FetchRefused, match="metadata") as caught:
                await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)
    assert caught.value.code == "address_refused"


async def test_http_errors_carry_their_status() -> None:
    """The status comes through the worker's protocol; the worker is used again afterwards."""
    with serving(answering(b"nope", status="404 Not Found")) as port:
        async with client_of() as (client, workers):
            for _ in range(3):
                with pytest.raises(FetchRefused, match="nope") as caught:
                    await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)
                assert (caught.value.code, caught.value.status) == ("http_status", 404)
            assert len(workers.processes) == 1


@pytest.mark.parametrize("handler", [raw(b"", close=False), endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a", pause_s=0.05)])
async def test_the_time_limit_is_kept(handler) -> None:
    """Silence and dripping end at the task's own limit."""
    start = time.monotonic()
    with serving(handler) as port:
        async with client_of() as (client, _):
            with pytest.raises(FetchRefused, match=r"timed out after 1\.5 s"):
                await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/", timeout=1.5), granted)
    assert time.monotonic() - start < 30


async def test_a_page_that_hangs_the_converter_ends_with_its_worker() -> None:
    """A stopped worker is given up at the limit, and the next page gets another one."""
    with serving(answering(b"fine")) as port:
        async with client_of() as (client, workers):
            args = WebfetchArgs(url=f"http://127.0.0.1:{port}/", timeout=2)
            await client.fetch(WebfetchArgs(url=args.url, timeout=60), granted)
            os.kill(workers.processes[0].pid, signal.SIGSTOP)
            with pytest.raises(FetchRefused, match="timed out"):
                await client.fetch(args, granted)
            page = await client.fetch(WebfetchArgs(url=args.url, timeout=60), granted)
    assert page.content == b"fine"
    assert len(workers.processes) == 2


async def test_a_worker_that_dies_costs_its_page_only() -> None:
    """The request fails with a reason; the next one is served."""
    asked = threading.Event()

    def never(sock: socket.socket, request: bytes) -> None:
        asked.set()
        sock.recv(1)

    with serving(never) as slow, serving(answering(b"fine")) as port:
        async with client_of() as (client, workers):
            await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)

            async def kill() -> None:
                assert await trio.to_thread.run_sync(asked.wait, 30)
                workers.processes[0].kill()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill)
                with pytest.raises(FetchRefused, match="the worker ended over"):
                    await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{slow}/"), granted)
            page = await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)
    assert page.content == b"fine"


async def test_a_cancelled_fetch_leaves_no_answer_behind() -> None:
    """The worker of a cancelled request is never given to the next one."""
    with serving(raw(b"", close=False)) as slow, serving(answering(b"mine")) as port:
        async with client_of() as (client, _):
            with trio.move_on_after(1):
                await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{slow}/"), granted)
            page = await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)
    assert page.content == b"mine"


async def test_what_is_not_http_starts_no_worker() -> None:
    """The seed's message, before anything is asked or started."""
    async with client_of() as (client, workers):
        with pytest.raises(FetchRefused, match=r"^valid http/https url is required"):
            await client.fetch(WebfetchArgs(url="file:///etc/passwd"), granted)
        assert not workers.processes


async def test_pages_side_by_side() -> None:
    """A slow server does not hold up another page."""
    with serving(raw(b"", close=False)) as slow, serving(answering(b"fast")) as port:
        async with client_of() as (client, _), trio.open_nursery() as nursery:
            nursery.start_soon(_ignoring, client, f"http://127.0.0.1:{slow}/")
            start = trio.current_time()
            page = await client.fetch(WebfetchArgs(url=f"http://127.0.0.1:{port}/"), granted)
            assert page.content == b"fast"
            assert trio.current_time() - start < 10
            nursery.cancel_scope.cancel()


async def _ignoring(client: FetchClient, url: str) -> None:
    with pytest.raises(FetchRefused):
        await client.fetch(WebfetchArgs(url=url, timeout=20), granted)
