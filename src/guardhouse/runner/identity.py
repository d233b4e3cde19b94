"""Which user runner and commands run as, and the one-way step from root to it. Runs in the boot process."""

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Final

from guardhouse.errors import InvariantError, SetupError
from guardhouse.runner.preload import import_everything

__all__ = ["Account", "become", "current_account", "resolve_account"]

_DEFAULT_USERS: Final = ("guardhouse", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the kernel sees it, its supplementary groups included."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def current_account() -> Account:
    """Return who this process is."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, gid, tuple(os.getgroups()), "/")
    return Account(entry.pw_name, uid, gid, tuple(os.getgroups()), entry.pw_dir)


def resolve_account(run_as: str | None, *, effective_uid: int) -> Account:
    """Return the account that runner and commands are to run as.

    Args:
        run_as: a user name or number; None means `guardhouse` where that user exists, else `nobody`.
        effective_uid: who started us; anybody but root can only stay who they are.

    Raises:
        SetupError: the user does not exist, is root, or is somebody else and we are not root.
    """
    if effective_uid != 0:
        account = current_account()
        if run_as is not None and run_as not in (account.name, str(account.uid)):
            raise SetupError(
                f"--run-as: only root can run as {run_as!r}, this is {account.name}; start as root or leave it out"
            )
        return account
    for name in (run_as,) if run_as is not None else _DEFAULT_USERS:
        entry = _lookup(name)
        if entry is not None:
            break
    else:
        wanted = repr(run_as) if run_as is not None else "'guardhouse' or 'nobody'"
        raise SetupError(f"--run-as: this host has no user {wanted}; run: useradd --system guardhouse")
    if entry.pw_uid == 0:
        raise SetupError(f"--run-as: {entry.pw_name!r} is root; name an ordinary user")
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    if 0 in groups:
        raise SetupError(
            f"--run-as: {entry.pw_name!r} is in the group {grp.getgrgid(0).gr_name!r}; take it out: gpasswd -d"
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def become(account: Account) -> None:
    """Give up root for ``account``, for good. Without effect for a process that already is that user.

    Raises:
        InvariantError: root could be had back afterwards.
    """
    if os.geteuid() != 0:
        return
    import_everything()
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    try:
        os.setresuid(-1, 0, -1)
    except PermissionError:
        return
    raise InvariantError(f"still able to become root after turning into {account.name}")


def _lookup(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        return None
