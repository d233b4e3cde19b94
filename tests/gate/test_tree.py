"""The exec gate's process tree: every order in which the kernel may report stops is played to it."""

import pytest

from guardhouse.errors import InvariantError
from guardhouse.launcher.gate.tree import ProcessTree

SHELL, CHILD, THREAD = 100, 101, 102


def started() -> ProcessTree:
    """A tree whose shell runs as program 0."""
    tree = ProcessTree()
    tree.attach(SHELL)
    assert tree.loaded(SHELL, SHELL) is None
    tree.ran(SHELL, "bash", now_s=0.0)
    return tree


def end(tree: ProcessTree, tid: int, *, exit_status: int | None = 0, killed_by: int | None = None) -> None:
    tree.ended(tid, exit_status=exit_status, killed_by=killed_by, now_s=2.0, cpu_s=0.25, peak=4096)


def test_a_child_named_by_its_parent_first_runs_as_soon_as_it_stops() -> None:
    """Parent's report, then the child's own: it may run at once."""
    tree = started()
    assert not tree.new_child(SHELL, CHILD)
    assert tree.first_stop(CHILD)


def test_a_child_that_stops_before_its_parent_names_it_is_held() -> None:
    """Until the parent's report nobody knows which program the child still is, so it does not run."""
    tree = started()
    assert not tree.first_stop(CHILD)
    assert tree.new_child(SHELL, CHILD)
    assert tree.program_of(CHILD) is tree.records[0]


def test_an_exec_of_a_grandchild_names_the_program_that_started_it() -> None:
    """A subshell is still the shell: what it execs has the shell's program as its parent."""
    tree = started()
    tree.new_child(SHELL, CHILD)
    tree.first_stop(CHILD)
    tree.new_child(CHILD, CHILD + 1)
    tree.first_stop(CHILD + 1)
    assert tree.loaded(CHILD + 1, CHILD + 1) is tree.records[0]


def test_a_thread_that_execs_takes_the_id_of_its_process() -> None:
    """The kernel reports the exec under the first thread's id and the thread's own id only in the message."""
    tree = started()
    tree.new_child(SHELL, THREAD)
    tree.first_stop(THREAD)
    assert tree.loaded(SHELL, THREAD) is tree.records[0]
    tree.ran(SHELL, "echo", now_s=1.0)
    assert tree.threads == (SHELL,)
    assert (tree.records[0].ended_s, tree.records[1].parent) == (1.0, 0)


def test_the_end_of_a_program_is_recorded_with_its_cost() -> None:
    """Exit status, signal, CPU time and peak memory stand in the record of the program that ended."""
    tree = started()
    tree.new_child(SHELL, CHILD)
    tree.first_stop(CHILD)
    tree.loaded(CHILD, CHILD)
    tree.ran(CHILD, "sleep", now_s=0.5)
    end(tree, CHILD, exit_status=None, killed_by=15)
    end(tree, SHELL, exit_status=3)
    assert (tree.records[1].signal, tree.records[1].cpu_s, tree.records[1].peak_memory_bytes) == (15, 0.25, 4096)
    assert (tree.records[0].exit_status, tree.records[0].ended_s) == (3, 2.0)
    assert tree.is_empty


def test_a_subshell_that_ends_does_not_end_the_shells_record() -> None:
    """A fork without an exec shares its parent's program; only that program's own process closes the record."""
    tree = started()
    tree.new_child(SHELL, CHILD)
    tree.first_stop(CHILD)
    end(tree, CHILD)
    assert tree.records[0].ended_s is None


def test_an_exec_of_nobody_we_know_is_our_own_defect() -> None:
    """A thread that was never announced cannot be let run: the monitor stops, and with it the command."""
    with pytest.raises(InvariantError, match="thread 999"):
        ProcessTree().loaded(999, 999)


def test_programs_past_the_bound_are_judged_like_any_other() -> None:
    """Beyond the bound a program is not kept for the record, but its children still know it as their parent."""
    tree = ProcessTree(records_max=1)
    tree.attach(SHELL)
    tree.loaded(SHELL, SHELL)
    tree.ran(SHELL, "bash", now_s=0.0)
    tree.new_child(SHELL, CHILD)
    tree.first_stop(CHILD)
    tree.loaded(CHILD, CHILD)
    second = tree.ran(CHILD, "env", now_s=1.0)
    assert tree.program_of(CHILD) is second
    assert ([record.judgement for record in tree.records], tree.left_out, second.index) == (["bash"], 1, 1)


def test_records_are_bounded_in_bytes_as_well() -> None:
    """What would not fit into the report is counted, not kept."""
    tree = ProcessTree(bytes_max=100)
    tree.attach(SHELL)
    tree.ran(SHELL, "bash", now_s=0.0, size_bytes=60)
    tree.ran(SHELL, "env", now_s=0.0, size_bytes=60)
    assert (len(tree.records), tree.left_out) == (1, 1)


def test_a_child_of_a_killed_parent_is_not_held_for_ever() -> None:
    """A parent that was killed before its report leaves its child to the command's first program."""
    tree = started()
    tree.new_child(SHELL, CHILD)
    tree.first_stop(CHILD)
    assert not tree.first_stop(CHILD + 1)
    end(tree, CHILD, exit_status=None, killed_by=9)
    assert tree.lost_children == (CHILD + 1,)
    assert tree.adopt(CHILD + 1)
    assert tree.lost_children == ()
    assert tree.program_of(CHILD + 1) is tree.records[0]


def test_a_child_that_is_named_after_all_is_not_lost() -> None:
    """Another thread's end makes a waiting child suspect; its parent's report clears that."""
    tree = started()
    tree.new_child(SHELL, CHILD)
    tree.first_stop(CHILD)
    tree.first_stop(CHILD + 1)
    end(tree, CHILD)
    assert tree.new_child(SHELL, CHILD + 1)
    assert tree.lost_children == ()


def test_a_child_that_ends_before_it_is_named_leaves_nothing_behind() -> None:
    """Its number may be given to another process, which must not inherit what it was."""
    tree = started()
    tree.first_stop(CHILD)
    end(tree, CHILD)
    assert not tree.new_child(SHELL, CHILD)
    assert tree.threads == (SHELL,)
    assert not tree.first_stop(CHILD)


def test_a_child_of_nobody_we_know_is_our_own_defect() -> None:
    """It would otherwise pass for the command's own shell, which nobody judges."""
    with pytest.raises(InvariantError, match="thread 999"):
        started().new_child(999, CHILD)
