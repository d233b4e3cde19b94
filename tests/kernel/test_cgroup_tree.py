"""Which control group may be divided: read from directories that look like the kernel's."""

import os

import pytest

from guardhouse.kernel import cgroup_tree
from guardhouse.kernel.cgroup_tree import Divisible, below_mount, find_v2

SELF = os.getpid()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A service's group below a mount, on a host where systemd runs; nothing carries a mark."""
    booted = tmp_path / "booted"
    booted.mkdir()
    monkeypatch.setattr(cgroup_tree, "_SYSTEMD_RUNS", str(booted))
    monkeypatch.setattr(cgroup_tree, "_mark", lambda directory, name: b"")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    service = tmp_path / "cgroup/service"
    make_group(service, members=(SELF,))
    return service


def make_group(directory, *, members=(), controllers="cpuset cpu io memory pids"):
    directory.mkdir(parents=True)
    (directory / "cgroup.controllers").write_text(controllers)
    (directory / "cgroup.subtree_control").write_text("")
    (directory / "cgroup.type").write_text("domain")
    (directory / "cgroup.procs").write_text("\n".join(map(str, members)))


def find(tree, *, path="/service", ours=frozenset({SELF})):
    mounts = [("cgroup2", "/", str(tree.parent), "rw,nsdelegate")]
    return find_v2({"": path}, mounts, ours=ours)


def mark(monkeypatch, directory, name):
    monkeypatch.setattr(
        cgroup_tree, "_mark", lambda place, key: b"1" if (place, key) == (str(directory), name) else b""
    )


@pytest.mark.parametrize("name", ["user.delegate", "trusted.delegate"])
def test_marked_group_is_ours(tree, monkeypatch, name):
    """What systemd has marked with Delegate= may be divided, after its processes have moved into a leaf."""
    mark(monkeypatch, tree, name)
    found, why = find(tree)
    assert found == Divisible(str(tree), ("memory", "pids", "cpu", "io"), must_leave=True)
    assert why == ""


def test_root_does_not_take_what_systemd_keeps(tree):
    """Root may write to every group: a service without Delegate=, or a login shell's scope, is left as it is."""
    found, why = find(tree)
    assert found is None
    assert "systemd keeps the group" in why


def test_own_group_of_a_users_manager(tree, monkeypatch):
    """A user's manager leaves no mark; a group with nobody but us is taken, one with the shell in it is not."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find(tree)[0] is not None
    (tree / "cgroup.procs").write_text(f"{SELF}\n1\n")
    assert find(tree)[0] is None
    assert find(tree, ours=frozenset({SELF, 1}))[0] is not None


def test_without_systemd_the_group_is_ours(tree, monkeypatch, tmp_path):
    """In a container or behind another init nobody else keeps groups."""
    monkeypatch.setattr(cgroup_tree, "_SYSTEMD_RUNS", str(tmp_path / "nothing"))
    assert find(tree)[0] is not None


def test_leaf_of_an_earlier_launcher(tree, monkeypatch):
    """A launcher that starts again finds itself in the leaf, and divides the group above, which is empty."""
    mark(monkeypatch, tree, "user.delegate")
    make_group(tree / cgroup_tree.LEAF, members=(SELF,), controllers="")
    found, _ = find(tree, path=f"/service/{cgroup_tree.LEAF}")
    assert found == Divisible(str(tree), ("memory", "pids", "cpu", "io"), must_leave=False)


def test_real_root_needs_no_leaf(tree, monkeypatch):
    """The hierarchy's root has no type, and may hold processes beside groups; a container's root may not."""
    mark(monkeypatch, tree, "user.delegate")
    (tree / "cgroup.type").unlink()
    found, _ = find(tree)
    assert found is not None
    assert not found.must_leave


def test_without_controllers(tree, monkeypatch):
    """A tree without controllers, beside version 1, carries no limit."""
    mark(monkeypatch, tree, "user.delegate")
    (tree / "cgroup.controllers").write_text("")
    found, why = find(tree)
    assert found is None
    assert "no controller" in why


def test_not_mounted():
    """Where no tree is mounted the answer says so."""
    assert find_v2({"": "/x"}, [], ours=frozenset()) == (None, "no cgroup v2 tree is mounted")


def test_below_mount():
    """A group's path is found below a mount of the whole hierarchy and of a part of it."""
    assert below_mount("/a/b", "/", "/sys/fs/cgroup") == "/sys/fs/cgroup/a/b"
    assert below_mount("/a/b", "/a", "/sys/fs/cgroup") == "/sys/fs/cgroup/b"
    assert below_mount("/", "/", "/sys/fs/cgroup") == "/sys/fs/cgroup"
