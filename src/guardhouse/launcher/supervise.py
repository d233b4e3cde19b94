"""The launcher's loop: requests in, init processes kept and watched, answers out.

One thread, one epoll. A command's life is bounded here and not in the runner: when the runner hangs the time limit
still holds, and when it dies its socket closes and everything is killed. Knows who waits for which slot; how a
slot is made is in `slots.py`, how a command is confined in `confine.py`. Runs in the launcher.
"""

import contextlib
import select
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from guardhouse import limits
from guardhouse.errors import PeerError, SetupError
from guardhouse.launcher import channel
from guardhouse.launcher.cgroup import CgroupHome
from guardhouse.launcher.gate_questions import GateQuestions
from guardhouse.launcher.job import Job
from guardhouse.launcher.lifetime import Action, Lifetime
from guardhouse.launcher.messages import (
    AnswerQuestion,
    Exited,
    Launch,
    LaunchRequest,
    Message,
    ProxyListening,
    Refused,
    Started,
    StartWorker,
    Stop,
    WorkerStarted,
    parse_message,
)
from guardhouse.launcher.number_keeper import NumberKeeper
from guardhouse.launcher.outcome import GroupUsage, lost_outcome, make_outcome
from guardhouse.launcher.runner_socket import RunnerSocket
from guardhouse.launcher.slots import Slot, make_slot, missing_layers
from guardhouse.launcher.template import CloneUnansweredError, Template
from guardhouse.launcher.workers import WORKER_PROFILES, Worker, WorkerCode, make_worker
from guardhouse.sandbox.bundle import Bundle

if TYPE_CHECKING:
    # Only named here: it needs RE2, which a launcher without a gate does not load.
    from guardhouse.launcher.gate.judge import ExecJudge

__all__ = ["Supervisor"]

_STDIO_COUNT: Final = 3
_TIDY_INTERVAL_S: Final = 0.2  # a v1 group can stay busy for a moment after its last process was reaped
_END_TIMEOUT_S: Final = 5.0
_EVENTS_PER_POLL: Final = 64


class Supervisor:
    """Serves one runner until its socket closes; `run` returns when nothing is left."""

    def __init__(
        self,
        bundle: Bundle,
        runner: socket.socket,
        home: CgroupHome | None,
        *,
        warm: tuple[str, ...],
        code: WorkerCode,
        gate: "ExecJudge | None",
        numbers: NumberKeeper | None,
        template: Template,
    ) -> None:
        self._bundle = bundle
        self._numbers = numbers
        self._template = template
        self._home = home
        self._code = code
        self._gate = gate
        self._warm = tuple(name for name in warm if name in bundle.profiles)
        self._slots: dict[int, Slot] = {}  # by control descriptor
        self._by_pidfd: dict[int, Slot] = {}
        self._by_monitor: dict[int, Slot] = {}
        self._workers: dict[int, Worker] = {}  # by pidfd
        self._dead: list[Slot] = []  # buried, group still busy
        self._jobs: dict[int, Job] = {}
        self._missing: dict[str, dict[str, str]] = {}  # by profile: `missing_layers`
        self._epoll = select.epoll()
        self._runner = RunnerSocket(runner, self._epoll)
        self._questions = GateQuestions(gate, self._runner)

    def run(self) -> None:
        """Serve until the runner closes its socket, then kill everything and wait until it is gone."""
        for name in self._warm:
            self._keep_warm(name)
        while self._runner.is_open:
            for descriptor, events in self._epoll.poll(self._next_timeout_s(), _EVENTS_PER_POLL):
                self._dispatch(descriptor, events)
            self._tick(time.monotonic())
        self._end()

    # Waiting

    def _next_timeout_s(self) -> float | None:
        now_s = time.monotonic()
        due = [job.lifetime.deadline_s for job in self._jobs.values() if job.lifetime.deadline_s is not None]
        due += [slot.deadline_s for slot in self._slots.values() if slot.is_waiting]
        if self._dead or self._runner.retries:
            due.append(now_s + _TIDY_INTERVAL_S)
        return max(0.0, min(due) - now_s) if due else None

    def _dispatch(self, descriptor: int, events: int) -> None:
        if descriptor == self._runner.fileno():
            if events & select.EPOLLOUT:
                self._runner.flush()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._take_request()
        elif descriptor in self._slots:
            self._take_report(self._slots[descriptor])
        elif descriptor in self._by_pidfd:
            self._slot_died(self._by_pidfd[descriptor])
        elif descriptor in self._by_monitor:
            self._take_question(self._by_monitor[descriptor])
        elif descriptor in self._workers:
            self._worker_died(descriptor)

    def _tick(self, now_s: float) -> None:
        for job in list(self._jobs.values()):
            action = job.lifetime.tick(now_s)
            while action is not None:
                self._act(job, action)
                action = job.lifetime.tick(now_s)
        for slot in list(self._slots.values()):
            if not slot.is_waiting or now_s < slot.deadline_s:
                continue
            if not slot.is_ready:
                self._refuse_slot(slot, "namespaces", f"not ready within {limits.SLOT_PREPARE_TIMEOUT_S} s")
            slot.destroy()
        self._dead = [slot for slot in self._dead if not slot.bury()]
        if self._runner.retries:
            self._runner.flush()

    # The runner

    def _take_request(self) -> None:
        received = self._runner.take()
        if received is None:
            return
        try:
            message = parse_message(received.body)
            self._handle(message, received)
        except PeerError as error:
            self._runner.answer(Refused(0, "request", str(error)))
        finally:
            received.close()

    def _handle(self, message: Message, received: channel.Received) -> None:
        match message:
            case Launch(identifier, request):
                self._launch(identifier, request, received)
            case Stop(identifier, _reason):
                job = self._jobs.get(identifier)
                # A stop that crosses the command's end on the way is no error.
                action = None if job is None else job.lifetime.stop(time.monotonic())
                if job is not None and action is not None:
                    self._act(job, action)
            case AnswerQuestion(identifier, number, allows, why):
                job = self._jobs.get(identifier)
                if job is not None:
                    self._questions.answer(job, number, why, allows=allows)
            case StartWorker(identifier, kind):
                self._start_worker(identifier, kind)
            case _:
                raise PeerError(f"{type(message).__name__} is an answer, not a request")

    def _launch(self, identifier: int, request: LaunchRequest, received: channel.Received) -> None:
        if identifier in self._jobs:
            raise PeerError(f"launch id {identifier} is in use")
        refusal = self._why_not(request.profile)
        if refusal is None and len(received.descriptors) != _STDIO_COUNT:
            refusal = ("request", f"a launch brings {_STDIO_COUNT} descriptors, got {len(received.descriptors)}")
        if refusal is not None:
            self._runner.answer(Refused(identifier, *refusal))
            return
        now_s = time.monotonic()
        try:
            slot = self._free_slot(request.profile, now_s)
            self._questions.begin(slot, request)
            slot.run(identifier, request, tuple(received.descriptors))
        except SetupError as error:
            self._refuse_launch(identifier, error)
            return
        except BlockingIOError:
            slot.destroy()
        except (BrokenPipeError, ConnectionResetError):
            # Its pid 1 died this very moment; `_slot_died` answers as soon as the kernel says so.
            pass
        lifetime = Lifetime(now_s=now_s, timeout_s=request.timeout_s, grace_s=request.grace_s)
        self._jobs[identifier] = Job(identifier, request, slot, lifetime, now_s)

    def _refuse_launch(self, identifier: int, error: SetupError) -> None:
        for slot in self._slots.values():
            if slot.serving == identifier:
                # It was told who would come, and the order did not go out.
                slot.serving = None
                slot.destroy()
        layer, _, why = str(error).partition(": ")
        self._runner.answer(Refused(identifier, layer, why))

    def _why_not(self, profile: str) -> tuple[str, str] | None:
        plan = self._bundle.profiles.get(profile)
        if plan is None or profile in WORKER_PROFILES.values():
            known = ", ".join(sorted(set(self._bundle.profiles) - set(WORKER_PROFILES.values())))
            return "request", f"unknown profile {profile!r}; this launcher has {known}"
        if profile not in self._missing:
            # Neither the plan nor the host's controllers change while this process lives.
            gate = self._gate
            self._missing[profile] = missing_layers(
                plan, self._home, has_gate=gate is not None and gate.follows, has_judge=gate is not None
            )
        for layer, why in self._missing[profile].items():
            return layer, why
        if len(self._jobs) >= limits.LAUNCH_SLOTS_MAX:
            return "launcher", f"{limits.LAUNCH_SLOTS_MAX} commands run already; wait for one to end"
        return None

    # Slots

    def _free_slot(self, profile: str, now_s: float) -> Slot:
        for slot in self._slots.values():
            if slot.plan.name == profile and slot.serving is None and not slot.is_dying:
                return slot
        return self._new_slot(profile, now_s)

    def _new_slot(self, profile: str, now_s: float) -> Slot:
        plan = self._bundle.profiles[profile]
        first_number = self._numbers.first_number() if self._numbers is not None and plan.proc == "host" else 0
        make = partial(
            make_slot,
            self._bundle,
            plan,
            self._home,
            self._template,
            gate=self._gate,
            now_s=now_s,
            first_number=first_number,
        )
        try:
            slot = make()
        except CloneUnansweredError:
            # What may have been cloned holds sockets that are closed by now: it ends by itself.
            slot = make()
        self._slots[slot.control.fileno()] = slot
        self._by_pidfd[slot.pidfd] = slot
        self._epoll.register(slot.control.fileno(), select.EPOLLIN)
        self._epoll.register(slot.pidfd, select.EPOLLIN)
        if slot.monitor is not None:
            self._by_monitor[slot.monitor.fileno()] = slot
            self._epoll.register(slot.monitor.fileno(), select.EPOLLIN)
        return slot

    def _keep_warm(self, profile: str) -> None:
        """Prepare one init ahead of the first command; where it cannot be, that command's refusal says why."""
        if self._why_not(profile) is None:
            with contextlib.suppress(SetupError):
                self._new_slot(profile, time.monotonic())

    def _take_report(self, slot: Slot) -> None:
        try:
            taken = slot.receive()
            if taken is None:
                # Closed: its death shows on the pidfd.
                self._epoll.unregister(slot.control.fileno())
                return
            self._handle_report(slot, *taken)
        except BlockingIOError:
            # An event for an earlier holder of this descriptor number, of the same batch.
            return
        except PeerError as error:
            _say(str(error))
            slot.destroy()

    def _handle_report(self, slot: Slot, report: dict[str, object], received: channel.Received) -> None:
        try:
            self._judge_report(slot, report, received)
        finally:
            received.close()

    def _judge_report(self, slot: Slot, report: dict[str, object], received: channel.Received) -> None:
        job = None if slot.serving is None else self._jobs.get(slot.serving)
        identifier = slot.serving or 0
        now_s = time.monotonic()
        match report["event"]:
            case "ready":
                slot.is_ready = True
                slot.deadline_s = now_s + limits.SLOT_IDLE_TIMEOUT_S
            case "failed":
                self._refuse_slot(slot, str(report.get("layer")), str(report.get("why")))
                slot.destroy()
            case "started" if job is not None:
                self._runner.answer(Started(identifier, max(received.pid, 1)))
            case "proxy_listening" if job is not None and received.descriptors:
                self._runner.answer(ProxyListening(identifier), (received.descriptors.pop(),))
            case "refused" if job is not None:
                self._release(slot, report, now_s)
                self._runner.answer(Refused(identifier, str(report.get("layer")), str(report.get("why"))))
            case "ended" if job is not None:
                outcome = make_outcome(report, job.lifetime, usage=_usage_of(slot), notes=slot.notes)
                self._release(slot, report, now_s)
                self._runner.answer(Exited(identifier, outcome))
            case "broken":
                _say(f"pid 1 of a command ended by an error of ours:\n{report.get('why')}")
                slot.destroy()
            case event:
                raise PeerError(f"init {slot.pid} reports {event!r} out of turn")

    def _release(self, slot: Slot, report: dict[str, object], now_s: float) -> None:
        if slot.serving is not None:
            del self._jobs[slot.serving]
        slot.serving = None
        slot.served += 1
        slot.deadline_s = now_s + limits.SLOT_IDLE_TIMEOUT_S
        if report.get("clean") is not True or slot.served >= limits.SLOT_COMMANDS_MAX:
            slot.destroy()

    def _refuse_slot(self, slot: Slot, layer: str, why: str) -> None:
        if slot.serving is not None:
            self._jobs.pop(slot.serving, None)
            self._runner.answer(Refused(slot.serving, layer, why))
            slot.serving = None

    def _slot_died(self, slot: Slot) -> None:
        if not slot.is_dead():
            return
        # Its last report may still wait in the socket.
        while slot.control.fileno() in self._slots and not slot.is_dying:
            try:
                taken = slot.receive()
                if taken is None:
                    break
                self._handle_report(slot, *taken)
            except (BlockingIOError, PeerError):
                break
        self._forget(slot)
        if slot.serving is not None:
            job = self._jobs.pop(slot.serving)
            duration_s = time.monotonic() - job.began_s
            outcome = lost_outcome(job.lifetime, duration_s=duration_s, usage=_usage_of(slot), notes=slot.notes)
            self._runner.answer(Exited(slot.serving, outcome))
        if not slot.bury():
            self._dead.append(slot)

    def _forget(self, slot: Slot) -> None:
        del self._slots[slot.control.fileno()]
        del self._by_pidfd[slot.pidfd]
        self._forget_monitor(slot)
        for descriptor in (slot.control.fileno(), slot.pidfd):
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(descriptor)

    def _forget_monitor(self, slot: Slot) -> None:
        if slot.monitor is not None and self._by_monitor.pop(slot.monitor.fileno(), None) is not None:
            self._epoll.unregister(slot.monitor.fileno())

    def _take_question(self, slot: Slot) -> None:
        job = None if slot.serving is None else self._jobs.get(slot.serving)
        if self._questions.take(slot, job):
            return
        # The monitor has ended, and the kernel with it everything that it followed. What it only listened to cannot
        # start a program any more, and nobody would hear of its denied calls.
        self._forget_monitor(slot)
        if slot.plan.exec_notice != "none":
            slot.destroy()

    def _act(self, job: Job, action: Action) -> None:
        match action:
            case Action.TERMINATE:
                job.slot.signal(signal.SIGTERM)
                # A process that waits for a person takes no signal but SIGKILL: it is let go to meet this one.
                self._questions.end(job.slot)
            case Action.KILL:
                job.slot.signal(signal.SIGKILL)
            case Action.DESTROY:
                job.slot.destroy()

    # Workers

    def _start_worker(self, identifier: int, kind: str) -> None:
        profile = WORKER_PROFILES.get(kind)
        if profile is None or profile not in self._bundle.profiles:
            self._runner.answer(Refused(identifier, "request", f"unknown worker {kind!r}"))
            return
        plan = self._bundle.profiles[profile]
        for layer, why in missing_layers(plan, self._home, has_gate=False).items():
            self._runner.answer(Refused(identifier, layer, why))
            return
        try:
            worker, descriptor = make_worker(self._bundle, plan, kind, self._home, code=self._code)
        except SetupError as error:
            layer, _, why = str(error).partition(": ")
            self._runner.answer(Refused(identifier, layer, why))
            return
        self._workers[worker.pidfd] = worker
        self._epoll.register(worker.pidfd, select.EPOLLIN)
        self._runner.answer(WorkerStarted(identifier, worker.pid), (descriptor,))

    def _worker_died(self, pidfd: int) -> None:
        self._epoll.unregister(pidfd)
        self._workers.pop(pidfd).bury()

    # The end

    def _end(self) -> None:
        """Kill every init, wait for all of them, remove every group."""
        self._runner.close()
        for slot in self._slots.values():
            slot.destroy()
        for worker in self._workers.values():
            worker.destroy()
        for slot in list(self._slots.values()):
            self._forget(slot)
            self._dead.append(slot)
        for worker in self._workers.values():
            worker.bury()
        deadline_s = time.monotonic() + _END_TIMEOUT_S
        while time.monotonic() < deadline_s:
            self._dead = [slot for slot in self._dead if not slot.bury()]
            if not self._dead:
                break
            time.sleep(0.01)


def _usage_of(slot: Slot) -> GroupUsage:
    return GroupUsage() if slot.group is None else slot.group.usage()


def _say(text: str) -> None:
    """Tell the operator: the launcher's stderr is the runner's."""
    sys.stderr.write(f"guardhouse launcher: {text}\n")
    sys.stderr.flush()
