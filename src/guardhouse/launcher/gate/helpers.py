"""Which programs an allowed system program may start for its own work, each with its reason. Reviewed data.

Without this, an allow-list would have to name what nobody types: that `zgrep` is a script around `gzip` and `grep`.
Only a file of the trusted path is a helper or has one, and only what is listed: a helper's own children are judged
by the policy again unless the helper is listed itself. Derived from traces on Debian 12. Never on the left: a program
that an argument can tell what to start (find, xargs, tar, git, awk …), and a bash script (BASH_ENV would speak in its
name). Never on the right: a program that changes files or loads another (rm, ld.so).
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["HELPERS", "MULTI_CALL", "Helper"]

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
        *("xz", "unxz", "xzcat", "lzma", "unlzma", "lzcat"),
        *("bzip2", "bunzip2", "bzcat"),
        *("vim.basic", "vim.tiny", "view", "rview", "rvim", "ex"),  # vim(1): by name read-only or restricted
        *("bash", "rbash"),
        *("unzip", "zipinfo"),
        *("mtools", "mdir", "mcopy", "mdel"),
    }
)


@dataclass(frozen=True, slots=True)
class Helper:
    """What one program starts. ``why`` is for the record and for the reviewer."""

    starts: frozenset[str]
    why: str


def _helper(starts: str, why: str) -> Helper:
    return Helper(frozenset(starts.split()), why)


_GZIP: Final = "a shell script of the gzip package around it"
_XZ: Final = "a shell script of the xz-utils package around it"
_BZIP2: Final = "a shell script of the bzip2 package around it"

HELPERS: Final = MappingProxyType(
    {
        "zcat": _helper("gzip", _GZIP),
        "uncompress": _helper("gzip gunzip", _GZIP),
        "gunzip": _helper("gzip", _GZIP),
        "zgrep": _helper("gzip grep sed zgrep egrep fgrep expr", _GZIP),
        "zegrep": _helper("zgrep", _GZIP),
        "zfgrep": _helper("zgrep", _GZIP),
        "xzgrep": _helper("xz grep sed expr egrep fgrep", _XZ),
        "xzegrep": _helper("xzgrep", _XZ),
        "xzfgrep": _helper("xzgrep", _XZ),
        "bzgrep": _helper("bzip2 grep sed", _BZIP2),
        "bzegrep": _helper("bzgrep", _BZIP2),
        "bzfgrep": _helper("bzgrep", _BZIP2),
        "egrep": _helper("grep", "a shell script of the grep package: exec grep -E"),
        "fgrep": _helper("grep", "a shell script of the grep package: exec grep -F"),
        "which": _helper("which.debianutils", "an alternative that is a script of debianutils"),
    }
)
