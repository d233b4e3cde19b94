"""Files of our own processes: what they must say, and that commands can do under them what their profiles allow."""

import dataclasses
import shutil

import pytest

from guardhouse.errors import SetupError
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.compile_process import check_inheritance, compile_process, lacking_layers, process_rules
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.facts import ProfileUnavailableError, Surroundings
from guardhouse.sandbox.load import list_processes, list_profiles, load_process, load_profile, read_library
from guardhouse.sandbox.profile import LAYERS
from guardhouse.sandbox.rules import ARCHITECTURES, resolve_rules

from .conftest import DIRECTORY, IDENTITY, Host

PATHS = {
    "journal": ("/var/lib/guardhouse/journal",),
    "installation": ("/opt/guardhouse",),
    "certificates": ("/etc/ssl/certs",),
    "resolver": ("/etc",),
}
NAMES = list_processes(DIRECTORY)
INHERITED = ("init", "keeper", "launcher")


def process(name):
    return load_process(name, directory=DIRECTORY)


def calls_of(name, architecture="x86_64"):
    return {rule.call for rule in process_rules(process(name), architecture=architecture).allow}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", INHERITED)
def test_every_profile_can_do_below_what_it_may(name, architecture):
    """No call that a shipped profile allows is refused by a filter that its commands inherit."""
    filters = [resolve_rules(load_profile(item, directory=DIRECTORY), architecture=architecture)
               for item in list_profiles(DIRECTORY)]  # fmt: skip
    check_inheritance(process(name), filters)


def test_a_call_that_is_refused_above_is_an_error_of_the_profile():
    """A profile whose group allows more than the launcher does is refused with both places."""
    observe = load_profile("observe", directory=DIRECTORY)
    rules = resolve_rules(observe, architecture="x86_64")
    wider = dataclasses.replace(rules, allow=(*rules.allow, dataclasses.replace(rules.allow[0], call="bpf")))
    check_inheritance(process("launcher"), [rules])
    with pytest.raises(ProfileError, match="bpf is allowed here, but process 'launcher'"):
        check_inheritance(process("launcher"), [wider])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "call", ["bpf", "io_uring_setup", "keyctl", "kexec_load", "init_module", "reboot", "swapon", "userfaultfd",
             "perf_event_open", "open_by_handle_at", "setns", "process_vm_writev", "clock_settime", "fanotify_init"],
)  # fmt: skip
def test_no_process_of_ours_may(name, call):
    """None of these is in any process's list, so in no command either."""
    assert call not in calls_of(name)


def test_runner_and_monitor_start_nothing():
    """Neither has a way to another program or process; the launcher has (the twin)."""
    for name in ("runner", "monitor"):
        assert not calls_of(name) & {"execve", "execveat", "fork", "vfork", "clone3", "mount", "unshare", "setns"}
    assert "ptrace" not in calls_of("runner")
    assert not calls_of("monitor") & {"socket", "connect", "bind", "clone", "rename", "unlink", "truncate"}
    assert calls_of("launcher") >= {"execve", "clone3", "mount", "unshare"}


def test_groups_of_our_own_are_for_nobody_else(write_profile, library):
    """A profile for commands cannot name a group of processes/syscalls."""
    path = write_profile(
        "mine", "profile: mine\nsummary: s\nextends: isolate\nsyscalls: [{group: slot_making, why: no reason}]\n"
    )
    with pytest.raises(ProfileError, match="unknown group 'slot_making'"):
        load_profile(path, directory=DIRECTORY, library=library)


@pytest.mark.parametrize("layer", ["seccomp", "no_new_privs", "capabilities"])
def test_a_missing_layer_that_is_required_refuses_the_start(layer):
    """The error names process and layer; a layer that it may lack is gone without (the twin)."""
    host = Host(layers={**dict.fromkeys(LAYERS, ""), layer: "not here"})
    with pytest.raises(ProfileUnavailableError, match=f"process launcher.*{layer}"):
        compile_process(process("launcher"), features=host, paths={})
    host = Host(landlock_abi=0, layers={**dict.fromkeys(LAYERS, ""), "landlock": "none here"})
    assert compile_process(process("launcher"), features=host, paths={}).landlock is None


def test_scopes_come_with_abi_6():
    """Below, the launcher goes without a domain, and says so; the runner still has its files."""
    old = Host(landlock_abi=4)
    assert "ABI 6" in lacking_layers(process("launcher"), old)["landlock"]
    assert compile_process(process("launcher"), features=old, paths={}).landlock is None
    plan = compile_process(process("runner"), features=old, paths=PATHS).landlock
    assert (plan.scoped, bool(plan.handled_fs)) == ((), True)
    assert lacking_layers(process("launcher"), Host()) == {}


def test_runner_writes_to_its_journal_alone():
    """Of all paths only the journal and /dev/null are writable, and none of the workspace's is there."""
    plan = compile_process(process("runner"), features=Host(), paths=PATHS).landlock
    assert [rule.path for rule in plan.paths if "write_file" in rule.access] == [*PATHS["journal"], "/dev/null"]
    assert not any("execute" in rule.access for rule in plan.paths)


def test_bundle_without_our_processes_is_refused(tmp_path):
    """A sandbox directory that says nothing of the launcher cannot be compiled; the shipped one can (the twin)."""
    for part in ("profiles", "syscalls", "masks"):
        shutil.copytree(DIRECTORY / part, tmp_path / part)
    for directory, fits in ((DIRECTORY, True), (tmp_path, False)):
        profile = load_profile("isolate", directory=directory)
        arguments = {"identity": IDENTITY, "workspace": "/srv/w", "features": Host(), "trusted_path": "/usr/bin"}
        if fits:
            assert set(compile_bundle([profile], **arguments).processes) == {"launcher", "init", "monitor"}
        else:
            with pytest.raises(SetupError, match="says nothing of our own processes init, launcher, monitor"):
                compile_bundle([profile], **arguments)


def test_runner_and_keeper_are_compiled_when_asked_for():
    """`guardhouse run` names them; whoever forgets the journal gets an error, no wall without it."""
    arguments = {"identity": IDENTITY, "workspace": "/srv/w", "features": Host(), "trusted_path": "/usr/bin"}
    profile = load_profile("isolate", directory=DIRECTORY)
    wanted = frozenset(NAMES)
    found = compile_bundle([profile], around=Surroundings(own_processes=wanted, own_paths=PATHS), **arguments)
    assert set(found.processes) == wanted
    with pytest.raises(ProfileError, match="unknown placeholder"):
        compile_bundle([profile], around=Surroundings(own_processes=wanted), **arguments)


BROKEN = [
    pytest.param("summary: s", "summary: s\nsurprise: 1", "unknown key 'surprise'", id="unknown key"),
    pytest.param("keep: setuid, why: becoming", "keep: root, why: becoming", "unknown word 'root'", id="capability"),
    pytest.param("  - {layer: seccomp,", "  - {layer: cgroup_pids,", "unknown word 'cgroup_pids'", id="layer"),
    pytest.param("bounding: {keep: none, why:", "bounding: {keep: none, reason:", "unknown key", id="reason"),
    pytest.param("files: none", "files: listed", "must name landlock under", id="a layer of which nothing is said"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_a_file_that_cannot_be_honoured_is_refused(tmp_path, old, new, message):
    """Each mistake is named with its place; the file as it is shipped passes (the twin)."""
    directory = tmp_path / "sandbox"
    shutil.copytree(DIRECTORY, directory)
    assert "init" in read_library(directory).processes
    path = directory / "processes" / "init.yaml"
    text = path.read_text().replace("summary: starts commands", "summary: s, starts commands")
    assert old in text
    path.write_text(text.replace(old, new, 1) if old != "summary: s" else text + "surprise: 1\n")
    with pytest.raises(ProfileError, match=message) as caught:
        read_library(directory)
    assert "processes/init.yaml" in caught.value.place


def test_no_crash_starts_a_handler_of_the_host(library):
    """Whatever meets hostile input has a core limit of one byte: at 0 the kernel starts what core_pattern pipes to."""
    shipped = [load_profile(name, directory=DIRECTORY, library=library) for name in list_profiles(DIRECTORY)]
    limits = {profile.name: profile.limits for profile in shipped if profile.name != "base"}
    # The runner cannot be dumped at all (prctl(2) PR_SET_DUMPABLE, set before it reads its token).
    limits["monitor"] = process("monitor").limits
    assert {name: (found["core"].soft, found["core"].hard) for name, found in limits.items()} == dict.fromkeys(
        limits, (1, 1)
    )
