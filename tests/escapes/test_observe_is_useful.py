"""What a host's keeper types works behind `observe`, and no denied call stands behind its success."""

import os
import shutil

import pytest

STARTS = ("root", "user")
COMMANDS = (
    "ps aux", "top -b -n1", "ss -tln", "ss -tlnp", "df -h", "free -m", "uptime", "vmstat", "ip a", "ip route", "lsblk",
    "mount", "w", "lscpu", "nproc", "cat /proc/loadavg", "netstat -tln", "journalctl -n 1 --no-pager", "hostname",
    "uname -a", "id", "du -sh /usr/lib/os-release", "find /etc -maxdepth 1 -name passwd", "getent hosts localhost",
    "git --version", "python3 -c 'import multiprocessing as m; print(m.Pool(2).map(abs, [-1]))'",
    "tar cf /tmp/t.tar /etc/hosts", "gzip -c /etc/hosts", "awk 'BEGIN { print 1 }'", "perl -e 'print 1'",
    "bash -c 'cat <(echo one) <(echo two)'", "mkfifo pipe && rm pipe", "nice -n 5 true", "ionice -c3 true",
    "script -qc 'echo terminal' /dev/null", "sort --parallel=2 /etc/passwd", "openssl version", "date", "env",
)  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_a_host_keeper_works(arena, command, start):
    """It exits with 0 and no system call of it was denied."""
    if start == "root" and os.geteuid() != 0:
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")
    program = command.split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here")
    # A launcher that has started few processes yet: see the last test of this file.
    text, outcome = arena.run("observe", f"{start} fresh", ("bash", "-c", command))
    assert outcome.exit_code == 0, (text[-500:], outcome)
    assert outcome.denied_syscalls == {}, text[-500:]


@pytest.mark.parametrize("start", STARTS)
def test_kernel_log_where_the_host_permits_it(arena, start):
    """`dmesg` is asked of the kernel and not refused by the wall: it says no where kernel.dmesg_restrict does."""
    if start == "root" and os.geteuid() != 0:
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")
    with open("/proc/sys/kernel/dmesg_restrict", encoding="ascii") as setting:
        is_open = setting.read().strip() == "0"
    text, outcome = arena.run("observe", f"{start} fresh", ("bash", "-c", "dmesg"))
    assert (outcome.exit_code == 0) is is_open, text[-500:]
    assert outcome.denied_syscalls == {}


@pytest.mark.parametrize("start", STARTS)
def test_observe_sees_processes_of_the_host_and_isolate_does_not(arena, start):
    """The victim, a process of the host, is listed behind observe and absent behind isolate."""
    if start == "root" and os.geteuid() != 0:
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")
    victim = arena.targets["victim"]
    look = ("bash", "-c", f"tr '\\0' ' ' < /proc/{victim}/cmdline")
    seen, _ = arena.run("observe", start, look)
    hidden, outcome = arena.run("isolate", start, look)
    assert seen == "sleep 86400 "
    assert "No such file" in hidden
    assert outcome.exit_code == 1


def test_ps_works_after_many_processes(arena):
    """Procps finds itself also when commands before this one have counted past the host's small numbers."""
    arena.run("observe", "user fresh", ("bash", "-c", "for n in $(seq 3000); do (:); done"))
    _, outcome = arena.run("observe", "user fresh", ("bash", "-c", "ps aux > /dev/null"))
    assert outcome.exit_code == 0
