"""Gate two's question about one exec, and operations other than commands."""

import pytest

from guardhouse.errors import InvariantError
from guardhouse.policy import decide_exec, decide_operation, load_policy, policy_from_pairs
from guardhouse.policy.subjects import normalise_path, normalise_url
from guardhouse.values import Verdict

ALLOW, DENY, ASK = Verdict.ALLOW, Verdict.DENY, Verdict.ASK
LS = policy_from_pairs([["*", "deny"], ["ls *", "allow"], ["./run.sh *", "allow"]])
NO_PUSH = policy_from_pairs([["*", "allow"], ["git push *", "deny"], ["cat /etc/shadow", "deny"]])


@pytest.mark.parametrize(
    ("policy", "argv", "path", "names", "workspace_path", "verdict"),
    [
        pytest.param(LS, ("ls", "-l"), "/usr/bin/ls", {"ls"}, None, ALLOW, id="the very file"),
        pytest.param(LS, ("ls",), "/ws/ls", set(), "./ls", DENY, id="a file of that name elsewhere"),
        pytest.param(LS, ("ls",), "/usr/bin/touch", {"touch"}, None, DENY, id="another program under that name"),
        pytest.param(LS, ("x",), "/usr/bin/ls", {"ls"}, None, ALLOW, id="the file under another name"),
        pytest.param(LS, ("x",), "/bin/busybox", {"ls", "rm"}, None, DENY, id="every name of one file must be allowed"),
        pytest.param(LS, ("ls",), "/bin/busybox", {"ls", "rm"}, None, ALLOW, id="save the one it is called by"),
        pytest.param(LS, ("./run.sh", "x"), "/ws/run.sh", set(), "./run.sh", ALLOW, id="a file named by its path"),
        pytest.param(LS, (), "/usr/bin/ls", {"ls"}, None, DENY, id="no argument vector"),
        pytest.param(NO_PUSH, ("git", "-C", "/x", "push"), "/usr/bin/git", {"git"}, None, DENY, id="options moved"),
        pytest.param(NO_PUSH, ("git", "log"), "/usr/bin/git", {"git"}, None, ALLOW, id="another subcommand"),
        pytest.param(NO_PUSH, ("cat", "/etc/../etc/shadow"), "/usr/bin/cat", {"cat"}, None, DENY, id="dots resolved"),
    ],
)
def test_exec(policy: object, argv: tuple, path: str, names: set, workspace_path: str | None, verdict: Verdict) -> None:
    """Identity counts, not the name that was typed; the answer is final."""
    found = decide_exec(policy, argv, path=path, names=names, workspace_path=workspace_path)
    assert found.verdict is verdict, found.because


FULL = load_policy(
    """
permission:
  bash: {}
  read: {"/var/log/**": allow, "/var/log/secure": deny, "*.txt": allow, "data/**/x": allow}
  webfetch: {"https://*.example.com": allow, "https://api.test:8443/v1/*": allow, "http://*/": ask}
  mcp: {"github/*": allow, "github/delete_*": deny}
  skill: {"*": allow, "root-*": deny}
""",
    name="p",
)


@pytest.mark.parametrize(
    ("operation", "subject", "verdict"),
    [
        ("read", "/var/log/a/b", ALLOW),
        ("read", "/var/log", ALLOW),
        ("read", "/var/log/../../etc/shadow", DENY),
        ("read", "/var/log//x/./secure/../../secure", DENY),
        ("read", "a.txt", ALLOW),
        ("read", "./a.txt", ALLOW),
        ("read", "b/a.txt", DENY),
        ("read", "data/x", ALLOW),
        ("read", "data/a/b/x", ALLOW),
        ("read", "", DENY),
        ("read", "a\0b", DENY),
        ("webfetch", "https://www.example.com/a/b?c", ALLOW),
        ("webfetch", "https://WWW.Example.COM./", ALLOW),
        ("webfetch", "https://example.com/", DENY),
        ("webfetch", "http://www.example.com/x", DENY),
        ("webfetch", "https://www.example.com:444/", DENY),
        ("webfetch", "https://evil.com/?.example.com", DENY),
        ("webfetch", "https://evil.com#.example.com", DENY),
        ("webfetch", "https://user@www.example.com/", DENY),
        ("webfetch", "https://evil.com\\.example.com/", DENY),
        ("webfetch", "https://api.test:8443/v1/x", ALLOW),
        ("webfetch", "https://api.test:8443/v1/../v2", DENY),
        ("webfetch", "http://a.b/", ASK),
        ("webfetch", "file:///etc/passwd", DENY),
        ("webfetch", "not a url", DENY),
        ("mcp", "github/list", ALLOW),
        ("mcp", "github/delete_repo", DENY),
        ("mcp", "gitlab/list", DENY),
        ("mcp", "github/a/b", DENY),
        ("skill", "x", ALLOW),
        ("skill", "root-x", DENY),
        ("write", "anything", ALLOW),
    ],
)
def test_operation(operation: str, subject: str, verdict: Verdict) -> None:
    """The last rule that matches the normal form wins; without a section, workspace and wall decide."""
    found = decide_operation(FULL, operation, subject)
    assert found.verdict is verdict, found.because
    assert found.as_json()["verdict"] == verdict.value


def test_an_unknown_operation_is_our_own_mistake() -> None:
    """A caller cannot ask about what no policy knows."""
    with pytest.raises(InvariantError):
        decide_operation(FULL, "bash", "ls")


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("a//b/./c", "a/b/c"),
        ("/..", "/"),
        ("a/..", "."),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("/a/", "/a"),
        ("", None),
    ],
)
def test_normal_paths(path: str, normal: str | None) -> None:
    """Paths lose what changes nothing."""
    assert normalise_path(path) == normal


def test_urls_keep_what_counts() -> None:
    """Scheme, host and port are in one case and whole; the query stays, the fragment goes."""
    assert normalise_url("HTTPS://Ex.org/a/../b/?q=1#f") == "https://ex.org:443/b/?q=1"
    assert normalise_url("http://[::1]:80/") == "http://[::1]:80/"


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/", "http://127.1/", "http://0177.0.0.1/", "http://0x7f.1/", "http://0x7F000001/",
        "http://[fe80::1%25eth0]/", "http://[1.2.3.4]/", "http://[v1.x]/", "http://a.7/", "http://[::1/",
    ],
)  # fmt: skip
def test_a_host_that_readers_take_for_different_things_has_no_form(url: str) -> None:
    """What only some readers take for an address matches no rule, so it is denied wherever there are rules."""
    assert normalise_url(url) is None


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]:80/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]:80/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1:80/"),
        ("http://127.0.0.1./", "http://127.0.0.1:80/"),
        ("http://example.com./", "http://example.com:80/"),
        ("http://7.example.com/", "http://7.example.com:80/"),
    ],
)
def test_an_address_has_one_form(url: str, normal: str) -> None:
    """However it is written, a rule about an address sees it."""
    assert normalise_url(url) == normal


def test_a_rule_names_an_address_in_any_way_of_writing_it() -> None:
    """A pattern's address is brought into the same form as the subject's."""
    policy = load_policy(
        'permission: {webfetch: {"*": allow, "http://[0:0::1]/*": deny, "example.com.": deny}}', name="p"
    )
    for url, verdict in (
        ("http://[::1]/x", Verdict.DENY),
        ("http://example.com/", Verdict.DENY),
        ("http://[::2]/x", Verdict.ALLOW),
    ):
        assert decide_operation(policy, "webfetch", url).verdict is verdict
