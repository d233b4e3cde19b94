"""A rule that names a URL lets curl and wget connect to that host alone, whatever its star matches."""

import pytest

from guardhouse.policy import decide, policy_from_pairs
from guardhouse.policy.exec_decision import decide_exec
from guardhouse.policy.shell import read_command
from guardhouse.values import Verdict

STATUS = "curl -fsS https://status.example.com*"
PROXY = "curl -x http://proxy:3128 https://*"

ELSEWHERE = [
    (STATUS, "curl -fsS https://status.example.com http://10.0.0.1:8099/x"),
    (STATUS, "curl -fsS https://status.example.com 10.0.0.1:8099"),
    (STATUS, "curl -fsS https://status.example.com -- 10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com@10.0.0.1/x"),
    (STATUS, "curl -fsS https://status.example.com:a@10.0.0.1/x"),
    (STATUS, "curl -fsS 'https://status.example.com{,@10.0.0.1}/x'"),
    (STATUS, "curl -fsS 'https://status.example.com%2f@10.0.0.1'"),
    (STATUS, "curl -fsS https://status.example.com --url http://10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com --url=http://10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com -x 10.0.0.1:3128"),
    (STATUS, "curl -fsS https://status.example.com -sx10.0.0.1:3128"),
    (STATUS, "curl -fsS https://status.example.com --proxy 10.0.0.1:3128"),
    (STATUS, "curl -fsS https://status.example.com --prox 10.0.0.1:3128"),
    (STATUS, "curl -fsS https://status.example.com --preproxy socks5://10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com --socks5-hostname 10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com --connect-to ::10.0.0.1:80"),
    (STATUS, "curl -fsS https://status.example.com --resolve status.example.com:443:10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com --next http://10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com --doh-url https://10.0.0.1"),
    (STATUS, "curl -fsS https://status.example.com -K settings"),
    (STATUS, "curl -fsS https://status.example.com --unix-socket /run/docker.sock"),
    (STATUS, "curl -fsS https://status.example.com -o a -d b http://10.0.0.1"),
    (PROXY, "curl -x http://proxy:3128 https://a.example -x http://10.0.0.1:3128 --proxy http://10.0.0.1"),
    ("curl --url https://a.example*", "curl --url https://a.example --url http://10.0.0.1"),
    ("wget -q https://a.example/*", "wget -q https://a.example/x http://10.0.0.1"),
    ("wget -q https://a.example/*", "wget -q https://a.example/x -i list"),
    ("wget -q https://a.example/*", "wget -q https://a.example/x --base=http://10.0.0.1"),
    ("wget -q https://a.example/*", "wget -q https://a.example/x -e http_proxy=10.0.0.1"),
]
WITHIN = [
    (STATUS, "curl -fsS https://status.example.com"),
    (STATUS, "curl -fsS https://status.example.com/a https://status.example.com/b"),
    (STATUS, "curl -fsS https://status.example.com:8443/a@b -o /dev/null -w '%{http_code} @{x}'"),
    (STATUS, "curl -fsS https://status.example.com/a -H 'Accept: text/html' --max-time 5 -d @body -u user:word"),
    (STATUS, "curl -fsS https://status.example.com/a -kLv4 -XPOST --compressed --retry 3 --noproxy '*'"),
    (STATUS, "curl -fsS 'https://status.example.com/[1-3]/{a,b}?q=http://10.0.0.1'"),
    (PROXY, "curl -x http://proxy:3128 https://a.example/x"),
    ("curl * http://localhost:*", "curl -s -o /dev/null http://localhost:9090/metrics"),
    ("curl https://user@a.example*", "curl https://user@a.example/x"),
    ("curl -s http://[::1]:80*", "curl -s 'http://[::1]:80/x'"),
    ("wget -qO- https://a.example/*", "wget -qO- https://a.example/x --header='Accept: b' --tries=2 -T 5"),
    # A rule that names no URL says nothing of destinations.
    ("curl *", "curl -x 10.0.0.1 http://a.example http://b.example"),
    ("*", "curl https://a.example http://b.example"),
]


def verdicts(pattern: str, text: str) -> tuple[Verdict, Verdict]:
    """What gate one says of the text, and gate two of the one program in it."""
    policy = policy_from_pairs([["*", "deny"], [pattern, "allow"]])
    argv = read_command(text).commands[0].argv
    assert argv is not None
    found = decide_exec(policy, argv, path=f"/usr/bin/{argv[0]}", names=(argv[0],))
    return decide(policy, text).verdict, found.verdict


@pytest.mark.parametrize(("pattern", "text"), ELSEWHERE)
def test_a_second_destination_is_refused(pattern: str, text: str) -> None:
    """Gate one leaves it open, gate two, which sees the words that count, refuses it."""
    assert verdicts(pattern, text) == (Verdict.UNDECIDED, Verdict.DENY)


@pytest.mark.parametrize(("pattern", "text"), WITHIN)
def test_everyday_calls_of_the_named_host_are_allowed(pattern: str, text: str) -> None:
    """The twin: the same programs with options that lead nowhere else."""
    assert verdicts(pattern, text) == (Verdict.ALLOW, Verdict.ALLOW)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param('curl -fsS "https://status.example.com/a-$day.json"', Verdict.UNDECIDED, id="dots may be hidden"),
        pytest.param("curl -fsS https://status.example.com $url", Verdict.UNDECIDED, id="a word that is not known"),
        pytest.param('curl -fsS "https://status.example.com$rest"', Verdict.UNDECIDED, id="the host may go on"),
        pytest.param("https_proxy=10.0.0.1:1 curl -fsS https://status.example.com", Verdict.DENY, id="a proxy"),
        pytest.param("export ALL_PROXY=10.0.0.1; curl -fsS https://status.example.com", Verdict.DENY, id="exported"),
        pytest.param("CURL_HOME=. curl -fsS https://status.example.com", Verdict.DENY, id="settings of its own"),
    ],
)
def test_what_is_not_known_is_left_to_gate_two_and_what_it_cannot_see_is_denied(text: str, verdict: Verdict) -> None:
    """A variable may hold another host; a proxy from the environment is in no argument."""
    assert decide(policy_from_pairs([["*", "deny"], [STATUS, "allow"]]), text).verdict is verdict
