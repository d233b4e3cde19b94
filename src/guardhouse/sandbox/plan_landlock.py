"""Landlock rules that follow from a view: read and execute everywhere, write where a step is writable.

The second line behind the mount view: it says the same thing by other means. Cut to the ABI of the host.
Knows access names, not their bits. Runs at boot and in the CLI.
"""

from typing import Final

from guardhouse.sandbox.bundle import LandlockPlan, MountStep, PathRule, PortRule
from guardhouse.sandbox.profile import Profile

__all__ = ["ACCESS_SINCE", "NEWEST_ABI", "READ_ACCESS", "SCOPE_SINCE", "WRITE_ACCESS", "plan_landlock"]

# The newest ABI this list was checked against; Linux 6.18 reports 7 (which added audit switches, no access).
NEWEST_ABI: Final = 7

# linux/landlock.h LANDLOCK_ACCESS_FS_*, with the ABI that brought each (kernel docs, userspace-api/landlock.rst).
ACCESS_SINCE: Final = {
    "execute": 1,
    "write_file": 1,
    "read_file": 1,
    "read_dir": 1,
    "remove_dir": 1,
    "remove_file": 1,
    "make_char": 1,
    "make_dir": 1,
    "make_reg": 1,
    "make_sock": 1,
    "make_fifo": 1,
    "make_block": 1,
    "make_sym": 1,
    "refer": 2,
    "truncate": 3,
    "ioctl_dev": 5,
}
_NETWORK_SINCE: Final = 4
SCOPE_SINCE: Final = {"abstract_unix_socket": 6, "signal": 6}

READ_ACCESS: Final = ("execute", "read_file", "read_dir")
# Everything but device nodes and requests to devices.
WRITE_ACCESS: Final = tuple(name for name in ACCESS_SINCE if name not in {"make_char", "make_block", "ioctl_dev"})
_DEVICES: Final = ("read_file", "read_dir", "write_file", "truncate", "ioctl_dev")


def plan_landlock(profile: Profile, mounts: tuple[MountStep, ...], *, abi: int) -> LandlockPlan | None:
    """Return the ruleset for a view, or None where the kernel has less than the profile's minimum.

    Args:
        profile: for its ports and minimum ABI.
        mounts: the finished steps.
        abi: the host's, 0 for none.
    """
    if abi < max(profile.landlock_minimum_abi, 1):
        return None
    abi = min(abi, NEWEST_ABI)

    def known(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if ACCESS_SINCE[name] <= abi)

    paths = [PathRule("/", known(READ_ACCESS), optional=False)]
    for step in mounts:
        if step.kind == "dev":
            paths.append(PathRule(step.target, known(_DEVICES), optional=step.optional))
        elif _is_writable(step):
            paths.append(PathRule(step.target, known(WRITE_ACCESS), optional=step.optional))
    ports = profile.network.ports if abi >= _NETWORK_SINCE else ()
    by_port: dict[int, list[str]] = {}
    for port in ports:
        by_port.setdefault(port.port, []).append(f"{port.direction}_tcp")
    handled_net: tuple[str, ...] = ()
    if profile.network.mode == "ports" and abi >= _NETWORK_SINCE:
        handled_net = ("bind_tcp", "connect_tcp")
    elif profile.network.mode == "domains" and abi >= _NETWORK_SINCE:
        # Its network namespace holds nothing else: this says the same by other means.
        handled_net = ("connect_tcp",)
        by_port.setdefault(profile.network.proxy_port, []).append("connect_tcp")
    return LandlockPlan(
        abi=abi,
        minimum_abi=profile.landlock_minimum_abi,
        handled_fs=known(tuple(ACCESS_SINCE)),
        handled_net=handled_net,
        scoped=tuple(name for name, since in SCOPE_SINCE.items() if since <= abi),
        paths=tuple(paths),
        ports=tuple(PortRule(port, tuple(sorted(set(access)))) for port, access in sorted(by_port.items())),
    )


def _is_writable(step: MountStep) -> bool:
    return step.kind == "bind" or (step.kind == "tmpfs" and "readonly" not in step.options)
