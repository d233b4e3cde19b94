"""`ask` at the exec gate, in the real sandbox: the process waits, the rest goes on, and the answer counts."""

import os
import shutil
import time
from pathlib import Path

import pytest

from guardhouse.launcher.messages import Question, QuestionOver
from tests.gate.gates import Done, Gate

RULES = [("*", "allow"), ("touch *", "ask"), ("./prog *", "ask"), ("touch *forbidden*", "deny")]
# Marks that a program ran; nobody waits for it longer than this.
PATIENCE_S = 30.0


class Command:
    """One command of a gate, with what it wrote."""

    def __init__(self, gate: Gate, text: str, *, ask_timeout_s: float = PATIENCE_S, **more: object) -> None:
        self.gate = gate
        self.where = gate.fresh_directory()
        read_fd, write_fd = os.pipe()
        self.output = os.fdopen(read_fd, "rb")
        self.id = gate.start(text, write_fd, where=self.where, ask_timeout_s=ask_timeout_s, **more)
        os.close(write_fd)

    def question(self) -> Question:
        found = self.gate.client.next_question(self.id)
        assert isinstance(found, Question)
        return found

    def over(self) -> QuestionOver:
        found = self.gate.client.next_question(self.id)
        assert isinstance(found, QuestionOver)
        return found

    def answer(self, question: Question, *, allows: bool, why: str = "somebody said so") -> None:
        self.gate.client.answer(self.id, question.number, allows=allows, why=why)

    def done(self) -> Done:
        output = self.output.read().decode()
        self.output.close()
        return Done(self.gate.client.wait(self.id), output)

    def has(self, name: str) -> bool:
        return (self.where / name).exists()


def wait_for(path: Path) -> None:
    """Return once ``path`` is there."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} did not come"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def ask_gate(gate_workspace: Path):
    """Everything may run, touch after a question, and touch of one name never."""
    gate = Gate(gate_workspace, RULES)
    yield gate
    gate.close()


def test_a_yes_lets_it_run(ask_gate: Gate) -> None:
    """The question names file, words and rule; after a yes the program runs and the record says who allowed it."""
    command = Command(ask_gate, "touch made; echo after")
    question = command.question()
    assert question.path.endswith("/touch")
    assert question.argv == ("touch", "made")
    assert question.started_by.endswith("/bash")
    assert (question.rule, question.place != "") == ("touch *", True)
    assert not command.has("made")
    command.answer(question, allows=True, why="approved by Ada")
    done = command.done()
    assert (done.output, done.outcome.exit_code) == ("after\n", 0)
    assert command.has("made")
    (entry,) = [entry for entry in done.outcome.execs["ran"] if entry["path"].endswith("/touch")]
    assert entry["verdict"] == "allow"
    assert entry["because"].endswith("approved by Ada")
    assert done.refused == []


def test_a_no_is_an_error_that_the_shell_prints(ask_gate: Gate) -> None:
    """The twin: after a no the shell goes on, with the status of a program that may not be executed."""
    command = Command(ask_gate, "touch made; echo $?")
    command.answer(command.question(), allows=False, why="denied by Ada")
    done = command.done()
    assert "Permission denied" in done.output
    assert done.output.endswith("126\n")
    assert not command.has("made")
    (refused,) = done.refused
    assert refused["because"].endswith("denied by Ada")
    assert refused["verdict"] == "ask"


def test_nothing_is_asked_that_a_rule_denies(ask_gate: Gate) -> None:
    """A later rule denies: no question, no program."""
    command = Command(ask_gate, "touch forbidden; echo $?")
    done = command.done()
    assert done.output.endswith("126\n")
    assert not command.has("forbidden")


def test_only_the_process_that_asks_waits(ask_gate: Gate) -> None:
    """Others of the same command go on meanwhile."""
    command = Command(ask_gate, "touch made & : > beside; wait; echo over")
    question = command.question()
    wait_for(command.where / "beside")
    assert not command.has("made")
    command.answer(question, allows=True)
    assert command.done().output == "over\n"
    assert command.has("made")


def test_the_same_is_asked_once(ask_gate: Gate) -> None:
    """One file with one argument vector is one question for a whole command, asked at once or one after the other."""
    command = Command(ask_gate, "touch a & touch a & touch a & wait; touch a; echo $?")
    command.answer(command.question(), allows=True)
    done = command.done()
    assert done.output == "0\n"
    assert sum(path.endswith("/touch") for path in done.ran) == 4


def test_other_words_are_another_question(ask_gate: Gate) -> None:
    """The twin: a yes to one argument vector is none to another."""
    command = Command(ask_gate, "touch a; touch b")
    command.answer(command.question(), allows=True)
    second = command.question()
    assert second.argv == ("touch", "b")
    command.answer(second, allows=False)
    command.done()
    assert (command.has("a"), command.has("b")) == (True, False)


def test_an_answer_of_one_command_is_none_of_the_next(ask_gate: Gate) -> None:
    """A new command asks anew, though it runs in the same slot."""
    for _ in range(2):
        command = Command(ask_gate, "touch made")
        command.answer(command.question(), allows=True)
        assert command.done().outcome.exit_code == 0


def test_time_runs_out(ask_gate: Gate) -> None:
    """Nobody answers: refused, and the command goes on; the question is withdrawn."""
    command = Command(ask_gate, "touch made; echo $?", ask_timeout_s=0.3)
    question = command.question()
    assert command.over().number == question.number
    command.answer(question, allows=True)
    done = command.done()
    assert done.output.endswith("126\n")
    assert not command.has("made")
    assert "nobody answered in time" in str(done.refused[0]["because"])


def test_where_nobody_can_be_asked_it_is_refused(ask_gate: Gate) -> None:
    """Without a way to ask the answer is no, at once and with the reason."""
    command = Command(ask_gate, "touch made; echo $?", ask_timeout_s=0)
    done = command.done()
    assert done.output.endswith("126\n")
    assert "nobody can be asked" in str(done.refused[0]["because"])


def test_a_stop_ends_it_at_once(ask_gate: Gate) -> None:
    """A cancelled command does not wait for people: what waits meets the signal."""
    command = Command(ask_gate, "touch made", grace_s=60)
    question = command.question()
    began_s = time.monotonic()
    ask_gate.client.stop(command.id)
    assert command.over().number == question.number
    done = command.done()
    assert time.monotonic() - began_s < PATIENCE_S
    assert done.outcome.cancelled
    assert not command.has("made")


def test_the_time_limit_stands_still_meanwhile(ask_gate: Gate) -> None:
    """Waiting for a person longer than the time limit is no time-out, and what was left of the limit holds after it."""
    command = Command(ask_gate, "touch made; echo after; sleep 60", timeout_s=3)
    question = command.question()
    time.sleep(3.2)
    command.answer(question, allows=True)
    done = command.done()
    assert command.has("made")
    assert done.output == "after\n"
    assert done.outcome.timed_out


def test_a_killed_process_withdraws_its_question(ask_gate: Gate) -> None:
    """The process that waits is killed from within the command: nobody need answer any more."""
    text = "bash -c 'exec touch made' & until [ -e go ]; do sleep 0.05; done; kill -KILL $!; wait; echo over"
    command = Command(ask_gate, text)
    question = command.question()
    (command.where / "go").touch()
    assert command.over().number == question.number
    assert command.done().output.endswith("over\n")
    assert not command.has("made")


def test_a_thread_that_waits_leaves_the_others_running(ask_gate: Gate) -> None:
    """An exec of one thread waits; the other threads of its process go on until it is let go."""
    text = """python3 -c '
import ctypes, threading, time
words = (ctypes.c_char_p * 3)(b"touch", b"made", None)
threading.Thread(target=lambda: ctypes.CDLL(None).execv(b"/usr/bin/touch", words)).start()
open("beside", "w").close()
time.sleep(60)
'"""
    command = Command(ask_gate, text)
    question = command.question()
    wait_for(command.where / "beside")
    command.answer(question, allows=True)
    assert command.done().outcome.exit_code == 0
    assert command.has("made")


def test_what_was_approved_at_gate_one_is_not_asked_again(ask_gate: Gate) -> None:
    """The same rule and words run without a question; others of that rule still ask."""
    command = Command(ask_gate, "touch made; touch other", approved=(("rule:1:1", "touch", "made"),))
    place = command.question().place
    ask_gate.client.stop(command.id)
    command.done()
    command = Command(ask_gate, "touch made; touch other", approved=((place, "touch", "made"),))
    question = command.question()
    assert question.argv == ("touch", "other")
    assert command.has("made")
    command.answer(question, allows=False)
    command.done()


def test_an_approval_lifts_no_denial(ask_gate: Gate) -> None:
    """The twin: what a rule denies stays denied, whatever gate one's people approved."""
    first = Command(ask_gate, "touch made")
    place = first.question().place
    ask_gate.client.stop(first.id)
    first.done()
    command = Command(ask_gate, "touch forbidden", approved=((place, "touch", "forbidden"),))
    assert command.done().outcome.exit_code == 126
    assert not command.has("forbidden")


def test_a_swap_after_the_yes_is_another_question(ask_gate: Gate) -> None:
    """The yes was to one file: another one under the same name and words is asked about anew, and killed after a no."""
    command = Command(ask_gate, "until [ -e go ]; do sleep 0.05; done; ./prog a; echo $?")
    shutil.copy("/usr/bin/true", command.where / "prog")
    (command.where / "go").touch()
    first = command.question()
    assert first.path.endswith("/prog")
    shutil.copy("/usr/bin/false", command.where / "other")
    (command.where / "other").rename(command.where / "prog")
    command.answer(first, allows=True)
    second = command.question()
    assert (second.path, second.argv) == (first.path, first.argv)
    command.answer(second, allows=False)
    done = command.done()
    assert "137" in done.output.split()
    assert [entry["killed"] for entry in done.refused] == [True]


def test_without_a_swap_one_yes_is_enough(ask_gate: Gate) -> None:
    """The twin: the same file under the same name runs after one answer."""
    command = Command(ask_gate, "cp /usr/bin/true prog; ./prog a; echo $?; ./prog a; echo $?")
    command.answer(command.question(), allows=True)
    assert command.done().output == "0\n0\n"


def test_many_questions_end_in_a_no(ask_gate: Gate) -> None:
    """A command that asks without end is refused beyond the limit, and says so."""
    command = Command(ask_gate, "for i in $(seq 70); do touch $i; done")
    for _ in range(64):
        command.answer(command.question(), allows=True)
    done = command.done()
    assert len(list(command.where.iterdir())) == 64
    assert len(done.refused) == 6
    assert "the limit" in str(done.refused[0]["because"])
