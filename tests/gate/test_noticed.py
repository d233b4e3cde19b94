"""The record where nothing can follow execs: every order of what a listener hears, without a process."""

from guardhouse.launcher.gate.judge import Judgement
from guardhouse.launcher.gate.noticed import NoticedPrograms
from guardhouse.launcher.gate.report import Refusals
from guardhouse.values import Verdict

SHELL, CHILD, GRANDCHILD = (10, 100), (11, 110), (12, 120)
OLD, NEW, NEWER = (1, 1, b"old"), (1, 2, b"new"), (1, 3, b"newer")


def judged(path: str) -> Judgement:
    return Judgement(Verdict.ALLOW, path, (path,), "because")


def started() -> NoticedPrograms:
    """Return the record of a command whose shell has begun."""
    programs = NoticedPrograms()
    programs.let_go((SHELL,), OLD, judged(""), now_s=0)
    programs.began((SHELL,), NEW, judged("sh"), now_s=0)
    return programs


def ran(programs: NoticedPrograms) -> list[tuple[str, int | None, str]]:
    return [(one["path"], one["parent"], one["words"]) for one in programs.report(Refusals())["ran"]]


def test_what_was_asked_for_is_what_began() -> None:
    """A program that is seen to begin has its caller's record, with what was found in it."""
    programs = started()
    programs.let_go((CHILD, SHELL), NEW, judged("asked"), now_s=1)
    assert ran(programs)[1:] == [("asked", 0, "caller")]
    assert programs.is_new(CHILD, NEWER)
    programs.began((CHILD, SHELL), NEWER, judged("found"), now_s=2)
    assert ran(programs) == [("sh", None, "program"), ("found", 0, "program")]
    assert not programs.is_new(CHILD, NEWER)


def test_an_exec_that_the_kernel_refused_is_none() -> None:
    """A process that asks again is what it was: the former answer led to nothing."""
    programs = started()
    for name in ("first", "second", "third"):
        programs.let_go((CHILD, SHELL), NEW, judged(name), now_s=1)
    assert ran(programs)[1:] == [("third", 0, "caller")]


def test_only_the_first_program_is_the_shell() -> None:
    """The command's first process is asked about like any other once its shell has begun."""
    programs = NoticedPrograms()
    assert programs.is_empty
    programs.let_go((SHELL,), OLD, judged(""), now_s=0)
    assert programs.is_first(SHELL)
    assert not programs.is_first(CHILD)
    programs.began((SHELL,), NEW, judged("sh"), now_s=0)
    assert not programs.is_first(SHELL)
    unseen = NoticedPrograms()
    unseen.let_go((SHELL,), OLD, judged(""), now_s=0)
    unseen.let_go((SHELL,), NEW, judged("next"), now_s=0)
    assert not unseen.is_first(SHELL)


def test_a_parent_is_the_nearest_that_is_known() -> None:
    """A fork that starts nothing stands for the program it is a copy of; without parents the first one does."""
    programs = started()
    programs.let_go((CHILD, SHELL), NEW, judged("child"), now_s=1)
    programs.began((CHILD, SHELL), NEWER, judged("child"), now_s=1)
    programs.let_go((GRANDCHILD, (99, 1), CHILD), NEWER, judged("below"), now_s=2)
    programs.let_go(((13, 1),), NEWER, judged("orphan"), now_s=2)
    assert ran(programs)[2:] == [("below", 1, "caller"), ("orphan", 0, "caller")]


def test_who_never_asked_has_not_begun_anything() -> None:
    """A fork that makes a C library's first call once more is no new program; one that found nothing may be."""
    programs = started()
    assert not programs.is_new(CHILD, NEWER)
    programs.asked_in_vain(CHILD, NEW)
    assert not programs.is_new(CHILD, NEW)
    assert programs.is_new(CHILD, NEWER)
    programs.began((CHILD, SHELL), NEWER, judged("after all"), now_s=1)
    assert ran(programs)[1:] == [("after all", 0, "program")]


def test_a_program_that_is_killed_did_not_run() -> None:
    """What a look at the new program refuses is among the refused alone."""
    programs = started()
    programs.let_go((CHILD, SHELL), NEW, judged("asked"), now_s=1)
    programs.refused(CHILD)
    assert len(ran(programs)) == 1
    assert not programs.has_waiting


def test_the_record_is_bounded_and_says_what_is_left_out() -> None:
    """Further programs are counted; those that came to nothing are not."""
    programs = NoticedPrograms(records_max=2)
    programs.let_go((SHELL,), OLD, judged("sh"), now_s=0)
    programs.began((SHELL,), NEW, judged("sh"), now_s=0)
    for number in range(4):
        programs.let_go(((20 + number, 1), SHELL), NEW, judged("more"), now_s=1)
    programs.let_go(((23, 1), SHELL), NEW, judged("again"), now_s=1)
    report = programs.report(Refusals())
    assert (len(report["ran"]), report["left_out"]) == (2, 3)


def test_processes_that_ended_are_forgotten() -> None:
    """A command that runs programs one by one does not make the listener grow."""
    programs = started()
    for number in range(5_000):
        key = (1_000 + number, 1)
        programs.let_go((key, SHELL), NEW, judged("one"), now_s=1)
        programs.began((key, SHELL), NEWER, judged("one"), now_s=1)
        programs.forget(lambda key: key == SHELL)
    assert not programs.is_known((1_000, 1))
    assert programs.is_known(SHELL)


def test_what_nobody_could_read_is_counted() -> None:
    """An exec of which neither the caller's words nor the program was seen is a number, not a program."""
    programs = started()
    programs.let_go((CHILD, SHELL), NEW, judged(""), now_s=1)
    report = programs.report(Refusals())
    assert (len(report["ran"]), report["unseen"]) == (1, 1)
