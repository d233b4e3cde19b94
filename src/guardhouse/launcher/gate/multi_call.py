"""Files that are several programs in one: which of them runs depends on what the file is called by, or its first word.

Reviewed data. Runs in the exec gate's monitor.
"""

from collections.abc import Set as AbstractSet
from typing import Final

__all__ = ["COREUTILS_OPTIONS", "MULTI_CALL", "other_readings"]

# Names of files that do something else under each of their names, by argv[0]: only the name called by counts for them.
# For every other file with several names (python3 and python3.11, awk and mawk) a rule about one is about the file.
MULTI_CALL: Final = frozenset(
    {
        *("busybox", "toybox", "coreutils"),  # every applet in one file
        *("systemctl", "halt", "poweroff", "reboot", "shutdown"),  # systemctl(1), "COMPATIBILITY"
        *("kmod", "lsmod", "modinfo", "modprobe", "insmod", "rmmod", "depmod"),  # kmod(8)
        *("pgrep", "pkill", "pidwait"),  # procps: pkill is pgrep that signals
        *("killall5", "pidof"),  # sysvinit-utils
        *("lvm", "lvs", "vgs", "pvs"),  # lvm(8)
        *("xtables-nft-multi", "xtables-legacy-multi"),  # iptables and its relatives
        *("sudo", "sudoedit"),
        *("git", "git-receive-pack", "git-upload-archive", "git-upload-pack"),  # git.c, cmd_main
        *("xz", "unxz", "xzcat", "lzma", "unlzma", "lzcat"),
        *("bzip2", "bunzip2", "bzcat"),
        *("vim.basic", "vim.tiny", "view", "rview", "rvim", "ex"),  # vim(1): by name read-only or restricted
        *("bash", "rbash"),
        *("unzip", "zipinfo"),
        *("mtools", "mdir", "mcopy", "mdel"),
    }
)

# git.c, cmd_main: called as git-push, git is "git push".
_SUBCOMMAND_BEHIND: Final = {"git": "git-"}
# Programs that become the one that their first word names: lvm(8), kmod(8), xtables-nft(8).
_FIRST_WORD: Final = frozenset({"lvm", "kmod", "xtables-nft-multi", "xtables-legacy-multi"})
# GNU coreutils built with --enable-single-binary; that of uutils takes the program as its first word, as busybox does.
COREUTILS_OPTIONS: Final = ("--coreutils-prog=", "--coreutils-prog-shebang=")


def other_readings(argv: tuple[str, ...], names: AbstractSet[str]) -> list[tuple[str, ...]]:
    """Return the argument vectors that a file with these names makes of ``argv`` by itself; empty for most. Pure.

    ``("git-push", "x")`` of git is ``("git", "push", "x")``; ``("lvm", "lvremove", "x")`` of lvm is
    ``("lvremove", "x")``; ``("coreutils", "rm", "x")`` of coreutils is ``("rm", "x")``.
    """
    if not argv:
        return []
    called, words = argv[0].removeprefix("-").rpartition("/")[2], argv[1:]
    found: list[tuple[str, ...]] = []
    for host, beginning in _SUBCOMMAND_BEHIND.items():
        if host in names and called.startswith(beginning) and called != beginning:
            found.append((host, called.removeprefix(beginning), *words))
    if names & _FIRST_WORD and words:
        found.append((words[0].rpartition("/")[2], *words[1:]))
    if "coreutils" in names and words:
        if words[0].startswith(COREUTILS_OPTIONS):
            found.append((words[0].partition("=")[2].rpartition("/")[2], *words[1:]))
        elif called == "coreutils" or called not in names:
            found.append((words[0].rpartition("/")[2], *words[1:]))
    return found
