"""Plans follow from profile, identity, workspace and host, and from nothing else."""

import dataclasses
import shutil
import subprocess

import pytest

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import EgressGrant, Identity
from guardhouse.sandbox.compare import compare_profiles
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.compiled_text import check_compiled
from guardhouse.sandbox.constants import CONSTANTS
from guardhouse.sandbox.describe import describe_profile, profile_as_data
from guardhouse.sandbox.facts import ProfileUnavailableError, Surroundings
from guardhouse.sandbox.load import list_profiles, load_profile
from guardhouse.sandbox.profile import LAYERS

from .conftest import DIRECTORY, IDENTITY, SHIPPED, Host


def plan(name, *, workspace="/srv/job", host=None, identity=IDENTITY, **around):
    bundle = compile_bundle(
        [load_profile(name, directory=DIRECTORY)],
        identity=identity,
        workspace=workspace,
        features=host or Host(),
        trusted_path="/usr/bin:/bin",
        around=Surroundings(**around),
    )
    return next(iter(bundle.profiles.values()))


def step(found, target):
    return [mount for mount in found.mounts if mount.target == target]


def test_shipped_profiles_are_these():
    """A profile that is added or lost shows here."""
    assert list_profiles(DIRECTORY) == tuple(sorted(SHIPPED))


def test_compiled_texts_are_up_to_date():
    """The committed readable filters are what the profiles give."""
    assert check_compiled(DIRECTORY) == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_description_names_every_entry(name):
    """The words that an operator reads name each mask, group and limit of the profile."""
    profile = load_profile(name, directory=DIRECTORY)
    text = describe_profile(profile)
    for word in [*(mask.path for mask in profile.masks), *profile.syscalls, *profile.limits, *profile.requires]:
        assert word in text
    assert profile_as_data(profile)["name"] == name


@pytest.mark.parametrize("name", ["isolate", "observe", "operate"])
def test_no_shipped_profile_runs_as_root(name):
    """Uid 0, gid 0 and the group root are refused; the ordinary account is not (the twin)."""
    assert plan(name).name == name
    for identity in (
        Identity(0, 0, (), "root", "/root"),
        dataclasses.replace(IDENTITY, gid=0),
        dataclasses.replace(IDENTITY, groups=(0,)),
    ):
        with pytest.raises(SetupError, match="does not run as root"):
            plan(name, identity=identity)


@pytest.mark.parametrize("layer", ["namespaces", "mount_view", "seccomp", "landlock"])
def test_missing_required_layer_refuses_the_profile(layer):
    """The error names profile, layer and what to do; a layer that is not required does not matter (the twin)."""
    missing = Host(
        layers={**dict.fromkeys(LAYERS, ""), layer: "not here"}, landlock_abi=0 if layer == "landlock" else 7
    )
    with pytest.raises(ProfileUnavailableError, match=layer) as caught:
        plan("observe", host=missing)
    assert caught.value.layer == layer
    assert plan("observe", host=Host(layers={**dict.fromkeys(LAYERS, ""), "cgroup_io": "not here"}))


def test_user_namespace_stands_in_for_landlock_before_the_hosts_proc():
    """An ordinary user's observe runs without Landlock, since its user namespace keeps other processes shut."""
    host = Host(privileged=False, landlock_abi=0, layers={**dict.fromkeys(LAYERS, ""), "landlock": "none"})
    found = plan("observe", host=host)
    assert found.landlock is None
    assert "user" in found.namespaces


@pytest.mark.parametrize("workspace", ["/", "relative", "/srv/../etc", "/etc/guardhouse", "/proc/1", "/usr", "/srv//x"])
def test_workspace_must_be_a_place_of_its_own(workspace):
    """The root, parts of the system and spellings that could lead elsewhere are refused."""
    with pytest.raises(SetupError):
        plan("observe", workspace=workspace)


def test_workspace_under_a_mask_is_shown_and_its_neighbours_are_not():
    """/home is covered by a passable empty directory, in which only the workspace appears, after it."""
    found = plan("observe", workspace="/home/worker/space")
    targets = [mount.target for mount in found.mounts]
    (cover,) = step(found, "/home")
    assert cover.kind == "tmpfs"
    assert "readonly" in cover.options
    assert targets.index("/home") < targets.index("/home/worker/space")
    assert step(found, "/root")[0].kind == "mask"


def test_protected_paths_are_masked_even_inside_the_workspace():
    """The runner's own files stay covered: those inside the workspace come after it."""
    found = plan("operate", protected_paths=("/srv/job/state", "/var/lib/guardhouse", "/root/.guardhouse"))
    targets = [mount.target for mount in found.mounts]
    assert targets.index("/srv/job/state") > targets.index("/srv/job")
    assert step(found, "/var/lib/guardhouse")[0].kind == "mask"
    assert not step(found, "/root/.guardhouse")  # /root is covered as a whole


def test_protected_directory_around_the_workspace_shows_the_workspace_only():
    """A state directory that holds the workspace becomes a passable, unlistable, empty directory."""
    found = plan("operate", workspace="/var/lib/guardhouse/ws", protected_paths=("/var/lib/guardhouse",))
    (cover,) = step(found, "/var/lib/guardhouse")
    assert (cover.kind, "mode=0711" in cover.options) == ("tmpfs", True)
    assert step(found, "/var/lib/guardhouse/ws")[0].kind == "bind"


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("abi", range(1, 8))
def test_landlock_writes_only_where_the_view_is_writable(name, abi):
    """Write accesses stand on writable steps only, names are known to the ABI, devices can be made nowhere."""
    found = plan(name, host=Host(landlock_abi=abi))
    assert found.landlock.abi == abi
    writable = {
        m.target for m in found.mounts if m.kind == "bind" or (m.kind == "tmpfs" and "readonly" not in m.options)
    }
    for rule in found.landlock.paths:
        assert not {"make_char", "make_block"} & set(rule.access)
        assert set(rule.access) <= set(found.landlock.handled_fs)
        if "make_reg" in rule.access:
            assert rule.path in writable
    assert bool(found.landlock.scoped) == (abi >= 6)


def test_parameters_replace_numbers_within_bounds():
    """An operator's numbers reach the plan; unknown and impossible ones are refused."""
    found = plan("isolate", parameters={"memory_bytes": 1 << 28, "tmp_bytes": 1 << 20})
    assert found.cgroup.memory_bytes == 1 << 28
    assert any("size=1048576" in mount.options for mount in found.mounts if mount.target == "/tmp")
    for parameters in ({"memory": 1}, {"pids": 0}):
        with pytest.raises(SetupError):
            plan("isolate", parameters=parameters)


def test_process_limit_of_the_account_is_always_planned():
    """Whether a group bounds processes is known when it has been made: until then RLIMIT_NPROC is the plan's bound."""
    assert "nproc" in plan("isolate").rlimits
    assert "nproc" in plan("isolate", host=Host(layers={**dict.fromkeys(LAYERS, ""), "cgroup_pids": "none"})).rlimits


def test_environment_holds_nothing_of_ours():
    """The environment is the profile's, with placeholders filled in."""
    environment = plan("observe").environment
    assert environment["PATH"] == "/usr/bin:/bin"
    assert environment["USER"] == "worker"
    assert not any("{" in value for value in environment.values())


def test_grant_opens_what_it_names_and_comparison_says_so(write_profile, library):
    """A kubeconfig grant under /home is shown read-only and sets KUBECONFIG; the diff calls it widening."""
    path = write_profile(
        "mine",
        "profile: mine\nsummary: s\nextends: observe\n"
        "grant:\n  - {kubeconfig: /home/worker/.kube/config, why: reads the cluster}\n",
    )
    observe, mine = (load_profile(item, directory=DIRECTORY, library=library) for item in ("observe", path))
    changes = compare_profiles(observe, mine)
    assert [(c.direction, c.subject) for c in changes] == [("widens", "grant")]
    assert [c.direction for c in compare_profiles(mine, observe)] == ["narrows"]
    bundle = compile_bundle([mine], identity=IDENTITY, workspace="/srv/job", features=Host(), trusted_path="/usr/bin")
    found = bundle.profiles["mine"]
    assert found.environment["KUBECONFIG"] == "/home/worker/.kube/config"
    assert step(found, "/home/worker/.kube/config")[0].kind == "bind_readonly"
    assert step(found, "/home")[0].kind == "tmpfs"


def test_dropping_a_group_narrows_and_adding_one_widens(write_profile, library):
    """Compare says which way each change goes, for every architecture."""
    path = write_profile(
        "mine", "profile: mine\nsummary: s\nextends: observe\ndrop: [{syscalls: kernel_log, why: no kernel log}]\n"
    )
    observe, mine = (load_profile(item, directory=DIRECTORY, library=library) for item in ("observe", path))
    assert {c.direction for c in compare_profiles(observe, mine)} == {"narrows"}
    assert {c.direction for c in compare_profiles(mine, observe)} == {"widens"}
    assert compare_profiles(observe, observe) == ()


def test_domains_mode_points_programs_to_the_proxy(write_profile, library):
    """Mode domains has a net namespace of its own, the names, and proxy variables for its own loopback."""
    path = write_profile(
        "mine",
        "profile: mine\nsummary: s\nextends: isolate\n"
        "network: {mode: domains, why: packages, domains: [{domain: '*.example.org', why: packages}]}\n",
    )
    mine = load_profile(path, directory=DIRECTORY, library=library)
    bundle = compile_bundle([mine], identity=IDENTITY, workspace="/srv/w", features=Host(), trusted_path="/usr/bin")
    found = bundle.profiles["mine"]
    assert "net" in found.namespaces
    assert found.network_domains == (EgressGrant("*.example.org", (80, 443)),)
    assert found.environment["https_proxy"] == f"http://127.0.0.1:{found.proxy_port}"


def test_constants_are_those_of_the_kernel_headers(tmp_path):
    """Every symbolic constant has the value that this machine's headers give it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler and kernel headers")
    headers = (
        "sched.h", "sys/prctl.h", "linux/prctl.h", "sys/ioctl.h", "linux/fs.h", "linux/fiemap.h", "linux/sockios.h",
        "sys/socket.h", "linux/netlink.h", "sys/stat.h", "fcntl.h", "sys/personality.h", "netinet/in.h",
        "asm/termbits.h", "linux/net.h", "linux/ipc.h",
    )  # fmt: skip
    lines = "\n".join(f"#ifdef {name}\nP({name})\n#endif" for name in CONSTANTS)
    source = "#define _GNU_SOURCE\n#include <stdio.h>\n" + "".join(f"#include <{header}>\n" for header in headers)
    source += '#define P(x) printf("%s %llu\\n", #x, (unsigned long long)(x) & 0xffffffffULL);\n'
    source += f"int main(void) {{\n{lines}\n}}\n"
    (tmp_path / "c.c").write_text(source)
    built = subprocess.run([compiler, "-o", tmp_path / "c", tmp_path / "c.c"], capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"headers do not compile here: {built.stderr[:200]}")
    printed = subprocess.run([tmp_path / "c"], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in (line.split() for line in printed.splitlines())}
    assert len(found) > 60
    # libc's own __O_TMPFILE has O_DIRECTORY in it, the kernel's (asm-generic/fcntl.h) has not.
    found.pop("__O_TMPFILE", None)
    # Of i386 alone; a libc for 64 bits gives these names to the plain ones.
    for name in ("F_GETLK64", "F_SETLK64", "F_SETLKW64"):
        found.pop(name, None)
    assert {name: value for name, value in found.items() if CONSTANTS[name] != value} == {}
