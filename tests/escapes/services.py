"""Attacks by way of other people's services: what would run or do something for a command outside its wall.

Same form and placeholders as in `table.py`. A program that is not installed here counts as refused with ENOENT, and its
twin says so. Where neither systemd nor a bus runs these show that no program brings its own privilege with it (set-user-id
bits of at, crontab, su, sudo and pkexec); what polkit says to a command of `observe` is the host's matter (docs/sandbox.md).
"""

# ruff: noqa: E501 - a row is one line of thought; broken script text reads worse

from .table import EACCES, ENOENT, EPERM, X86, Attack

__all__ = ["SERVICES"]

# Spools in a mount namespace of the twin's own, and an account that is not root: the program's own privilege does it.
_SPOOL = (
    'import shutil\n    if not shutil.which("{name}"): return "not installed"\n    '
    'at = os.stat("{spool}"); call("mount", "tmpfs", "{spool}", "tmpfs", 0, "mode=0")\n    '
    'os.chown("{spool}", at.st_uid, at.st_gid); os.chmod("{spool}", at.st_mode & 0o7777)\n    '
    # at(1) counts its jobs there and does not make the file.
    'open("{spool}/.SEQ", "w").close(); os.chown("{spool}/.SEQ", at.st_uid, at.st_gid)\n    '
)
# at(1) of Debian refuses most accounts of the system in /etc/at.deny, this one not.
_AS_ACCOUNT = '["setpriv", "--reuid=uucp", "--regid=uucp", "--clear-groups", *{words}]'
_JOBS = {
    # name: (words, what it reads, spool, what the twin's spool must hold one of in the end)
    "crontab": (["crontab", "-"], "* * * * * true\n", "/var/spool/cron/crontabs"),
    "at": (["at", "now + 1 day"], "true\n", "/var/spool/cron/atjobs"),
}
_CALLS = {
    "systemd-run": ["systemd-run", "--no-ask-password", "--wait", "true"],
    "systemd-run-user": ["systemd-run", "--user", "--no-ask-password", "true"],
    "systemd-run-scope": ["systemd-run", "--scope", "--no-ask-password", "true"],
    "loginctl-linger": ["loginctl", "--no-ask-password", "enable-linger"],
    "loginctl-terminate": ["loginctl", "--no-ask-password", "terminate-user", "root"],
    "machinectl-shell": ["machinectl", "--no-ask-password", "shell", ".host", "/bin/true"],
    "hostnamectl": ["hostnamectl", "--no-ask-password", "set-hostname", "guardhouse-escape"],
    "timedatectl": ["timedatectl", "--no-ask-password", "set-ntp", "false"],
    "busctl-transient-unit": [
        *("busctl", "--system", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
        *("org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"),
        *("guardhouse-escape.service", "fail", "0", "0"),
    ],
    "busctl-user": ["busctl", "--user", "list"],
    "dbus-send-reboot": [
        *("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.login1", "/org/freedesktop/login1"),
        *("org.freedesktop.login1.Manager.Reboot", "boolean:false"),
    ],
    "gdbus-user": [
        *("gdbus", "call", "--session", "--dest", "org.freedesktop.DBus", "--object-path", "/"),
        *("--method", "org.freedesktop.DBus.ListNames"),
    ],
    "pkexec": ["pkexec", "--disable-internal-agent", "true"],
    "su": ["su", "-c", "true"],
    "sudo": ["sudo", "-n", "true"],
}
_HARMLESS = {
    "dbus-send": ["dbus-uuidgen"],
    "gdbus": ["gdbus", "help"],
    # It says nothing at all without its set-user-id bit.
    "sudo": ["test", "-x", "/usr/bin/sudo"],
}
_RAW = {
    # Where the daemons behind those programs listen.
    "cron-socket": "/run/cron.sock",
    "dbus-user-by-own-id": "/run/user/%d/bus",
    "polkit-agent-helper": "/run/polkit/agent-helper.socket",
    "systemd-notify": "/run/systemd/notify",
    "systemd-userdb": "/run/systemd/userdb/io.systemd.Machine",
    "systemd-journal-gateway": "/run/systemd/journal/io.systemd.journal",
    "systemd-oom": "/run/systemd/oom/io.systemd.ManagedOOM",
    "gpg-agent": "/run/user/%d/gnupg/S.gpg-agent",
    "ssh-agent": "/run/user/%d/openssh_agent",
    "pipewire": "/run/user/%d/pipewire-0",
    "x11-socket": "/tmp/.X11-unix/X0",
}


def _rows() -> list[Attack]:
    rows = [
        Attack(
            f"job-by-{name}",
            f"return program({words!r}, {text!r})",
            (EACCES, EPERM, ENOENT),
            _SPOOL.format(name=name, spool=spool)
            + f'program({_AS_ACCOUNT.format(words=words)}, {text!r}); return [n for n in os.listdir("{spool}") if n != ".SEQ"][0]',
            where="outside_private",
        )
        for name, (words, text, spool) in _JOBS.items()
    ]
    rows += [
        Attack(
            f"service-{name}",
            f"return program({words!r})",
            (EACCES, EPERM, ENOENT),
            # The program itself runs in there: it is who it asks that says no, or is not there.
            f"import shutil; return program({_HARMLESS.get(words[0], [words[0], '--version'])!r})"
            f' if shutil.which({words[0]!r}) else "not installed"',
        )
        for name, words in _CALLS.items()
    ]
    rows += [
        Attack(
            f"service-socket-{name}",
            f'return socket.socket(1, 1).connect("{path}".replace("%d", str(os.getuid())))',
            (ENOENT, EACCES, EPERM, "ECONNREFUSED"),
            'a = socket.socket(1, 1); a.bind("/tmp/own"); a.listen(); '
            'b = socket.socket(1, 1).connect("/tmp/own"); os.unlink("/tmp/own"); return b',
        )
        for name, path in _RAW.items()
    ]
    rows.append(
        Attack(
            "every-32-bit-call",
            # mov eax, number; int 0x80; ret: from exit(1) to the newest, in a child each that must be killed.
            "import signal; got = []\n    for number in range(1, 470, 7):\n        pid = os.fork()\n"
            "        if pid == 0:\n            run_machine_code(b'\\xb8' + struct.pack('i', number) + b'\\xcd\\x80\\xc3')\n"
            "            os._exit(0)\n"
            "        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGSYS: got.append(number)\n"
            '    if got: return got\n    raise OSError(errno.EPERM, "")',
            (EPERM,),
            'return run_machine_code(bytes.fromhex("b827000000" "0f05" "c3"))',
            machines=X86,
        )
    )
    return rows


SERVICES: tuple[Attack, ...] = tuple(_rows())
