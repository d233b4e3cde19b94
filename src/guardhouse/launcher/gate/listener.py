"""The exec gate's stand-in where nothing can follow execs: one process that answers a command's own notifications.

The command's filter hands over execve and execveat (SECCOMP_RET_USER_NOTIF), and set_tid_address, which a C library
calls once at the start of each program. At the first the caller's words are judged, where they can be read: a no is
``EACCES``, a yes lets the kernel make the call, with whatever the words are by then. At the second the new program is
looked at, before its main: a no is a kill. Between the two anybody who shares the caller's memory may change them, and
a program without a C library makes no second call: what holds against an attacker is Landlock beneath, this is the
record and the word to whoever did not attack it (seccomp_unotify(2), docs/exec_gate.md, "Without ptrace").

Never waits for one caller: a question to a person leaves that call unanswered and everything else goes on. When this
process ends the kernel answers ENOSYS to what waits and to every exec that follows.

Decides nothing itself: `judge.py` asks the policy, `noticed.py` knows which programs ran, `questions.py` what waits.
Runs as the monitor of a slot, outside the command's namespaces.
"""

import contextlib
import errno
import gc
import json
import math
import os
import select
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from guardhouse.kernel import ptrace, seccomp
from guardhouse.kernel.seccomp import Notification
from guardhouse.kernel.syscalls import NUMBERS
from guardhouse.launcher import channel
from guardhouse.launcher.gate.asking import Asking
from guardhouse.launcher.gate.callers import (
    ImageMark,
    ProcessKey,
    find_lineage,
    find_process,
    is_alive,
    mark_image,
    read_loaded_image,
)
from guardhouse.launcher.gate.facts import (
    ExecFacts,
    FactsError,
    ForeignProgramError,
    read_entry_facts,
    read_exec_facts,
    read_words,
)
from guardhouse.launcher.gate.judge import ExecJudge, Judgement
from guardhouse.launcher.gate.noticed import NoticedPrograms
from guardhouse.launcher.gate.questions import Answer, Held, Request
from guardhouse.launcher.gate.report import Refusals, judgement_of
from guardhouse.sandbox.bundle import ProfilePlan
from guardhouse.values import Verdict

__all__ = ["ExecListener"]

_EXIT_CLOSED: Final = 0
_EXIT_BROKEN: Final = 70
_BEGINS: Final = NUMBERS.get("set_tid_address", -1)
# A process that waits for a person and is killed is told of by nobody: how often that is looked for.
_HELD_LOOK_S: Final = 0.5
# A program that makes no call at its start is looked at when nothing else happens, for as long as it may take to load.
_LATE_LOOK_S: Final = 0.05
_LATE_LOOKS: Final = 20
_CACHED_MAX: Final = 1_024
_CACHED_ARGUMENTS_MAX: Final = 64
_CACHED_BYTES_MAX: Final = 4_096
# What every program is judged as started by: who really started it is only known until that ends, so nothing is
# allowed for a parent's sake.
_SOMEBODY: Final = Judgement(Verdict.ALLOW, "", (), "")
_UNREAD: Final = Judgement(
    Verdict.ALLOW, "", (), "what it asked for could not be read; Landlock lets it execute allowed files only"
)
_NOT_LISTED: Final = (
    "nothing can follow execs here, so only programs that the policy allows {} can be executed, and this is none of"
    " them (exec_gate: {{fallback: {}}})"
)
_LISTED_AS: Final = {"allowed_files": "whatever their arguments", "judged_arguments": "with some arguments"}


@dataclass(frozen=True, slots=True)
class _Call:
    """One call that waits for its answer."""

    notification: Notification
    lineage: tuple[ProcessKey, ...]
    mark: ImageMark | None

    @property
    def pid(self) -> int:
        return self.lineage[0][0]


class ExecListener:
    """One slot's listener; it serves the slot's commands one after the other."""

    def __init__(
        self, judge: ExecJudge, sock: socket.socket, launcher: socket.socket, init_pid: int, plan: ProfilePlan
    ) -> None:
        """``sock`` leads to the slot's init, which sends each command's listener; ``launcher`` as `asking.py` says."""
        self._judge = judge
        self._sock = sock
        self._launcher = launcher
        self._init_pid = init_pid
        self._notice = plan.exec_notice
        self._asking = Asking(launcher, self._release)
        self._questions = self._asking.questions
        rules = () if plan.landlock is None else plan.landlock.paths
        self._executable = frozenset(rule.path for rule in rules if "execute" in rule.access)
        self._listener_fd = -1
        self._begin()

    def serve(self) -> NoReturn:
        """Serve until the init or the launcher is gone."""
        while True:
            try:
                received = channel.receive(self._sock)
            except ConnectionResetError:
                received = None  # init was killed before it had read what we sent it
            if received is None:
                os._exit(_EXIT_CLOSED)
            if len(received.descriptors) != 1:
                os._exit(_EXIT_BROKEN)
            self._listener_fd = received.descriptors.pop()
            self._begin()
            self._listen()
            os.close(self._listener_fd)
            report = self._programs.report(self._refusals) | {"denied": dict(self._denied)}
            try:
                channel.send(self._sock, json.dumps(report).encode("ascii"))
            except (BrokenPipeError, ConnectionResetError):
                os._exit(_EXIT_CLOSED)  # init was killed with its command
            # Nothing is collected while a command runs; between two there is time, and little to look at.
            gc.collect()

    def _begin(self) -> None:
        self._programs = NoticedPrograms()
        self._refusals = Refusals()
        self._denied: Counter[int] = Counter()
        self._held: dict[int, _Call] = {}
        self._held_look_s = 0.0
        self._late_looks = 0
        # Of this command: another's requester or tags may make another answer.
        self._allowed_entries: dict[tuple[object, ...], Judgement] = {}
        self._judged: dict[tuple[object, ...], Judgement] = {}
        self._started_s = 0.0
        self._questions.begin(Request())

    def _listen(self) -> None:
        """Answer what is handed over until nothing is left that could ask."""
        poll = select.poll()
        poll.register(self._listener_fd, select.POLLIN)
        poll.register(self._launcher, select.POLLIN)
        while True:
            timeout_s = self._timeout_s()
            ready = dict(poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))
            if self._launcher.fileno() in ready:
                self._asking.take_orders()
            self._asking.expire()
            events = ready.get(self._listener_fd, 0)
            if events & select.POLLIN:
                self._take()
            elif events:
                self._look_at_held()
                return
            elif not ready:
                self._look_late()
            if self._held and time.monotonic() >= self._held_look_s:
                self._look_at_held()

    def _timeout_s(self) -> float | None:
        wanted = [_HELD_LOOK_S] if self._held else []
        until_s = self._questions.timeout_s(time.monotonic())
        if until_s is not None:
            wanted.append(until_s)
        if self._late_looks and self._programs.has_waiting:
            wanted.append(_LATE_LOOK_S)
        return min(wanted, default=None)

    def _take(self) -> None:
        try:
            notification = seccomp.receive(self._listener_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return
        if notification is None:
            return  # its caller died meanwhile
        is_native = notification.audit_arch == seccomp.NATIVE_AUDIT_ARCH
        asked = ptrace.exec_arguments(notification.number, notification.arguments) if is_native else None
        if asked is None and not (is_native and notification.number == _BEGINS):
            self._denied[notification.number] += 1
            self._refuse(notification, errno.EPERM)
            return
        try:
            pid = find_process(notification.thread_id)
            lineage = find_lineage(pid, ancestor=self._init_pid, is_known=self._programs.is_known)
        except ProcessLookupError:
            return  # so there is nobody left to answer
        call = _Call(notification, lineage, _mark(lineage[0][0]))
        if not seccomp.is_valid(self._listener_fd, notification.cookie):
            return  # what was looked at may have been another process of its number
        if asked is None:
            self._judge_begun(call)
        else:
            self._judge_asked(call, asked)

    # The exec, as its caller says it

    def _judge_asked(self, call: _Call, asked: ptrace.ExecEntry) -> None:
        if self._programs.is_empty or self._is_still_first(call):
            # Init starts the command's shell: no question of policy. Its launcher has said by now whose command it is.
            self._asking.take_orders()
            self._started_s = time.monotonic()
            self._let_go(call, _UNREAD)
            return
        self._confirm_late(call.lineage, call.mark)
        tid = call.notification.thread_id
        try:
            words = read_words(tid, asked)
        except FactsError as error:
            self._answer_unread(call, str(error))
            return
        # What was allowed a moment ago is not looked up again: what it becomes is looked at all the same. Only whole
        # paths, which mean the same file in every directory.
        known = self._allowed_entries.get((words.path, words.argv))
        if known is not None:
            self._let_go(call, known)
            return
        try:
            facts = read_entry_facts(tid, words, self._judge.kin_of)
        except ForeignProgramError as error:
            self._refuse_exec(call, Judgement(Verdict.DENY, error.path, (), str(error)))
            return
        except FactsError:
            # No such file: the kernel says so with its own errno. Landlock holds whatever it finds there by then.
            self._programs.asked_in_vain(call.lineage[0], call.mark)
            self._go_on(call)
            return
        judgement = self._judge_facts(facts)
        if judgement.verdict is not Verdict.DENY and facts.file.path not in self._executable:
            because = _NOT_LISTED.format(_LISTED_AS[self._notice], self._notice)
            judgement = self._judge.refuse(facts, because)
        if judgement.asks:
            self._hold(call, judgement, is_loaded=False)
        elif judgement.may_run:
            is_short = len(words.argv) <= _CACHED_ARGUMENTS_MAX and sum(map(len, words.argv)) <= _CACHED_BYTES_MAX
            if words.path.startswith(b"/") and is_short and not self._judge.asks_time:
                _remember(self._allowed_entries, (words.path, words.argv), judgement)
            self._let_go(call, judgement)
        else:
            self._refuse_exec(call, judgement)

    def _is_still_first(self, call: _Call) -> bool:
        """Tell whether init's child asks for the shell once more, interrupted by a signal."""
        key = call.lineage[0]
        return self._programs.is_first(key) and (call.mark is None or not self._programs.is_new(key, call.mark))

    def _answer_unread(self, call: _Call, why: str) -> None:
        if self._notice == "allowed_files":
            self._let_go(call, _UNREAD)
            return
        because = f"{why}; a profile with 'fallback: judged_arguments' starts nothing that it cannot judge"
        self._refuse_exec(call, Judgement(Verdict.DENY, "", (), because))

    def _judge_facts(self, facts: ExecFacts, parent: Judgement | None = _SOMEBODY) -> Judgement:
        return self._judge.judge(facts, parent, self._judge.context(self._questions.request.context))

    # The program that it became

    def _judge_begun(self, call: _Call) -> None:
        key = call.lineage[0]
        if call.mark is None and self._notice == "judged_arguments" and self._programs.is_waiting(key):
            because = f"the program of process {call.pid} cannot be looked at, and nothing starts here unjudged"
            self._kill(call, Judgement(Verdict.DENY, "", (), because))
            return
        if call.mark is None or not self._programs.is_new(key, call.mark):
            # Not the start of a program: a fork in musl, or somebody who makes the call by hand.
            self._go_on(call)
            return
        try:
            judgement = self._judge_image(key)
        except FactsError as error:
            judgement = Judgement(Verdict.DENY, "", (), str(error))
        if judgement.asks:
            self._hold(call, judgement, is_loaded=True)
        elif judgement.may_run:
            self._began(call, judgement)
        else:
            self._kill(call, judgement)

    def _judge_image(self, key: ProcessKey) -> Judgement:
        image = read_loaded_image(key[0])
        is_first = self._programs.is_first(key)
        status = image.status
        which = (status.st_dev, status.st_ino, status.st_ctime_ns)
        question = (*which, image.arguments, image.given, image.only_lists, is_first)
        known = self._judged.get(question)
        if known is not None:
            return known
        facts = read_exec_facts(key[0], image, self._judge.kin_of)
        judgement = self._judge_facts(facts, None if is_first else _SOMEBODY)
        # As the monitor remembers: no script, no file outside the trusted path, nothing that depends on the time.
        is_short = len(image.arguments) <= _CACHED_BYTES_MAX and not self._judge.asks_time
        if judgement.may_run and is_short and facts.script is None and judgement.names:
            _remember(self._judged, question, judgement)
        return judgement

    def _look_late(self) -> None:
        """Look at programs that have made no call at their start: they have no C library."""
        self._late_looks = max(0, self._late_looks - 1)
        for key in self._programs.waiting:
            if is_alive(key):
                self._confirm_late((key,), _mark(key[0]))
            else:
                self._programs.ended(key)

    def _confirm_late(self, lineage: tuple[ProcessKey, ...], mark: ImageMark | None) -> None:
        """Write down what a process has become that was not seen to start; it may have changed its words since."""
        key = lineage[0]
        if mark is None or not self._programs.is_waiting(key) or not self._programs.is_new(key, mark):
            return
        try:
            judgement = self._judge_image(key)
        except FactsError:
            return
        if judgement.may_run:
            self._programs.began(lineage, mark, judgement, now_s=self._now_s())

    # What a person is asked

    def _hold(self, call: _Call, judgement: Judgement, *, is_loaded: bool) -> None:
        self._held[call.notification.cookie] = call
        program = self._programs.program_of(call.lineage)
        started_by = "" if program is None else judgement_of(program).path
        self._asking.ask(Held(call.notification.cookie, judgement, is_loaded), started_by=started_by)

    def _release(self, held: Held, answer: Answer) -> None:
        call = self._held.pop(held.tid)
        if not seccomp.is_valid(self._listener_fd, held.tid):
            return  # killed while it waited, or interrupted: then it asks again and the answer is known
        judgement = replace(held.judgement, because=f"{held.judgement.because}: {answer.why}")
        if answer.allows:
            judgement = replace(judgement, verdict=Verdict.ALLOW)
            if held.is_loaded:
                self._began(call, judgement)
            else:
                self._let_go(call, judgement)
        elif held.is_loaded:
            self._kill(call, judgement)
        else:
            self._refuse_exec(call, judgement)

    def _look_at_held(self) -> None:
        self._held_look_s = time.monotonic() + _HELD_LOOK_S
        for cookie in list(self._held):
            if not seccomp.is_valid(self._listener_fd, cookie):
                del self._held[cookie]
                self._asking.let_go(cookie)

    # Answers

    def _let_go(self, call: _Call, judgement: Judgement) -> None:
        # Written down first: the new program may call before the next line.
        self._programs.let_go(call.lineage, call.mark, judgement, now_s=self._now_s())
        self._programs.forget(is_alive)
        self._late_looks = _LATE_LOOKS
        self._go_on(call)

    def _began(self, call: _Call, judgement: Judgement) -> None:
        if call.mark is not None:
            self._programs.began(call.lineage, call.mark, judgement, now_s=self._now_s())
        self._go_on(call)

    def _kill(self, call: _Call, judgement: Judgement) -> None:
        self._note_refusal(call, judgement, killed=True)
        self._programs.refused(call.lineage[0])
        # It waits for an answer, so its number is still its own, unless it is being killed already; it gets none.
        if seccomp.is_valid(self._listener_fd, call.notification.cookie):
            with contextlib.suppress(ProcessLookupError):
                os.kill(call.pid, signal.SIGKILL)

    def _refuse_exec(self, call: _Call, judgement: Judgement) -> None:
        self._note_refusal(call, judgement, killed=False)
        self._refuse(call.notification, errno.EACCES)

    def _note_refusal(self, call: _Call, judgement: Judgement, *, killed: bool) -> None:
        program = self._programs.program_of(call.lineage)
        self._refusals.note(call.pid, program, judgement, killed=killed, at_s=self._now_s())

    def _go_on(self, call: _Call) -> None:
        seccomp.let_go_on(self._listener_fd, call.notification)

    def _refuse(self, notification: Notification, code: int) -> None:
        seccomp.answer_with_errno(self._listener_fd, notification, code)

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s


def _remember(answers: dict[tuple[object, ...], Judgement], question: tuple[object, ...], answer: Judgement) -> None:
    if len(answers) >= _CACHED_MAX:
        answers.pop(next(iter(answers)))
    answers[question] = answer


def _mark(pid: int) -> ImageMark | None:
    try:
        return mark_image(pid)
    except FactsError:
        return None
