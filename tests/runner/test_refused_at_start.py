"""What ends `guardhouse run` at once: each with its words and exit status, and with nothing left running."""

import os

import pytest
from tests.support.certificates import make_authority, make_server_context
from tests.support.platform_stub import open_stub
from tests.support.runner_process import make_directory, remove_directory, start_runner

from guardhouse.cli.exit_codes import ExitCode

TOKEN = "wnt_canary_90cd"


@pytest.fixture(scope="module")
def directory():
    """One state and workspace for runners that never get far enough to disturb each other."""
    place = make_directory()
    yield place
    remove_directory(place)


async def refused(url: str, directory, words: str, status: ExitCode, *arguments: str, token: str = TOKEN) -> None:
    async with start_runner(url, token=token, directory=directory, arguments=arguments) as runner:
        assert await runner.ended() == status, runner.text
        assert words in runner.text
        assert token not in runner.text
        assert not launchers_of(runner.process.pid)


def launchers_of(pid: int) -> list[str]:
    """Processes whose parent is or was ``pid``: by session, since the launcher leads its own."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if fields and fields[1] == str(pid):
            found.append(entry)
    return found


async def test_wrong_token(directory) -> None:
    """A token that the platform refuses in both forms ends the first start with status 4."""
    async with open_stub("wnt_other") as stub:
        await refused(stub.url, directory, "authentication failed: ", ExitCode.NOT_AUTHORIZED)
        assert [attempt.token for attempt in stub.attempts] == [None, TOKEN]


async def test_protocol_v1_keeps_the_token_out_of_the_address(directory) -> None:
    """With --protocol v1 a refusal is final after the header form."""
    async with open_stub("wnt_other") as stub:
        await refused(stub.url, directory, "authentication failed: ", ExitCode.NOT_AUTHORIZED, "--protocol", "v1")
        assert [attempt.token for attempt in stub.attempts] == [None]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param({"ends_in_days": -0.5}, "has expired", id="expired"),
        pytest.param({"hosts": ("other.example",)}, "is for another host", id="wrong host"),
        pytest.param({"self_signed": True}, "is self-signed", id="self-signed"),
        pytest.param({"starts_in_days": 0.5}, "is not valid yet", id="not yet valid"),
    ],
)
async def test_bad_certificate(directory, tmp_path, fault, words) -> None:
    """A certificate that cannot be verified ends the first start with status 5; the token stays here."""
    authority = make_authority()
    authority_file = authority.write(directory)
    async with open_stub(TOKEN, ssl_context=make_server_context(tmp_path, authority, **fault)) as stub:
        await refused(stub.url, directory, words, ExitCode.UNAVAILABLE, "--ca-file", str(authority_file))
        assert stub.attempts == []


async def test_tls_with_a_private_authority_works(directory, tmp_path) -> None:
    """The twin: with a good certificate and --ca-file the runner joins over TLS 1.3."""
    authority = make_authority()
    authority_file = str(authority.write(directory))
    async with (
        open_stub(TOKEN, ssl_context=make_server_context(tmp_path, authority)) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=("--ca-file", authority_file)) as runner,
    ):
        peer = await stub.peer()
        assert (await peer.run("echo joined"))["result"]["stdout"] == "joined\n"
        runner.terminate()
        assert await runner.ended() == 0


async def test_verification_switched_off_is_shouted(directory, tmp_path) -> None:
    """--insecure-skip-tls-verify accepts a self-signed certificate and says so loudly."""
    context = make_server_context(tmp_path, make_authority(), self_signed=True)
    arguments = ("--insecure-skip-tls-verify",)
    async with (
        open_stub(TOKEN, ssl_context=context) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=arguments) as runner,
    ):
        await (await stub.peer()).next("heartbeat")
        assert "TLS VERIFICATION IS OFF" in runner.text
        runner.terminate()
        assert await runner.ended() == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://hub.example/x", "plain ws:// to another host"),
        ("wss://hub.example/x?token=wnt_pasted", "holds a token"),
        ("https://hub.example", "scheme 'https'"),
    ],
)
async def test_bad_address(directory, url, words) -> None:
    """An address that would give the token away ends in status 2 before anything else happens."""
    await refused(url, directory, words, ExitCode.USAGE)


async def test_a_token_that_is_none(directory) -> None:
    """A malformed token ends in status 2 and is not repeated."""
    await refused("wss://localhost:1", directory, "2 words instead of one", ExitCode.USAGE, token="wnt_a wnt_b")


@pytest.mark.parametrize("kind", ["missing", "link", "file", "open to all"])
async def test_bad_workspace(directory, kind) -> None:
    """A workspace that is missing, a link, a file or everybody's ends in status 125 and is named."""
    place = directory / f"workspace-{kind.replace(' ', '-')}"
    words = {
        "missing": "does not exist", "link": "is a symbolic link", "file": "is not a directory",
        "open to all": "can be written by everybody",
    }[kind]  # fmt: skip
    if kind == "link":
        place.symlink_to(directory)
    elif kind == "file":
        place.write_text("")
    elif kind == "open to all":
        place.mkdir()
        place.chmod(0o777)
    await refused("wss://localhost:1", directory, words, ExitCode.SETUP, "--workspace", str(place))


async def test_a_second_runner_with_the_same_state(directory) -> None:
    """Two runners cannot share one journal: the second is told so; the first goes on."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN, directory=directory) as runner:
        peer = await stub.peer()
        await refused(stub.url, directory, "another runner keeps its journal", ExitCode.SETUP)
        assert (await peer.run("echo on"))["result"]["stdout"] == "on\n"
        runner.terminate()
        assert await runner.ended() == 0
