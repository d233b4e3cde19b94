"""Names of files that are several programs in one: which of them runs depends on what the file is called by.

Reviewed data. Runs in the exec gate's monitor.
"""

from typing import Final

__all__ = ["MULTI_CALL"]

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
