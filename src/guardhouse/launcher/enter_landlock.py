"""Put the calling thread under the Landlock rules of a plan.

Knows plans and descriptors; what is in a plan was decided when it was compiled. Runs in the thread that becomes a
command, in workers, and in each of our own processes as it confines itself.
"""

import errno
import os

from guardhouse.kernel import landlock
from guardhouse.sandbox.bundle import LandlockPlan

__all__ = ["enter_landlock"]


def enter_landlock(plan: LandlockPlan) -> None:
    """Make the ruleset of ``plan`` and enter it, for good. Needs no_new_privs.

    Raises:
        OSError: a path that is not optional cannot be opened, or the kernel refuses.
    """
    ruleset_fd = landlock.create_ruleset(handled_fs=plan.handled_fs, handled_net=plan.handled_net, scoped=plan.scoped)
    try:
        for rule in plan.paths:
            try:
                path_fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
            except OSError as error:
                # EACCES: the thread's own user cannot get there either, so there is nothing to allow.
                if rule.optional and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    continue
                raise
            try:
                is_directory = (os.fstat(path_fd).st_mode & 0o170000) == 0o040000
                landlock.allow_path(ruleset_fd, path_fd, rule.access, is_directory=is_directory)
            finally:
                os.close(path_fd)
        for port in plan.ports:
            landlock.allow_port(ruleset_fd, port.port, port.access)
        landlock.restrict_self(ruleset_fd)
    finally:
        os.close(ruleset_fd)
