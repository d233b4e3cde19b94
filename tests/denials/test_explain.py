"""What is said of a refusal follows from the plan; a program's words alone never make a fact."""

# ruff: noqa: E501 - one case a line
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardhouse.sandbox.bundle import Bundle
from guardhouse.sandbox.explain_denial import DENIALS_MAX, Denial, End, explain_denials
from guardhouse.sandbox.judge_path import judge_path, normal_path


def explain(bundle: Bundle, profile: str, stderr: str = "", **changes: object) -> tuple[Denial, ...]:
    values: dict = {
        "exit_code": 1, "signal_number": None, "oom_killed": False, "denied_syscalls": {}, "stderr": stderr, **changes,
    }  # fmt: skip
    return explain_denials(bundle, profile, End(**values))


REFUSED = [
    pytest.param("observe", "touch: cannot touch '/etc/x': Read-only file system", "mount_view", "/etc/x", id="touch"),
    pytest.param("observe", "touch: cannot touch '/etc/x': Permission denied", "mount_view", "/etc/x", id="touch, EACCES"),
    pytest.param("observe", "bash: line 1: /usr/y: Read-only file system", "mount_view", "/usr/y", id="redirection"),
    pytest.param("observe", "cat: /etc/shadow: Permission denied", "mount_view", "/etc/shadow", id="masked file"),
    pytest.param("observe", "cat: /root/.ssh/id_rsa: Permission denied", "mount_view", "/root/.ssh/id_rsa", id="below a mask"),
    pytest.param("observe", "cat: /proc/1/environ: Permission denied", "landlock", "/proc/1/environ", id="another process"),
    pytest.param("observe", "ls: cannot read symbolic link '/proc/1/root': Permission denied", "landlock", "/proc/1/root", id="its root"),
    pytest.param("isolate", "cat: /proc/1/environ: Permission denied", "namespaces", "/proc/1/environ", id="own pid 1"),
    pytest.param("isolate", "ls: cannot access '/home': No such file or directory", "mount_view", "/home", id="not shown"),
    pytest.param("isolate", "cat: /etc/shadow: No such file or directory", "mount_view", "/etc/shadow", id="not listed in /etc"),
    pytest.param("observe", "cat: /tmp/app.log: No such file or directory", "mount_view", "/tmp/app.log", id="private /tmp"),
    pytest.param("observe", "dial unix /var/run/docker.sock: connect: no such file or directory", "mount_view", "/run/docker.sock", id="daemon socket"),
    pytest.param("isolate", "curl: (6) Could not resolve host: example.org", "namespaces", "network", id="no network"),
    pytest.param("isolate", "curl: (7) Failed to connect to 1.2.3.4 port 443 after 0 ms: Couldn't connect to server", "namespaces", "TCP port 443", id="no network, port"),
    pytest.param("isolate", "connect: Network is unreachable", "namespaces", "network", id="unreachable"),
    pytest.param("ports", "nc: connect to 127.0.0.1 port 80 (tcp) failed: Permission denied", "landlock", "TCP port 80", id="another port"),
    pytest.param("observe", "bash: line 1: kill: (1) - Operation not permitted", "namespaces", "process 1", id="kill 1"),
    pytest.param("observe", "kill: (4321): No such process", "namespaces", "process 4321", id="kill a host process"),
    pytest.param("observe", "bash: fork: retry: Resource temporarily unavailable", "cgroup_pids", "pids", id="fork bomb"),
    pytest.param("observe", "bash: /dev/null: Too many open files", "rlimits", "nofile", id="descriptors"),
    pytest.param("observe", "dd: error writing 'big': File too large", "rlimits", "fsize", id="file size"),
    pytest.param("observe", "MemoryError", "rlimits", "data", id="memory"),
    pytest.param("observe", "dd: error writing '/tmp/x': No space left on device", "mount_view", "/tmp/x", id="full /tmp"),
    pytest.param("observe", 'sudo: The "no new privileges" flag is set, which prevents sudo', "no_new_privs", "setuid", id="sudo"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "line", "layer", "subject"), REFUSED)
def test_a_line_names_the_layer(bundle: Bundle, profile: str, line: str, layer: str, subject: str) -> None:
    """Layer and subject follow from the plan; since the evidence is text, it says likely, and quotes it."""
    if profile not in bundle.profiles:
        pytest.skip("needs Landlock ABI 4 (Linux 6.7)")
    (found,) = explain(bundle, profile, line)
    if layer == "landlock" and bundle.profiles[profile].landlock is None:
        layer = "namespaces"
    assert (found.layer, found.subject, found.certain) == (layer, subject, False)
    assert found.text.startswith(f"likely {layer}: ")
    assert "it printed: " in found.text
    assert explain(bundle, profile, line, exit_code=0) == ()


SILENT = [
    pytest.param("operate", "touch: cannot touch '/srv/x': Permission denied", id="the account's own permissions"),
    pytest.param("observe", "cat: /etc/hostname: No such file or directory", id="a file that would be shown"),
    pytest.param("observe", "cat: notes.txt: No such file or directory", id="a file of the workspace"),
    pytest.param("observe", "curl: (6) Could not resolve host: nowhere.example", id="the host's own network"),
    pytest.param("ports", "nc: connect to 127.0.0.1 port 443 (tcp) failed: Connection refused", id="a port that is granted"),
    pytest.param("observe", "bash: foo: command not found", id="no such program"),
    pytest.param("observe", "grep: pattern not found", id="ordinary words"),
    pytest.param("observe", "dd: error writing 'x': No space left on device", id="the workspace's own disk"),
    pytest.param("observe", "cat: /proc/self/environ: Permission denied", id="its own process"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "line"), SILENT)
def test_nothing_is_said_where_the_plan_does_not_refuse(bundle: Bundle, profile: str, line: str) -> None:
    """A guess is worse than silence: the wall takes no blame for what it lets through."""
    if profile not in bundle.profiles:
        pytest.skip("needs Landlock ABI 4 (Linux 6.7)")
    assert explain(bundle, profile, line) == ()


def test_sockets_of_32_bit_programs_say_why(bundle: Bundle) -> None:
    """Socketcall is permitted by no group: the sentence says so, and no other refused call brings it."""
    (found,) = explain(bundle, "observe", denied_syscalls={"i386:socketcall": 2, "mount": 1})
    assert "refused i386:socketcall (2), mount (1); socketcall keeps its arguments in memory" in found.text
    (found,) = explain(bundle, "observe", denied_syscalls={"i386:ptrace": 1})
    assert found.text.endswith("refused i386:ptrace (1)")


def test_what_was_counted_is_certain(bundle: Bundle) -> None:
    """Denied calls, an out-of-memory kill and a file size signal are facts; the first come first."""
    found = explain(bundle, "observe", denied_syscalls={"mount": 2, "ptrace": 1}, oom_killed=True)
    assert [(one.layer, one.certain) for one in found] == [("cgroup_memory", True), ("seccomp", True)]
    assert "refused mount (2), ptrace (1)" in found[1].text
    (size,) = explain(bundle, "observe", signal_number=int(signal.SIGXFSZ), exit_code=153)
    assert (size.layer, size.subject, size.certain) == ("rlimits", "fsize", True)


def test_a_grant_says_what_to_write(bundle: Bundle) -> None:
    """A person can copy the entry into a profile that extends this one."""
    (write,) = explain(bundle, "observe", "touch: cannot touch '/var/lib/app/x': Read-only file system")
    assert write.grant == "grant: [{path: /var/lib/app, writable: true, why: …}]"
    (read,) = explain(bundle, "observe", "cat: /etc/shadow: Permission denied")
    assert read.grant == "grant: [{path: /etc/shadow, why: …}]"


def test_the_same_is_said_once_and_not_without_end(bundle: Bundle) -> None:
    """A loop over a thousand files gives a handful of lines, the repeated one only once."""
    same = "cat: /etc/shadow: Permission denied\n" * 500
    assert len(explain(bundle, "observe", same)) == 1
    many = "".join(f"touch: cannot touch '/etc/{n}': Read-only file system\n" for n in range(500))
    assert len(explain(bundle, "observe", many)) == DENIALS_MAX


def test_control_characters_do_not_reach_the_reader(bundle: Bundle) -> None:
    """What is quoted cannot move a cursor or pretend to be another line of ours."""
    (found,) = explain(bundle, "observe", "\x1b[2Jcat: /etc/shadow: Permission denied\r\x07")
    assert found.text.isprintable()


def test_a_long_line_is_not_quoted_in_part(bundle: Bundle) -> None:
    """Half a secret is not redacted by anybody: a line is quoted whole or not at all."""
    secret = "s3cret" * 60
    (found,) = explain(bundle, "observe", f"cat: /etc/shadow: Permission denied (token {secret})")
    assert "s3cret" not in found.text
    assert "a line of " in found.text
    assert explain(bundle, "observe", "cat: /etc/shadow: Permission denied" + "x" * 5_000) == ()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(
        st.sampled_from(
            ["Permission denied", "Read-only file system", "'/etc/x'", "/proc/1/mem", "connect", "port 99999", ":443",
             "No such file or directory", "\x00", "kill: (1)", "fork:", "Resource temporarily unavailable", "''", "‘/’",
             "No space left on device", "/" * 2000, "../../..", "\ud800", "port 0"]
        ) | st.text(max_size=12),
        max_size=12,
    ),
    profile=st.sampled_from(["isolate", "observe", "operate", "small", "unknown"]),
)  # fmt: skip
def test_any_text_gives_bounded_hints(bundle: Bundle, words: list[str], profile: str) -> None:
    """Whatever a program prints, the answer is short, printable, and certain of nothing."""
    found = explain(bundle, profile, " ".join(words))
    assert len(found) <= DENIALS_MAX
    assert not any(one.certain for one in found)
    assert all(len(one.text) < 4_000 for one in found)


@pytest.mark.parametrize(
    ("path", "directory", "found"),
    [
        ("x", "/srv/w", "/srv/w/x"), ("../x", "/srv/w", "/srv/x"), ("/var/run/docker.sock", "/", "/run/docker.sock"),
        ("//etc//passwd", "/", "/etc/passwd"), ("../../../..", "/srv", "/"), ("/var/running", "/", "/var/running"),
    ],
)  # fmt: skip
def test_paths_are_made_normal(path: str, directory: str, found: str) -> None:
    """Relative to where the command stood, without dots, and by the name that the plan uses."""
    assert normal_path(path, directory=directory) == found


@pytest.mark.parametrize(
    ("profile", "path", "access", "layer"),
    [
        ("observe", "/etc/passwd", "read", None), ("observe", "/etc/passwd", "write", "mount_view"),
        ("observe", "/tmp/x", "write", None), ("observe", "/dev/null", "write", None),
        ("observe", "/run/dbus", "read", "mount_view"), ("observe", "/proc/self/mem", "read", None),
        ("operate", "/etc/passwd", "write", None), ("operate", "/etc/shadow", "read", "mount_view"),
        ("operate", "/sys/x", "write", "mount_view"), ("isolate", "/bin/sh", "read", None),
        ("isolate", "/bin/sh", "write", "mount_view"), ("isolate", "/opt/x", "read", "mount_view"),
        ("isolate", "/etc/passwd", "read", None), ("isolate", "/etc", "read", None),
    ],
)  # fmt: skip
def test_judge_path(bundle: Bundle, profile: str, path: str, access: str, layer: str | None) -> None:
    """The layer that refuses, or none, for paths of every kind of step."""
    refusal = judge_path(bundle.profiles[profile], path, access)
    assert (None if refusal is None else refusal.layer) == layer


def test_workspace_is_writable_everywhere(bundle: Bundle) -> None:
    """The one place where work is kept is refused by no profile."""
    for plan in bundle.profiles.values():
        assert judge_path(plan, f"{bundle.workspace}/x", "write") is None
