"""Network mode `domains` in a profile: what can be written, what it compiles to, what comparing and narrowing say."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import Bundle, EgressGrant, PortRule
from guardhouse.sandbox.compare import compare_profiles
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.describe import describe_profile, profile_as_data
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.facts import Surroundings
from guardhouse.sandbox.load import load_profile

from .conftest import DIRECTORY, IDENTITY, Host

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def domains(write_profile, library):
    """Load a profile that extends isolate with these lines of network."""

    def load(lines: str, name: str = "mine", more: str = ""):
        text = (
            f"profile: {name}\nsummary: test\nextends: isolate\n{more}network:\n  mode: domains\n  why: test\n{lines}"
        )
        return load_profile(write_profile(name, text), directory=DIRECTORY, library=library)

    return load


def compiled(profile, *, abi: int = 7, narrowed=None):
    bundle = compile_bundle(
        [profile],
        identity=IDENTITY,
        workspace="/srv/w",
        features=Host(landlock_abi=abi),
        trusted_path="/usr/bin",
        around=Surroundings(domains=narrowed),
    )
    assert Bundle.from_json(bundle.to_json()) == bundle
    return bundle.profiles[profile.name]


ONE = "  domains: [{domain: a.example, why: test}]\n"


def test_extending_isolate_is_enough(domains):
    """Names are all that has to be written: the sockets come with the mode, a name service does not."""
    found = compiled(domains(ONE))
    assert found.network == "domains"
    assert "net" in found.namespaces
    assert (found.network_domains, found.proxy_port) == ((EgressGrant("a.example", (80, 443)),), 3128)
    profile = domains(ONE)
    assert {"sockets_tcp", "sockets_unix"} <= profile.syscalls.keys()
    assert "sockets_udp" not in profile.syscalls


def test_the_group_of_sockets_keeps_its_own_reason(domains):
    """A profile that names the group itself is not overruled."""
    more = "syscalls: [{group: sockets_tcp, why: mine alone}]\n"
    assert domains(ONE, more=more).syscalls["sockets_tcp"].why == "mine alone"


def test_every_variable_leads_to_the_proxy(domains):
    """Both cases of each; HTTP everywhere, since some libraries fail at a socks5:// that they do not know."""
    found = compiled(domains(ONE + "  proxy_port: 4000\n")).environment
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        assert found[name] == found[name.lower()] == "http://127.0.0.1:4000"
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1"


def test_landlock_lets_connect_to_the_proxy_alone(domains):
    """Where Landlock knows ports, the proxy's and those of the own loopback that the profile lists; binding is free."""
    own = compiled(domains(ONE + "  ports: [{connect: 8080, why: own server}]\n")).landlock
    assert own.handled_net == ("connect_tcp",)
    assert own.ports == (PortRule(3128, ("connect_tcp",)), PortRule(8080, ("connect_tcp",)))
    old = compiled(domains(ONE), abi=3).landlock
    assert (old.handled_net, old.ports) == ((), ())


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("  domains: [{domain: 127.0.0.1, why: test}]\n", "it belongs under 'addresses'"),
        ("  domains: [{domain: a.0x7f, why: test}]\n", "it belongs under 'addresses'"),
        ("  domains: [{domain: a.example., why: test}]\n", "no host name"),
        ("  domains: [{domain: A.example, why: test}]\n", "no host name"),
        ("  domains: [{domain: bücher.example, why: test}]\n", "no host name"),
        ("  domains: [{domain: 'a.example:443', why: test}]\n", "no host name"),
        ("  domains: [{domain: a.example}]\n", "why"),
        ("  domains: [{domain: a.example, ports: [], why: test}]\n", "different ports"),
        ("  domains: [{domain: a.example, ports: [443, 443], why: test}]\n", "different ports"),
        ("  domains: [{domain: a.example, ports: [0], why: test}]\n", "0"),
        ("  domains: [{domain: a.example, ports: [65536], why: test}]\n", "65536"),
        ("  domains: [{domain: a.example, port: 443, why: test}]\n", "port"),
        (ONE + "  addresses: [{address: 10.0.0.1/8, why: test}]\n", "not an address or network"),
        (ONE + "  addresses: [{address: a.example, why: test}]\n", "not an address or network"),
        (ONE + "  ports: [{bind: 80, why: test}]\n", "may be bound already"),
        (ONE + "  proxy_port: 80\n", "80"),
        (ONE + "  tunnels: {tls: required}\n", "why"),
        (ONE + "  tunnels: {tls: true, why: test}\n", "known here: named, required"),
        (ONE + "  tunnels: {tls: maybe, why: test}\n", "maybe"),
    ],
)
def test_what_cannot_be_written(domains, lines, says):
    """Names that are addresses, odd ports, entries without a reason; the message has the place."""
    with pytest.raises(ProfileError, match=re.escape(says)):
        domains(lines)


def test_comparing_says_each_name_and_port(domains):
    """One more port of a name widens, one name less narrows."""
    first = domains("  domains: [{domain: a.example, ports: [443], why: test}, {domain: b.example, why: test}]\n")
    second = domains("  domains: [{domain: a.example, why: test}]\n", name="other")
    said = {(change.direction, change.text) for change in compare_profiles(first, second)}
    assert said == {
        ("widens", "domain a.example port 80 is let through"),
        ("narrows", "domain b.example port 80 is shut"),
        ("narrows", "domain b.example port 443 is shut"),
    }


def test_what_tunnels_may_carry(domains):
    """Any protocol by default; TLS that names the host where the profile wants that, which narrows."""
    plain = domains(ONE)
    strict = domains(ONE + "  tunnels: {tls: required, why: registries speak TLS}\n", name="strict")
    assert (compiled(plain).is_tls_required, compiled(strict).is_tls_required) == (False, True)
    assert "what names none, and what is no TLS, passes" in describe_profile(plain)
    assert "only TLS that names the host asked for, and hides no second name: registries" in describe_profile(strict)
    assert profile_as_data(strict)["network"]["tunnels"] == {"tls": "required"}
    (change,) = compare_profiles(plain, strict)
    assert (change.direction, change.text) == ("narrows", "tunnels tls named becomes required")
    (change,) = compare_profiles(strict, plain)
    assert change.direction == "widens"


def test_describing_names_everything(domains):
    """Names, ports, addresses, the proxy's place, in words and as data."""
    profile = domains(ONE + "  addresses: [{address: 10.0.0.0/8, ports: [5432], why: database}]\n")
    text = describe_profile(profile)
    assert "  domain a.example at TCP port 80 or 443: test\n" in text
    assert "  address 10.0.0.0/8 at TCP port 5432: database\n" in text
    assert "127.0.0.1:3128: HTTP, CONNECT and SOCKS5" in text
    network = profile_as_data(profile)["network"]
    assert network["domains"] == [{"domain": "a.example", "ports": [80, 443]}]
    assert network["addresses"] == [{"address": "10.0.0.0/8", "ports": [5432]}]


def test_settings_narrow_and_never_widen(domains):
    """An operator's list, one account's say, takes the place of the profile's names if these cover it."""
    profile = domains("  domains: [{domain: '*.a.example', why: test}, {domain: b.example, ports: [443], why: test}]\n")
    narrowed = (
        EgressGrant("x.a.example", (443,)),
        EgressGrant("*.y.a.example", (80,)),
        EgressGrant("b.example", (443,)),
    )
    assert compiled(profile, narrowed=narrowed).network_domains == narrowed
    assert compiled(profile, narrowed=()).network_domains == ()
    for wider in (
        EgressGrant("a.example", (443,)),
        EgressGrant("*.example", (443,)),
        EgressGrant("b.example", (80,)),
        EgressGrant("x.a.example", (443, 22)),
        EgressGrant("c.example", (443,)),
    ):
        with pytest.raises(SetupError, match="settings can narrow a profile, not widen it"):
            compiled(profile, narrowed=(wider,))


def examples() -> list[tuple[str, str]]:
    """Every profile in mode domains that our documentation shows: (page, text)."""
    found = []
    for page in ("sandbox.md", "egress.md"):
        blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
        found += [(page, block) for block in blocks if "mode: domains" in block]
    return found


def test_each_page_has_an_example():
    """The two pages that explain the mode show how it is written."""
    assert {page for page, _ in examples()} == {"sandbox.md", "egress.md"}


@pytest.mark.parametrize(("page", "text"), examples(), ids=lambda value: value if value.endswith(".md") else "")
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_examples_of_the_documentation_run(page, text):
    """A profile as our pages show it shows, compares and runs, and its proxy refuses another name with a lesson."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        directory = Path(made)
        directory.chmod(0o755)
        path = directory / f"{re.search('^profile: (.*)$', text, re.MULTILINE)[1]}.yaml"
        path.write_text(text, encoding="utf-8")

        def sandbox(*words: str) -> subprocess.CompletedProcess:
            command = [sys.executable, "-m", "guardhouse", "sandbox", *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert "the proxy is its own 127.0.0.1:3128" in sandbox("show", str(path)).stdout
        assert "mode none becomes domains" in sandbox("diff", "isolate", str(path)).stdout
        tried = sandbox("try", "--json", str(path), "--", "curl", "-sS", "http://evil.example/")
        assert "no entry of profile" in tried.stdout, tried.stderr
        (one,) = json.loads(tried.stderr)["egress"]["connections"]
        assert (one["host"], one["verdict"], one["code"]) == ("evil.example", "deny", "domain")
        told = sandbox("try", str(path), "--", "curl", "-sS", "--socks5-hostname", "127.0.0.1:3128", "http://1.1.1.1/")
        assert "guardhouse: the egress proxy refused 1.1.1.1:80" in told.stderr
