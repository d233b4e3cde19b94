"""The ways out by way of a live systemd: its manager, buses, polkit, journal, sockets, credentials and groups.

What is claimed: from inside isolate, observe and operate, started as root and as an account, nothing that systemd or
its daemons do for others can be had; each attempt succeeds outside, as root, where it is harmless; and what observe is
for works. (A bus lets everybody call ReloadConfig, which reads root's own files again; no attack.)
"""

# ruff: noqa: E501 - a row is one line of thought; broken command text reads worse

import json
import os
import pwd
import subprocess
from pathlib import Path

from checks import GUARDHOUSE, Checks

VICTIM = "guardhouse-victim.service"
MARKER = Path("/run/guardhouse-escaped")
CLOSED, ALL = ("isolate", "observe"), ("isolate", "observe", "operate")
_MANAGER = "busctl --no-pager call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
_LOGIN = "busctl --no-pager call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
_BUS = "busctl --no-pager call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus"

# name: shell text that must fail inside. Those of OUTSIDE succeed outside as root.
ATTACKS = {
    "systemd-run": f"systemd-run -q --no-ask-password --wait touch {MARKER}",
    "systemd-run --scope": "systemd-run -q --no-ask-password --scope true",
    "systemd-run --user": f"systemd-run -q --user touch {MARKER}",
    "transient unit by bus": f'{_MANAGER} StartTransientUnit "ssa(sv)a(sa(sv))" x.service fail 1 ExecStart "a(sasb)" 1 /bin/true 1 /bin/true false 0',
    "start unit by bus": f"{_MANAGER} StartUnit ss rescue.target replace",
    "kill unit by bus": f"{_MANAGER} KillUnit ssi {VICTIM} all 9",
    "environment of the manager": f"{_MANAGER} SetEnvironment as 1 LD_PRELOAD=/tmp/x.so",
    "dump of the manager": f"{_MANAGER} Reexecute",
    "attach processes": f'{_MANAGER} AttachProcessesToUnit ssau {VICTIM} "" 1 $$',
    "systemctl stop": f"systemctl --no-ask-password stop {VICTIM}",
    "systemctl restart": f"systemctl --no-ask-password restart {VICTIM}",
    "systemctl kill": f"systemctl --no-ask-password kill -s USR1 {VICTIM}",
    "systemctl set-property": f"systemctl --no-ask-password --runtime set-property {VICTIM} CPUWeight=7",
    "systemctl mask": f"systemctl --no-ask-password --runtime mask {VICTIM}",
    "systemctl link": "echo > x.service && systemctl --no-ask-password --runtime link $PWD/x.service",
    "systemctl edit by file": f"mkdir -p /run/systemd/system/{VICTIM}.d && touch /run/systemd/system/{VICTIM}.d/x.conf",
    "systemctl daemon-reload": "systemctl --no-ask-password daemon-reload",
    "systemctl freeze": f"systemctl --no-ask-password freeze {VICTIM}",
    "systemctl bind": f"systemctl --no-ask-password bind {VICTIM} $PWD /mnt",
    "systemctl --user": "systemctl --user --no-ask-password start x.service",
    "loginctl enable-linger": "loginctl --no-ask-password enable-linger root",
    "loginctl terminate-user": "loginctl --no-ask-password terminate-user root",
    "login1 PowerOff": f"{_LOGIN} PowerOffWithFlags t 0",
    "login1 Inhibit": f"{_LOGIN} Inhibit ssss shutdown x x block",
    "login1 SetWallMessage": f"{_LOGIN} SetWallMessage sb x true",
    "login1 CreateSession": f'{_LOGIN} CreateSession "uusssssussbssa(sv)" 0 0 x tty user "" seat0 0 tty1 "" false "" "" 0',
    "hostnamectl": "hostnamectl --no-ask-password set-hostname guardhouse-escaped",
    "timedatectl": "timedatectl --no-ask-password set-timezone UTC",
    "bus activation environment": f"{_BUS} UpdateActivationEnvironment a{{ss}} 1 X Y",
    "bus name of the system": f"{_BUS} RequestName su org.freedesktop.systemd1 4",
    "bus monitor": "timeout 5 busctl monitor --limit-messages=1",
    "pkexec": f"pkexec --disable-internal-agent touch {MARKER}",
    "pkcheck": "pkcheck --action-id org.freedesktop.systemd1.manage-units --process $$",
    "polkit agent": 'busctl call org.freedesktop.PolicyKit1 /org/freedesktop/PolicyKit1/Authority org.freedesktop.PolicyKit1.Authority RegisterAuthenticationAgent "(sa{sv})ss" unix-process 2 pid u 1 start-time t 1 C /x',
    "udevadm trigger": "udevadm trigger --action=add /sys/class/net/lo && false || echo > /sys/class/net/lo/uevent",
    "udevadm control": "udevadm control --reload",
    "udev rule": "mkdir -p /run/udev/rules.d && touch /run/udev/rules.d/x.rules",
    "tmpfiles": "touch /run/tmpfiles.d/x.conf || touch /etc/tmpfiles.d/x.conf",
    "unit in /etc": "touch /etc/systemd/system/x.service",
    "cron table": "touch /etc/cron.d/x || touch /var/spool/cron/x",
    "credentials of services": "cat /run/credentials/*/*",
    "encrypted credential": "cat /var/lib/systemd/credential.secret",
    "own group": "echo $$ > /sys/fs/cgroup/cgroup.procs",
    "group of a service": f"echo $$ > /sys/fs/cgroup/system.slice/{VICTIM}/cgroup.procs",
    "freeze of a service": f"echo 1 > /sys/fs/cgroup/system.slice/{VICTIM}/cgroup.freeze",
    "kill of a service": f"echo 1 > /sys/fs/cgroup/system.slice/{VICTIM}/cgroup.kill",
    "new group": "mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/system.slice/x || mkdir /sys/fs/cgroup/user.slice/x",
    "journal removed": "rm /run/log/journal/*/system.journal || rm /var/log/journal/*/system.journal",
    "journal rotate": "journalctl --rotate",
    "coredumps": "ls /var/lib/systemd/coredump/* /var/crash/*",
}  # fmt: skip
# Where the daemons listen: (path, type, profiles that may not connect).
SOCKETS = (
    ("/run/systemd/private", "stream", ALL), ("/run/systemd/io.system.ManagedOOM", "stream", CLOSED),
    ("/run/systemd/notify", "dgram", CLOSED), ("/run/systemd/journal/socket", "dgram", CLOSED),
    ("/run/systemd/journal/stdout", "stream", CLOSED), ("/run/systemd/journal/dev-log", "dgram", CLOSED),
    ("/run/systemd/userdb/io.systemd.DynamicUser", "stream", CLOSED), ("/run/udev/control", "seqpacket", ALL),
    ("/run/user/0/bus", "stream", ALL), ("/run/user/1000/bus", "stream", ALL),
    ("/run/user/1000/systemd/private", "stream", ALL), ("/run/user/1000/systemd/notify", "dgram", ALL),
    ("/dev/log", "dgram", ALL), ("/run/dbus/system_bus_socket", "stream", ("isolate",)),
)  # fmt: skip
CONNECT = (
    "import socket, sys; "
    "socket.socket(socket.AF_UNIX, getattr(socket, 'SOCK_' + sys.argv[2].upper())).connect(sys.argv[1])"
)
# What succeeds outside as root, and harms nothing.
OUTSIDE = (
    "systemd-run", "systemd-run --scope", "systemctl restart", "systemctl kill", "systemctl set-property",
    "systemctl daemon-reload", "systemctl freeze", "loginctl enable-linger", "login1 SetWallMessage", "timedatectl",
    "pkcheck", "pkexec", "udev rule", "unit in /etc", "group of a service", "new group", "journal rotate",
)  # fmt: skip
# What observe is for.
OBSERVE = {
    "systemctl status": f"systemctl status {VICTIM} | grep -q 'active (running)'",
    "systemctl show": f"systemctl show -p MainPID {VICTIM} | grep -q '=[1-9]'",
    "systemctl list-units": "systemctl list-units --no-pager | grep -q guardhouse-victim",
    "systemctl is-active": f"systemctl is-active -q {VICTIM}",
    "journalctl": f"journalctl --no-pager -q -u {VICTIM} | grep -q 'I am here'",
    "loginctl": "loginctl list-users --no-pager",
    "busctl": "busctl --no-pager list | grep -q org.freedesktop.systemd1",
    "hostnamectl": "hostnamectl status --json=short | grep -q Debian",
    # ps itself needs the host to have its number, which a container may not arrange (docs/sandbox.md).
    "processes": "grep -qa 98765 /proc/[0-9]*/cmdline",
}


def run_outside(text: str) -> subprocess.CompletedProcess[str]:
    """Run a shell text as this job."""
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False, timeout=60, cwd="/tmp")


def run_inside(profile: str, user: str, texts: dict[str, str]) -> dict[str, int]:
    """Run every text in one sandbox; return the exit status of each, 124 for one that hung."""
    entry = pwd.getpwnam(user)
    lines = "".join(f"timeout 20 sh -c {_quoted(text)} >&2; echo {_quoted(name)}=$?\n" for name, text in texts.items())
    done = subprocess.run(
        [GUARDHOUSE, "sandbox", "try", "--timeout", "600", profile, "--", "sh", "-c", lines],
        capture_output=True,
        text=True,
        check=False,
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[group for group in os.getgrouplist(user, entry.pw_gid) if group],
        env={**os.environ, "HOME": entry.pw_dir},
        stdin=subprocess.DEVNULL,
        cwd="/",
    )
    found = {}
    for line in done.stdout.splitlines():
        name, separator, status = line.rpartition("=")
        if separator and name in texts:
            found[name] = int(status)
    if found.keys() != texts.keys():
        print(f"  said {done.stdout[-500:]!r} {done.stderr[-2000:]!r}", flush=True)
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _connect(path: str, kind: str) -> str:
    return f"python3 -I -c {_quoted(CONNECT)} {path} {kind}"


def state() -> dict[str, str]:
    """What an attack that went through would have changed."""
    show = run_outside(f"systemctl show {VICTIM} -p MainPID -p CPUWeight -p FreezerState -p ActiveState -p NRestarts")
    return {
        "unit": show.stdout,
        "host name": run_outside("cat /proc/sys/kernel/hostname /etc/hostname").stdout,
        "environment": run_outside("systemctl show-environment").stdout,
        "lingering": run_outside("ls /var/lib/systemd/linger").stdout,
        "groups": run_outside("find /sys/fs/cgroup -name x -type d").stdout,
        "units": run_outside("ls -A /etc/systemd/system /run/systemd/system /run/systemd/transient /run/udev/rules.d").stdout,
        "marker": str(MARKER.exists()),
    }  # fmt: skip


def start_victim() -> None:
    """A service to be attacked, and a user manager with its bus."""
    subprocess.run(
        ["systemd-run", "-q", f"--unit={VICTIM}", "sh", "-c", "trap : USR1; echo I am here; while :; do sleep 98765; done"],
        check=True,
    )  # fmt: skip
    subprocess.run(["usermod", "-aG", "systemd-journal", "person"], check=True)
    subprocess.run(["loginctl", "enable-linger", "person"], check=True)


def try_profile(checks: Checks, profile: str, user: str) -> None:
    """Every attack of one profile and one start, and what must work in it."""
    texts = dict(ATTACKS)
    texts |= {f"connect {path}": _connect(path, kind) for path, kind, closed in SOCKETS if profile in closed}
    before = state()
    found = run_inside(profile, user, texts)
    after = state()
    missing = sorted(texts.keys() - found.keys())
    checks.equal(f"{user}, {profile}: every attempt came to an end", missing, [])
    through = sorted(name for name, status in found.items() if status == 0)
    checks.equal(f"{user}, {profile}: none of {len(texts)} attempts succeeds", through, [])
    checks.equal(f"{user}, {profile}: nothing has changed", after, before)
    if profile == "isolate":
        return
    works = run_inside(profile, user, OBSERVE)
    failed = sorted(name for name in OBSERVE if works.get(name) != 0)
    # As root the command is the service's account, which reads no journal unless somebody puts it into the group.
    expected = [] if user == "person" else ["journalctl"]
    checks.equal(f"{user}, {profile}: looking at systemd works", failed, expected)


def try_outside(checks: Checks) -> None:
    """The twins: as root, outside, the same words do it."""
    for name in OUTSIDE:
        done = run_outside(f"timeout 30 sh -c {_quoted(ATTACKS[name])}")
        checks.that(f"outside, as root: {name} succeeds", done.returncode == 0, (done.returncode, done.stderr[-300:]))
        if name == "systemctl freeze":
            run_outside(f"systemctl thaw {VICTIM}")
    for path, kind, _ in SOCKETS:
        if Path(path).exists():
            checks.that(f"outside, as root: {path} answers", run_outside(_connect(path, kind)).returncode == 0)
    there = [path for path, _, _ in SOCKETS if Path(path).exists()]
    checks.fact("sockets that this host has", there)
    checks.that("most of them are there", len(there) >= 10, there)
    checks.that("the marker was made", MARKER.exists())


def main() -> int:
    """Attack, then show that the attacks would have worked."""
    checks = Checks()
    if os.environ.get("HOST_MODE") == "nspawn":
        # systemd-nspawn covers parts of /proc; the kernel wants an uncovered one for a fresh one in a user namespace.
        Path("/run/uncovered-proc").mkdir(exist_ok=True)
        if not os.path.ismount("/run/uncovered-proc"):
            subprocess.run(["mount", "-t", "proc", "proc", "/run/uncovered-proc"], check=True)
    start_victim()
    for user in ("root", "person"):
        doctor = subprocess.run([GUARDHOUSE, "doctor", "--json"], capture_output=True, text=True, check=False)
        checks.fact(f"{user}: Landlock ABI", json.loads(doctor.stdout)["landlock_abi"])
        for profile in ALL:
            try_profile(checks, profile, user)
    try_outside(checks)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
