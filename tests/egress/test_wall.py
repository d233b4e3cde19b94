"""Commands behind the real wall in network mode `domains`: what they reach, what they do not, and what stays over."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
import trio

from guardhouse.launcher.messages import StopReason
from guardhouse.runner.command_parts import StopSignal
from tests.escapes.conftest import PYTHON, is_root

from .attacks import ATTACKS, PRELUDE
from .walls import BIG, POLICY_OF_TUNNELS, Servers, servers, walled

STARTS = ("root", "user")
ESCAPES = Path(__file__).resolve().parents[1] / "escapes"
CURL = "curl -sS --cacert ca.pem"

pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the system's python3")


@pytest.fixture(scope="module")
def at():
    with servers() as found:
        yield found


@pytest.fixture(scope="module", params=STARTS)
def start(request: pytest.FixtureRequest) -> str:
    if request.param == "root" and not is_root():
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")
    return request.param


def script(directory: Path) -> Path:
    """Write the driver of all rows into a workspace; it reads the rows from its standard input."""
    text = "".join((ESCAPES / "attacker.py").read_text("utf-8") + PRELUDE + (ESCAPES / "driver.py").read_text("utf-8"))
    path = directory / "driver.py"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def lines(at: Servers, start: str) -> dict[str, str]:
    """Every attack and every twin, run in one command each way: name -> what came of it, and the records."""
    denying = {"denied-by-policy", "denied-by-policy-escaped"}
    rows = [[a.name, at.fill(a.body), False] for a in ATTACKS]
    rows += [[f"twin of {a.name}", at.fill(a.twin), False] for a in ATTACKS]
    found: dict[str, str] = {}

    async def run(policy: str | None, wanted: list[list]) -> None:
        async with walled(at, start, **({} if policy is None else {"policy": policy})) as wall:
            script(wall.place)
            (wall.place / "rows.json").write_text(json.dumps(wanted))
            (wall.place / "rows.json").chmod(0o644)
            done = await wall.run(f"exec {PYTHON} -I driver.py < rows.json", timeout_s=110)
        text = done.stdout.content.decode()
        assert text, (done.stderr.content, done.outcome)
        found.update(json.loads(text.splitlines()[-1]))

    of_policy = [row for row in rows if row[0].removeprefix("twin of ") in denying]
    trio.run(run, None, of_policy)
    trio.run(run, POLICY_OF_TUNNELS, [row for row in rows if row not in of_policy])
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_refused(attack, lines) -> None:
    """The attempt ends with one of the errnos of its row."""
    assert lines[attack.name] in {f"ERR {word}" for word in attack.refused}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_twin_succeeds(attack, lines) -> None:
    """The neighbouring permitted act succeeds in the same sandbox."""
    assert lines[f"twin of {attack.name}"].startswith("GOT")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_in_every_protocol(at: Servers, start: str) -> None:
    """10 MiB over HTTP, HTTPS, CONNECT and SOCKS5, and 10 MiB up, byte for byte; refused names say why."""
    digest = sha256(BIG).hexdigest()
    async with walled(at, start, policy=POLICY_OF_TUNNELS) as wall:
        (wall.place / "big").write_bytes(BIG)
        (wall.place / "big").chmod(0o644)
        done = await wall.run(
            at.fill(
                f"for u in http://web.test:{{http}} https://web.test:{{https}}; do {CURL} $u/big | sha256sum; done;"
                f"{CURL} -p http://web.test:{{http}}/big | sha256sum;"
                f"{CURL} -x socks5h://127.0.0.1:3128 https://web.test:{{https}}/big | sha256sum;"
                f"{CURL} -T big https://web.test:{{https}}/put; {CURL} -T big http://web.test:{{http}}/put;"
                f"{CURL} -T - http://web.test:{{http}}/put < big;"
                f"{CURL} http://evil.test/; {CURL} https://evil.test/; echo $?"
            )
        )
    text = done.stdout.content.decode()
    assert text.count(f"{digest}  -\n") == 4, (text, done.stderr.content)
    assert text.count(f"{len(BIG)} {digest}\n") == 3
    assert "no entry of profile 'web' covers 'evil.test'" in text
    assert text.endswith("\n56\n")
    egress = done.egress
    assert (egress["allowed"], egress["refused"], egress["left_out"]) == (7, 2, 0)
    assert egress["bytes_down"] > 4 * len(BIG)
    assert egress["bytes_up"] > 3 * len(BIG)
    assert [one["protocol"] for one in egress["connections"]] == [
        "http", "connect", "connect", "socks5", "connect", "http", "http", "http", "connect",
    ]  # fmt: skip


async def test_twenty_at_a_time(at: Servers, start: str) -> None:
    """Twenty connections side by side each carry their own 10 MiB whole."""
    body = (
        "import hashlib, threading, urllib.request\n"
        "def get(n):\n"
        f" data = urllib.request.urlopen('http://web.test:{at.ports['http']}/big', timeout=60).read()\n"
        " print(hashlib.sha256(data).hexdigest(), flush=True)\n"
        "threads = [threading.Thread(target=get, args=(n,)) for n in range(20)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    async with walled(at, start) as wall:
        done = await wall.run(f'{PYTHON} -I -c "{body}"', timeout_s=110)
    assert done.stdout.content.decode().split() == [sha256(BIG).hexdigest()] * 20, done.stderr.content
    assert done.egress["bytes_down"] == 20 * len(BIG)


async def test_another_commands_network_is_out_of_reach(at: Servers, start: str) -> None:
    """Two commands side by side have each a proxy and a loopback of their own, and nothing of the other's."""
    serve = (
        f"{PYTHON} -I -c \"import socket; a = socket.socket(socket.AF_UNIX); a.bind('\\0other'); a.listen();"
        " s = socket.create_server(('127.0.0.1', 9996)); open('up', 'w').close(); s.accept()\""
    )
    look = (
        f"{PYTHON} -I -c \"import socket\nfor family, place in ((socket.AF_INET, ('127.0.0.1', 9996)),"
        " (socket.AF_UNIX, '\\0other')):\n try:\n  socket.socket(family).connect(place); print('reached')\n"
        ' except OSError as error: print(error.errno)"; rm -f up'
    )
    stop = StopSignal()
    async with walled(at, start) as wall, trio.open_nursery() as nursery:
        runs = {}

        async def first() -> None:
            runs["first"] = await wall.run(serve, stop=stop)

        nursery.start_soon(first)
        with trio.fail_after(30):
            while not (wall.place / "up").exists():  # noqa: ASYNC110 - made by the command
                await trio.sleep(0.02)
        runs["second"] = await wall.run(look + f"; {CURL} http://web.test:{at.ports['http']}/hello")
        stop.set(StopReason.CANCEL)
    said = runs["second"].stdout.content.decode()
    assert said.startswith(("111\n111\n", "111\n1\n")), said
    assert runs["first"].outcome.cancelled
    assert runs["first"].egress["connections"] == []
    assert runs["second"].egress["allowed"] == 1


async def test_the_proxy_ends_with_its_command_and_leaves_nothing(at: Servers, start: str) -> None:
    """After commands that end in every way, with tunnels open, no descriptor is left and the next one starts afresh."""
    hold = (
        f'{PYTHON} -I -c "import socket, time\nsocks = []\nfor n in range(5):\n'
        " s = socket.create_connection(('127.0.0.1', 3128)); socks.append(s)\n"
        f" s.sendall(b'CONNECT web.test:{at.ports['http']} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'); s.recv(100)\n"
        "open('up', 'w').close()\nEND\""
    )
    async with walled(at, start, policy=POLICY_OF_TUNNELS) as wall:
        await wall.run("true")
        before = len(os.listdir("/proc/self/fd"))
        for end, timeout_s in (("pass", 60), ("time.sleep(60)", 1.5), ("import os; os.kill(os.getpid(), 9)", 60)):
            done = await wall.run(hold.replace("END", end), timeout_s=timeout_s)
            ends = [one["end"] for one in done.egress["connections"]]
            assert len(ends) == 5, (done.stderr.content, done.outcome)
            assert set(ends) <= {"command ended", "closed", "reset"}
        (wall.place / "up").unlink()
        stop = StopSignal()
        async with trio.open_nursery() as nursery:

            async def cancelled() -> None:
                assert (await wall.run(hold.replace("END", "time.sleep(60)"), stop=stop)).outcome.cancelled

            nursery.start_soon(cancelled)
            with trio.fail_after(30):
                while not (wall.place / "up").exists():  # noqa: ASYNC110 - made by the command
                    await trio.sleep(0.02)
            stop.set(StopReason.CANCEL)
        for _ in range(10):
            done = await wall.run(f"{CURL} http://web.test:{at.ports['http']}/hello")
            assert done.stdout.content == b"hello from /hello", done.stderr.content
            assert done.egress["allowed"] == 1
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_run_that_nobody_waits_for_leaves_nothing(at: Servers, start: str) -> None:
    """Cancelled while it starts or while it runs: its listening socket is closed and its processes end."""

    def is_running() -> bool:
        found = {one.pid for one in psutil.Process().children(recursive=True)}
        running = psutil.process_iter(["cmdline"])
        return any(one.pid in found and "92.25" in " ".join(one.info["cmdline"] or ()) for one in running)

    async with walled(at, start) as wall:
        await wall.run("true")
        before = len(os.listdir("/proc/self/fd"))
        for delay_s in (0, 0.001, 0.003, 0.005, 0.01, 0.02, 0.04, 0.3):
            with trio.move_on_after(delay_s) as scope:
                await wall.run("sleep 92.25")
            assert scope.cancelled_caught
        with trio.fail_after(30):
            while len(os.listdir("/proc/self/fd")) > before or is_running():  # noqa: ASYNC110 - made by others
                await trio.sleep(0.05)
        assert (await wall.run("echo still here")).stdout.content == b"still here\n"
