"""Profile and group files are read strictly, and every refusal says file, line and column."""
# ruff: noqa: E501 - a row is one line of thought

import re

import pytest

from guardhouse.sandbox.documents import ProfileError, read_document
from guardhouse.sandbox.load import load_profile
from guardhouse.sandbox.load_groups import parse_mask_group, parse_syscall_group

from .conftest import DIRECTORY


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("a: 1\na: 2\n", "stands twice", "x:2:1"),
        ("a: &b 1\n", "anchors", "x:1:4"),
        ("a: !!int 1\n", "tag", "x:1:4"),
        ("a: 1\n---\nb: 1\n", "document", "x:2:1"),
        ("a: [1\n", "not YAML", "x:2:1"),
        ("", "empty", "x:1:1"),
        ("? [a]\n: 1\n", "key must be text", "x:1:3"),
        ("[" * 30 + "]" * 30, "deep", "x:1:"),
        ("a: \x07\n", "not YAML", "x:1:1"),
    ],
)
def test_yaml_beyond_plain_data_is_refused(text, says, place):
    """Doubled keys, anchors, tags, second documents and deep nesting are refused with their place."""
    with pytest.raises(ProfileError, match=says) as caught:
        read_document(text, name="x")
    assert caught.value.place.startswith(place)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("group: g\npurpose: p\nallow:\n  - {call: read}\n", "missing why"),
        ("group: g\npurpose: p\nallow:\n  - {call: read, why: ''}\n", "must not be empty"),
        ("group: g\npurpose: p\nallow:\n  - {call: read, why: because, becuase: x}\n", "unknown key 'becuase'"),
        ("group: g\npurpose: p\n", "allows or answers"),
        ("group: g\npurpose: p\nallow:\n  - {call: ioctl, when: [{arg: request, any_of: [21505]}], why: number}\n", "not its number"),
        ("group: g\npurpose: p\nallow:\n  - {call: ioctl, when: [{arg: argp, any_of: [TCGETS]}], why: arg}\n", "no argument 'argp'"),
        ("group: g\npurpose: p\nallow:\n  - {call: ioctl, when: [], why: nothing}\n", "without a condition"),
        ("group: g\npurpose: p\nallow:\n  - {call: ioctl, when: [{arg: request}], why: nothing}\n", "either 'any_of' or 'none_of'"),
        ("group: g\npurpose: p\nallow:\n  - {calls: [read, read], why: twice}\n", "already allowed at"),
        ("group: g\npurpose: p\nanswer:\n  - {call: read, errno: ENOPE, why: error}\n", "unknown errno"),
    ],
)  # fmt: skip
def test_group_files_are_refused_with_place(text, says):
    """An entry without a reason, with an unknown key or with a number where a name exists is refused."""
    with pytest.raises(ProfileError, match=re.escape(says)) as caught:
        parse_syscall_group(text, name="sandbox/syscalls/g.yaml")
    assert re.match(r"sandbox/syscalls/g\.yaml:\d+:\d+: ", str(caught.value))


@pytest.mark.parametrize("path", ["etc/shadow", "/etc/../shadow", "/etc//shadow", "/", "/etc/"])
def test_mask_paths_are_absolute_and_short(path):
    """A path that is not in its shortest absolute spelling could cover something else than it says."""
    with pytest.raises(ProfileError):
        parse_mask_group(f"masks: m\npurpose: p\npaths:\n  - {{path: {path}, why: because}}\n", name="m")


BASE = "profile: mine\nsummary: mine\nextends: isolate\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profile: other\nsummary: s\nextends: isolate\n", "must be in a file other.yaml"),
        (BASE + "nonsense: 1\n", "unknown key 'nonsense'"),
        (BASE + "extends: isolate\n", "stands twice"),
        (BASE + "syscalls: [{group: nope, why: because}]\n", "unknown group 'nope'"),
        (BASE + "syscalls: [{group: sockets_tcp}]\n", "missing why"),
        (BASE + "network: {mode: host, why: because}\n", "drop the namespace 'net'"),
        (BASE + "network: {mode: domains, why: because}\n", "needs a list 'domains'"),
        (BASE + "network: {mode: domains, why: because, domains: [{domain: '*', why: all}]}\n", "no host name"),
        (BASE + "network: {mode: domains, why: because, domains: [{domain: 'a.*.b', why: mid}]}\n", "no host name"),
        (BASE + "proc: {view: host, why: because}\n", "needs landlock required"),
        (BASE + "drop: [{namespace: pid, why: because}]\n", "needs the namespace 'pid'"),
        (BASE + "drop: [{grant: /run/none, why: because}]\n", "there is no grant"),
        (BASE + "environment: [{name: LD_PRELOAD, value: /x.so, why: because}]\n", "run other code"),
        (BASE + "limits: [{limit: nofile, soft: 20, hard: 10, why: because}]\n", "above the hard limit"),
        (BASE + "limits: [{limit: fsize, soft: 20, hard: 30, why: because}]\n", "a size such as"),
        (BASE + "umask: {mode: 22, why: because}\n", "four octal digits"),
        (BASE + "grant: [{path: /, why: because}]\n", "root cannot be granted"),
        (BASE + "grant: [{socket: /run/x, writable: true, why: because}]\n", "only a path may be writable"),
        (
            BASE + "view: [{bind: /, why: because}, {tmpfs: /x, why: because}, {bind: /x, why: because}]\n",
            "stands twice",
        ),
        (BASE + "view: [{tmpfs: /x, options: [suid], why: because}]\n", "unknown mount option"),
        ("profile: mine\nsummary: s\n", "says nothing of"),
        ("profile: mine\nsummary: s\nextends: nowhere\n", "unknown profile 'nowhere'"),
        ("profile: mine\nsummary: s\nextends: mine\n", "extends itself"),
    ],
)
def test_profiles_that_make_no_sense_are_refused(write_profile, library, text, says):
    """Each of these would promise more, or less, than it says; the message names it."""
    from guardhouse.errors import SetupError

    with pytest.raises(SetupError, match=re.escape(says)):
        load_profile(write_profile("mine", text), directory=DIRECTORY, library=library)


def test_ports_mode_does_not_pretend_to_bound_udp(write_profile, library):
    """Mode ports with UDP sockets is refused; without them it loads (the twin)."""
    text = (
        "profile: mine\nsummary: s\nextends: observe\n"
        "network: {mode: ports, why: because, ports: [{connect: 443, why: https}]}\n"
        "landlock: {minimum_abi: 4, why: ports}\n"
    )
    with pytest.raises(ProfileError, match="cannot bound UDP"):
        load_profile(write_profile("mine", text), directory=DIRECTORY, library=library)
    text += "drop: [{syscalls: sockets_udp, why: not bounded}]\n"
    assert load_profile(write_profile("mine", text), directory=DIRECTORY, library=library).network.mode == "ports"


def test_profile_shown_in_the_documentation_loads(write_profile, library):
    """The example of docs/sandbox.md is a profile that loads as it stands there."""
    from guardhouse.sandbox.compare import compare_profiles

    document = DIRECTORY.parent / "docs" / "sandbox.md"
    if not document.exists():
        pytest.skip("an installed wheel has no docs/")
    example = document.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    mine = load_profile(write_profile("cluster", example), directory=DIRECTORY, library=library)
    observe = load_profile("observe", directory=DIRECTORY, library=library)
    assert {change.direction for change in compare_profiles(observe, mine)} == {"widens", "narrows"}
