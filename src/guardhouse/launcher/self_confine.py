"""The steps by which one of our own processes gives up what it does not need, in order.

Runner, keeper, launcher, monitor and init call this once: as late in their start as they can, before a byte from
outside is parsed. What each gives up is data in `sandbox/processes/`, compiled into the bundle. A step that fails is a
start that fails; what a host cannot give was settled when the plan was compiled.

Knows one plan. Runs in those five processes.
"""

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardhouse.errors import InvariantError, SetupError
from guardhouse.kernel import credentials, seccomp
from guardhouse.kernel.syscalls import ARCHITECTURE
from guardhouse.launcher.enter_landlock import enter_landlock
from guardhouse.sandbox.bundle import Bundle, ProcessPlan

__all__ = ["SELF_STEPS", "SelfStep", "confine_process", "give_up_gains", "plan_of"]

# The kernel's overflow id, which every distribution calls nobody.
_NOBODY: Final = 65534


@dataclass(frozen=True, slots=True)
class SelfStep:
    """One step; ``layer`` is the name that a profile's ``requires`` and ``doctor`` use."""

    name: str
    layer: str
    run: Callable[[ProcessPlan], None]
    why: str


def plan_of(bundle: Bundle, name: str) -> ProcessPlan:
    """Return the plan of our own process ``name``.

    Raises:
        SetupError: the bundle has none, so the process would run without its wall.
    """
    plan = bundle.processes.get(name)
    if plan is None:
        raise SetupError(f"the bundle says nothing of process {name!r}; compile it with this version of guardhouse")
    return plan


def give_up_gains(plan: ProcessPlan) -> None:
    """Empty the bounding set, as the plan says: what only a process that still has privileges can do.

    For a process that is about to become an ordinary account; `confine_process` does it for every other.
    """
    _drop_bounding_set(plan)


def _set_rlimits(plan: ProcessPlan) -> None:
    for name, (soft, hard) in plan.rlimits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if not isinstance(number, int):
            raise SetupError(f"this Python knows no limit {name!r}; setrlimit(2) lists them")
        _, hard_now = resource.getrlimit(number)
        hard_new = hard if hard_now == resource.RLIM_INFINITY else min(hard, hard_now)
        resource.setrlimit(number, (min(soft, hard_new), hard_new))


def _drop_bounding_set(plan: ProcessPlan) -> None:
    # An ordinary user may not shrink it (capabilities(7)); with no_new_privs it gives nothing to anybody then.
    if credentials.permitted_capabilities() & credentials.capability_mask(("setpcap",)):
        kept = credentials.capability_mask(plan.capabilities) if plan.bounding_kept else 0
        credentials.drop_bounding_set(kept=kept)


def _become_nobody(plan: ProcessPlan) -> None:
    if plan.becomes_nobody and os.geteuid() == 0:
        credentials.leave_root(_NOBODY, _NOBODY)
        # A change of ids clears both; whoever becomes nobody is a child that dies with its parent.
        credentials.set_parent_death_signal(signal.SIGKILL)
        credentials.set_dumpable(dumpable=False)


def _keep_capabilities(plan: ProcessPlan) -> None:
    mask = credentials.capability_mask(plan.capabilities)
    credentials.keep_capabilities_only(mask)
    if credentials.permitted_capabilities() & ~mask:
        raise SetupError("a capability is left that was to be dropped")


def _set_no_new_privs(_plan: ProcessPlan) -> None:
    credentials.set_no_new_privs()


def _enter_landlock(plan: ProcessPlan) -> None:
    if plan.landlock is None:
        return
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise InvariantError(f"a Landlock domain is for one thread and those it makes; there are {len(threads)}")
    enter_landlock(plan.landlock)


def _install_filter(plan: ProcessPlan) -> None:
    program = plan.programs.get(ARCHITECTURE)
    if program is None:
        raise SetupError(f"the plan has no filter for {ARCHITECTURE}; it has {sorted(plan.programs)}")
    seccomp.install_for_process(program)


# Order is the design: each step takes away the means to undo the ones before it.
SELF_STEPS: Final = (
    SelfStep("rlimits", "rlimits", _set_rlimits, why="lowered while nothing forbids it; they cannot be raised again"),
    SelfStep("bounding set", "capabilities", _drop_bounding_set, why="needs a capability that the next step drops"),
    SelfStep("nobody", "capabilities", _become_nobody, why="uid 0 owns the host's files, whatever its capabilities"),
    SelfStep("capabilities", "capabilities", _keep_capabilities, why="only those that the profile gives a reason for"),
    SelfStep("no_new_privs", "no_new_privs", _set_no_new_privs, why="the next two require it of an ordinary user"),
    SelfStep("landlock", "landlock", _enter_landlock, why="its own calls are not in every filter"),
    SelfStep("seccomp", "seccomp", _install_filter, why="last, since it forbids some of the calls used above"),
)


def confine_process(plan: ProcessPlan) -> None:
    """Do every step: the calling process, every thread of it, is confined for good.

    Raises:
        SetupError: a layer could not be put up; the caller ends the process. Its message names layer and process.
    """
    for step in SELF_STEPS:
        try:
            step.run(plan)
        except (OSError, SetupError) as error:
            raise SetupError(
                f"{step.layer}: process {plan.name!r} cannot confine itself at step {step.name!r}: {error};"
                " it does not run without"
            ) from error
