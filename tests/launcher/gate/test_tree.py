"""The exec gate's process tree: every order in which the kernel may report stops is played to it."""

import pytest

from guardhouse.errors import InvariantError
from guardhouse.kernel.ptrace import Stop, StopKind
from guardhouse.launcher.gate.tree import Continue, JudgeEntry, JudgeExec, Listen, ProcessTree

SHELL, CHILD, THREAD = 100, 101, 102


def started() -> ProcessTree:
    """A tree whose shell runs as program 0."""
    tree = ProcessTree()
    tree.attach(SHELL)
    assert tree.on_stop(Stop(SHELL, StopKind.EXEC), message=SHELL) == (JudgeExec(SHELL, None),)
    tree.ran(SHELL, "bash", now_s=0.0)
    return tree


def test_a_child_named_by_its_parent_first_runs_as_soon_as_it_stops() -> None:
    """Parent's report, then the child's own: each goes on at once."""
    tree = started()
    assert tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=CHILD) == (Continue(SHELL),)
    assert tree.on_stop(Stop(CHILD, StopKind.ATTACHED, 5)) == (Continue(CHILD),)


def test_a_child_that_stops_before_its_parent_names_it_is_held() -> None:
    """Until the parent's report nobody knows which program the child still is, so it does not run."""
    tree = started()
    assert tree.on_stop(Stop(CHILD, StopKind.ATTACHED, 5)) == ()
    assert tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=CHILD) == (Continue(CHILD), Continue(SHELL))
    assert tree.on_stop(Stop(CHILD, StopKind.EXEC_ENTRY)) == (JudgeEntry(CHILD, tree.records[0]),)


def test_an_exec_of_a_grandchild_names_the_program_that_started_it() -> None:
    """A subshell is still the shell: what it execs has the shell's program as its parent."""
    tree = started()
    tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=CHILD)
    tree.on_stop(Stop(CHILD, StopKind.ATTACHED, 5))
    tree.on_stop(Stop(CHILD, StopKind.NEW_CHILD), message=CHILD + 1)
    tree.on_stop(Stop(CHILD + 1, StopKind.ATTACHED, 5))
    assert tree.on_stop(Stop(CHILD + 1, StopKind.EXEC), message=CHILD + 1) == (JudgeExec(CHILD + 1, tree.records[0]),)


def test_a_thread_that_execs_takes_the_id_of_its_process() -> None:
    """The kernel reports the exec under the first thread's id and the thread's own id only in the message."""
    tree = started()
    tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=THREAD)
    tree.on_stop(Stop(THREAD, StopKind.ATTACHED, 5))
    assert tree.on_stop(Stop(SHELL, StopKind.EXEC), message=THREAD) == (JudgeExec(SHELL, tree.records[0]),)
    tree.ran(SHELL, "echo", now_s=1.0)
    assert tree.threads == (SHELL,)
    assert (tree.records[0].ended_s, tree.records[1].parent) == (1.0, 0)


def test_the_end_of_a_program_is_recorded_with_its_cost() -> None:
    """Exit status, signal, CPU time and peak memory stand in the record of the program that ended."""
    tree = started()
    tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=CHILD)
    tree.on_stop(Stop(CHILD, StopKind.ATTACHED, 5))
    tree.on_stop(Stop(CHILD, StopKind.EXEC), message=CHILD)
    tree.ran(CHILD, "sleep", now_s=0.5)
    assert tree.on_stop(Stop(CHILD, StopKind.KILLED, 15), now_s=2.0, cpu_s=0.25, peak=4096) == ()
    assert tree.on_stop(Stop(SHELL, StopKind.EXITED, 3), now_s=2.5) == ()
    assert (tree.records[1].signal, tree.records[1].cpu_s, tree.records[1].peak_memory_bytes) == (15, 0.25, 4096)
    assert (tree.records[0].exit_status, tree.records[0].ended_s) == (3, 2.5)
    assert tree.is_empty


def test_a_subshell_that_ends_does_not_end_the_shells_record() -> None:
    """A fork without an exec shares its parent's program; only that program's own process closes the record."""
    tree = started()
    tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=CHILD)
    tree.on_stop(Stop(CHILD, StopKind.ATTACHED, 5))
    tree.on_stop(Stop(CHILD, StopKind.EXITED, 1), now_s=1.0)
    assert tree.records[0].ended_s is None


def test_signals_and_job_control_pass_through() -> None:
    """A signal is delivered as it came; a group stop is left to job control."""
    tree = started()
    assert tree.on_stop(Stop(SHELL, StopKind.SIGNAL, 10)) == (Continue(SHELL, 10),)
    assert tree.on_stop(Stop(SHELL, StopKind.GROUP_STOP, 19)) == (Listen(SHELL),)


def test_an_exec_of_nobody_we_know_is_our_own_defect() -> None:
    """A thread that was never announced cannot be let run: the monitor stops, and with it the command."""
    with pytest.raises(InvariantError, match="thread 999"):
        ProcessTree().on_stop(Stop(999, StopKind.EXEC_ENTRY))


def test_programs_past_the_bound_are_judged_like_any_other() -> None:
    """Beyond the bound a program is not kept for the record, but its children still know it as their parent."""
    tree = ProcessTree(records_max=1)
    tree.attach(SHELL)
    tree.on_stop(Stop(SHELL, StopKind.EXEC), message=SHELL)
    tree.ran(SHELL, "bash", now_s=0.0)
    tree.on_stop(Stop(SHELL, StopKind.NEW_CHILD), message=CHILD)
    tree.on_stop(Stop(CHILD, StopKind.ATTACHED, 5))
    tree.on_stop(Stop(CHILD, StopKind.EXEC), message=CHILD)
    second = tree.ran(CHILD, "env", now_s=1.0)
    assert tree.on_stop(Stop(CHILD, StopKind.EXEC_ENTRY)) == (JudgeEntry(CHILD, second),)
    assert ([record.judgement for record in tree.records], tree.left_out, second.index) == (["bash"], 1, 1)
