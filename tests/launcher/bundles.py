"""Bundles for tests, written by hand: the launcher is tested apart from the profiles that ship."""

import functools
import os
import pwd
from dataclasses import replace

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import probe_host
from guardhouse.sandbox.bundle import (
    BUNDLE_VERSION,
    Bundle,
    CgroupLimits,
    Identity,
    LandlockPlan,
    MountStep,
    PathRule,
    ProfilePlan,
)
from guardhouse.sandbox.compile_process import compile_process
from guardhouse.sandbox.facts import LAUNCHING_PROCESSES
from guardhouse.sandbox.load import read_library

TRUSTED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READ = ("execute", "read_file", "read_dir")
WRITE = (
    "write_file",
    "remove_dir",
    "remove_file",
    "make_dir",
    "make_reg",
    "make_sock",
    "make_fifo",
    "make_sym",
    "refer",
    "truncate",
)


def step(kind, source, target, *options, optional=False):
    return MountStep(kind=kind, source=source, target=target, options=options, why="test", optional=optional)


def isolate_mounts(workspace):
    steps = [step("tmpfs", "", "/", "mode=0755", "size=1m", "nosuid", "nodev", "readonly")]
    for path in ("/usr", "/etc"):
        steps.append(step("bind_readonly", path, path, "recursive", "nosuid", "nodev"))
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            steps.append(step("symlink", f"usr/{name}", f"/{name}"))
    steps += [
        step("mask", "", "/etc/shadow", optional=True),
        step("proc", "", "/proc", "nosuid", "nodev", "noexec", "readonly"),
        step("dev", "", "/dev"),
        step("tmpfs", "", "/tmp", "mode=1777", "size=16m", "nosuid", "nodev"),
        step("tmpfs", "", "/dev/shm", "mode=1777", "size=16m", "nosuid", "nodev"),
        step("bind", workspace, workspace, "recursive", "nosuid", "nodev"),
    ]
    return tuple(steps)


def observe_mounts(workspace):
    return (
        step("bind_readonly", "/", "/", "recursive", "nosuid"),
        step("mask", "", "/root", optional=True),
        step("mask", "", "/etc/shadow", optional=True),
        step("tmpfs", "", "/tmp", "mode=1777", "size=16m", "nosuid", "nodev"),
        step("tmpfs", "", "/dev/shm", "mode=1777", "size=16m", "nosuid", "nodev"),
        step("bind", workspace, workspace, "recursive", "nosuid", "nodev"),
    )


def landlock(workspace):
    everywhere = READ
    return LandlockPlan(
        abi=7,
        minimum_abi=1,
        handled_fs=(*READ, *WRITE, "make_char", "make_block"),
        handled_net=(),
        scoped=("abstract_unix_socket", "signal"),
        paths=(
            PathRule("/", everywhere, False),
            PathRule(workspace, (*READ, *WRITE), False),
            PathRule("/tmp", (*READ, *WRITE), False),
            PathRule("/dev/shm", (*READ, *WRITE), False),
            PathRule("/dev", ("write_file", "read_file"), False),
        ),
        ports=(),
    )


def plan(name, mounts, workspace, *, network="none", seccomp=None, count_denials=False, **changes):
    namespaces = {"mount", "pid", "ipc", "uts", "cgroup"}
    if network == "none":
        namespaces.add("net")
    if os.geteuid() != 0:
        namespaces.add("user")
    found = ProfilePlan(
        name=name,
        summary="test",
        namespaces=frozenset(namespaces),
        network=network,
        network_domains=(),
        network_addresses=(),
        is_tls_required=False,
        proxy_port=0,
        mounts=mounts,
        landlock=landlock(workspace),
        seccomp=seccomp or {},
        rlimits={"core": (0, 0), "nofile": (1024, 1024), "nproc": (200, 200)},
        cgroup=CgroupLimits(256 << 20, None, 64, 100, None, None),
        environment={
            "HOME": "/tmp",
            "PATH": TRUSTED_PATH,
            "USER": identity().user_name,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "SHELL": "/bin/bash",
        },
        required_layers=frozenset(),
        proc="own",
        hostname="sandbox",
        tmp_bytes=16 << 20,
        umask=0o022,
        count_denials=count_denials,
        exec_notice="none",
    )
    return replace(found, **changes)


def identity():
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        return Identity(entry.pw_uid, entry.pw_gid, (), "nobody", "/tmp")
    return Identity(os.geteuid(), os.getegid(), (), pwd.getpwuid(os.geteuid()).pw_name, "/tmp")


def bundle(workspace, **changes):
    workspace = str(workspace)
    plans = {
        "isolate": plan("isolate", isolate_mounts(workspace), workspace, **changes),
        "observe": plan("observe", observe_mounts(workspace), workspace, network="host", proc="host", **changes),
    }
    return Bundle(
        version=BUNDLE_VERSION,
        profiles=plans,
        identity=identity(),
        workspace=workspace,
        trusted_path=TRUSTED_PATH,
        processes=processes(),
    )


@functools.cache
def _shipped():
    return read_library(shipped_directory("sandbox")).processes


@functools.cache
def processes():
    """The launcher's own wall is always the shipped one: it does not start without."""
    features = probe_host()
    return {name: compile_process(_shipped()[name], features=features, paths={}) for name in LAUNCHING_PROCESSES}


def make_workspace(directory):
    """Make a workspace that the commands' user owns in ``directory``, which they must be able to cross."""
    found = directory / "workspace"
    found.mkdir(parents=True)
    who = identity()
    if os.geteuid() == 0:
        os.chown(found, who.uid, who.gid)
    return found
