"""What may be said between runner and launcher: everything else raises PeerError and nothing else."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.launcher.messages import (
    AnswerQuestion,
    CommandOutcome,
    Exited,
    Launch,
    LaunchRequest,
    Question,
    QuestionOver,
    Ready,
    Refused,
    Started,
    StartWorker,
    Stop,
    StopReason,
    WorkerStarted,
    parse_message,
    render_message,
)

OUTCOME = CommandOutcome(0, None, False, False, 0.5, 0.1, 0.2, None, False, {"mount": 2}, 1, ("a note",), None)

# Any text that argv can hold: bytes that are not UTF-8 travel as lone low surrogates (PEP 383).
WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff"), max_size=20
)
NAMES = st.from_regex(r"X_[A-Z0-9_]{0,20}", fullmatch=True)
REQUESTS = st.builds(
    LaunchRequest,
    profile=st.sampled_from(["isolate", "observe", "my-profile.2"]),
    argv=st.lists(WORDS.filter(bool), min_size=1, max_size=5).map(tuple),
    workdir=st.sampled_from(["", "a", "a/b", "ünï"]),
    environment=st.dictionaries(NAMES, WORDS, max_size=3),
    timeout_s=st.floats(0.001, limits.BASH_TIMEOUT_MAX_S),
    grace_s=st.floats(0, limits.LAUNCH_GRACE_MAX_S),
    requester=st.none() | WORDS,
    ask_timeout_s=st.floats(0, limits.APPROVAL_TIMEOUT_MAX_S),
    approved=st.lists(st.lists(WORDS, min_size=2, max_size=3).map(tuple), max_size=3).map(tuple),
)
IDS = st.integers(0, 2**53)
MESSAGES = st.one_of(
    st.builds(Launch, IDS, REQUESTS),
    st.builds(Stop, IDS, st.sampled_from(StopReason)),
    st.builds(StartWorker, IDS, st.just("files")),
    st.builds(Started, IDS, st.integers(1, 2**31)),
    st.builds(Exited, IDS, st.just(OUTCOME)),
    st.builds(Refused, IDS, WORDS, WORDS),
    st.builds(WorkerStarted, IDS, st.integers(1, 2**31)),
    st.builds(Ready, IDS),
    st.builds(
        Question,
        IDS,
        st.integers(1, 2**53),
        WORDS,
        st.lists(WORDS, max_size=5).map(tuple),
        started_by=WORDS,
        rule=WORDS,
        place=WORDS,
        because=WORDS,
    ),
    st.builds(AnswerQuestion, IDS, st.integers(1, 2**53), st.booleans(), WORDS),
    st.builds(QuestionOver, IDS, st.integers(1, 2**53), WORDS),
)


@given(MESSAGES)
def test_round_trip(message):
    """What is rendered is parsed to the same value."""
    assert parse_message(render_message(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes(body):
    """Any bytes parse or raise PeerError; no other error escapes."""
    with contextlib.suppress(PeerError):
        parse_message(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(
        ["launch", "stop", "start_worker", "exited", "refused", "question", "answer_question", "question_over"]
    ),
    st.dictionaries(st.text(), JSON),
)
def test_any_object(operation, body):
    """Any JSON object parses or raises PeerError."""
    with contextlib.suppress(PeerError):
        parse_message(json.dumps({**body, "op": operation}).encode())


def launch(**changes):
    request = {
        "profile": "isolate",
        "argv": ["true"],
        "workdir": "",
        "environment": {},
        "timeout_s": 1,
        "grace_s": 1,
        "requester": None,
        "ask_timeout_s": 0,
        "approved": [],
    }
    request.update(changes)
    return json.dumps({"op": "launch", "id": 1, "request": request}).encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"profile": "../x"}, "profile name", id="a path for a profile"),
        pytest.param({"profile": 7}, "must be text", id="a number for a profile"),
        pytest.param({"argv": []}, "from 1 to", id="no words"),
        pytest.param({"argv": [""]}, "must name a program", id="no program"),
        pytest.param({"argv": ["a\0b"]}, "NUL", id="NUL in a word"),
        pytest.param({"argv": ["a", 1]}, "list of texts", id="a number for a word"),
        pytest.param({"argv": "true"}, "list of texts", id="text for words"),
        pytest.param({"argv": ["\ud800"]}, "lone surrogate", id="a surrogate that is no byte"),
        pytest.param({"argv": ["x" * 131_072]}, "kernel's limit", id="a word too long for exec"),
        pytest.param({"argv": ["x"] * 5000}, "from 1 to", id="too many words"),
        pytest.param({"workdir": "/etc"}, "escapes workspace", id="an absolute directory"),
        pytest.param({"workdir": "a/../../b"}, "escapes workspace", id="a directory above"),
        pytest.param({"workdir": "a\0"}, "NUL", id="NUL in the directory"),
        pytest.param({"environment": {"LD_PRELOAD": "x"}}, "which code a program runs", id="preloading"),
        pytest.param({"environment": {"BASH_ENV": "x"}}, "which code a program runs", id="shell start-up"),
        pytest.param({"environment": {"PATH": "x"}}, "which code a program runs", id="another PATH"),
        pytest.param({"environment": {"A=B": "x"}}, "environment name", id="an equals sign in a name"),
        pytest.param({"environment": {"A": 1}}, "object of str", id="a number for a value"),
        pytest.param({"environment": {"A": "\0"}}, "NUL", id="NUL in a value"),
        pytest.param({"environment": {f"A{n}": "" for n in range(65)}}, "65 entries", id="too many entries"),
        pytest.param({"timeout_s": 0}, "timeout_s", id="no time"),
        pytest.param({"timeout_s": 1e9}, "timeout_s", id="for ever"),
        pytest.param({"timeout_s": True}, "finite number", id="a truth for a time"),
        pytest.param({"grace_s": -1}, "grace_s", id="negative grace"),
        pytest.param({"grace_s": 3600}, "grace_s", id="an hour of grace"),
        pytest.param({"requester": 7}, "text", id="a number for a requester"),
        pytest.param({"ask_timeout_s": -1}, "ask_timeout_s", id="a question without time"),
        pytest.param({"approved": ["touch x"]}, "list of lists", id="a text for an approved command"),
        pytest.param({"approved": [["rule"]]}, "without a word", id="an approved command without a word"),
        pytest.param({"approved": [["rule", "x"]] * 257}, "more than 256", id="too many approved commands"),
        pytest.param({"seccomp": "none"}, "unknown keys: seccomp", id="a filter of its own"),
        pytest.param({"mounts": []}, "unknown keys: mounts", id="mounts of its own"),
        pytest.param({"uid": 0}, "unknown keys: uid", id="another user"),
    ],
)
def test_refused(changes, says):
    """A request beyond a limit, or one that asks for more than a profile and parameters, is refused in words."""
    assert isinstance(parse_message(launch()), Launch)
    with pytest.raises(PeerError, match=says):
        parse_message(launch(**changes))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"op":"reboot","id":1}', id="an unknown operation"),
        pytest.param(b'{"op":["launch"],"id":1}', id="an operation that is no text"),
        pytest.param(b'{"op":"stop","id":1,"reason":"because"}', id="an unknown reason"),
        pytest.param(b'{"op":"stop","id":-1,"reason":"cancel"}', id="a negative id"),
        pytest.param(b'{"op":"stop","id":1.5,"reason":"cancel"}', id="a broken id"),
        pytest.param(b'{"op":"stop","reason":"cancel"}', id="no id"),
        pytest.param(b'{"op":"stop","id":1,"reason":"cancel","x":1}', id="a key too many"),
        pytest.param(b'{"op":"start_worker","id":1,"kind":"../x"}', id="a worker that is a path"),
        pytest.param(b"[" * 100_000, id="endless nesting"),
        pytest.param(b'{"op":"exited","id":1,"outcome":{"exit_code":NaN}}', id="not a number"),
    ],
)
def test_malformed(body):
    """What is not one of the messages raises PeerError."""
    with pytest.raises(PeerError):
        parse_message(body)


def test_oversized():
    """A body above the limit is refused before it is parsed."""
    with pytest.raises(PeerError, match="the limit is") as caught:
        parse_message(b" " * (limits.LAUNCH_BODY_MAX_BYTES + 1))
    assert caught.value.code == "oversized"
