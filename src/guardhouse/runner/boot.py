"""The start of `guardhouse run`, in the one order that keeps each secret from what need not see it.

Settings → policy → account and directories → probe, bundle, launcher (with an empty environment) → token →
privileges dropped → connection. Runs once; what it opens lives as long as the runner.
"""

import os
import resource
import signal
import ssl
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path

import msgspec
import trio

from guardhouse import __version__
from guardhouse.errors import SetupError
from guardhouse.kernel.credentials import set_dumpable
from guardhouse.launcher.client import LauncherDiedError
from guardhouse.launcher.self_confine import confine_process, give_up_gains, plan_of
from guardhouse.policy import Policy
from guardhouse.runner.config import RunnerConfig
from guardhouse.runner.credential import Token, keep_from_children, read_token
from guardhouse.runner.dial import Fault
from guardhouse.runner.dispatch import Dispatcher
from guardhouse.runner.enforcement import Enforcement, enforce, make_report
from guardhouse.runner.event_loop import leaves, run_in_trio
from guardhouse.runner.facts import HostReporter
from guardhouse.runner.files_settings import make_files_settings
from guardhouse.runner.hub_policy import HubPolicy, NarrowingProofs
from guardhouse.runner.hub_policy_files import hold_stored
from guardhouse.runner.identity import become, resolve_account
from guardhouse.runner.journal import Journal, Recovered, open_journal
from guardhouse.runner.journal_writer import JournalWriter
from guardhouse.runner.keeper import start_keeper
from guardhouse.runner.key import check_key
from guardhouse.runner.link import Link
from guardhouse.runner.logs import get_logger, hide_in_logs, redact_logs, start_logging
from guardhouse.runner.redaction import Redaction, load_redaction
from guardhouse.runner.reload import Reloader, reload_on_signal
from guardhouse.runner.rules import load_policy_keys, load_rules
from guardhouse.runner.supervise import Refused, connect_for_ever, drain_on_signal
from guardhouse.runner.tls import make_client_context
from guardhouse.runner.wall import Wall, put_up_wall
from guardhouse.runner.workspace_root import prepare_state_directory, prepare_workspace
from guardhouse.wire.events import Event
from guardhouse.wire.messages import TaskResult
from guardhouse.wire.messages_v1 import PolicySet
from guardhouse.wire.runner_session import RunnerSession

__all__ = ["Ending", "run"]

# Between the goodbye and the end: the close handshake, and no longer.
_GOODBYE_S = 3.0


class Ending(StrEnum):
    """How a runner's life ended."""

    DRAINED = "drained"
    STOPPED = "stopped"  # a second signal: whatever ran was killed
    TOKEN_REFUSED = "token refused"  # noqa: S105 - a word, no secret
    CERTIFICATE_REFUSED = "certificate refused"


def run(config: RunnerConfig, *, protected_paths: tuple[Path, ...] = ()) -> Ending:
    """Be a runner until a signal ends it, or the hub refuses the very first contact.

    Args:
        protected_paths: files of the operator's that no command may see, such as the configuration file.

    Raises:
        SetupError: something that was asked for or promised cannot be had on this host.
    """
    start_logging(config.log_level)
    # Until somebody listens for it: a reload that comes during the start must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    log = get_logger()
    if config.token_file is None:
        raise SetupError(f"{config.token_place} was not hidden before the start; start by 'guardhouse run'")
    keep_from_children(config.token_file)
    context = make_client_context(
        ca_file=config.ca_file,
        tls_min_version=config.tls_min_version,
        insecure_skip_tls_verify=config.insecure_skip_tls_verify,
    )
    if config.insecure_skip_tls_verify:
        log.warning(
            "TLS VERIFICATION IS OFF: whoever is on the path reads the token and commands this host; use --ca-file",
            setting="--insecure-skip-tls-verify",
        )
    keys = load_policy_keys(config.policy_keys)
    local = load_rules(config.policy, keys=keys, shadow=config.shadow_policy)
    account = resolve_account(config.run_as, effective_uid=os.geteuid())
    # A directory of the journal's own: the workspace usually stands beside it and is shown to commands.
    journal_directory = config.state_directory / "journal"
    prepare_state_directory(config.state_directory, account)
    prepare_state_directory(journal_directory, account)
    prepare_workspace(config.workspace, account, is_default=config.workspace_is_default)
    hidden = (journal_directory, *_real_files(config.token_file, *config.redact_files, *protected_paths))

    def make_wall(policy: Policy) -> Wall:
        return put_up_wall(
            profile=config.profile,
            mcp_profile=config.mcp_profile,
            policy=policy,
            account=account,
            workspace=config.workspace,
            protected_paths=hidden,
            tags=config.tags,
            journal=journal_directory,
            guarded_paths=(*config.policy_keys, *([config.ca_file] if config.ca_file is not None else [])),
            files_settings=make_files_settings(
                policy, workspace=config.workspace, bounds=config.workspace_bounds.as_settings()
            ),
        )

    def read_again() -> tuple[Policy, Wall]:
        local = load_rules(config.policy, keys=keys, shadow=config.shadow_policy)
        policy = hold_stored(local, journal_directory, profile=config.profile)
        return policy, make_wall(policy)

    policy = hold_stored(local, journal_directory, profile=config.profile)
    wall = make_wall(policy)
    try:
        # The token is read by this process only after the fork, and the keeper stays who we still are.
        keeper = start_keeper(read_again, plan_of(wall.bundle, "keeper"))
        # From here on this process knows the token: nobody of its account may look into it, and its memory goes to
        # no disk (prctl(2) PR_SET_DUMPABLE, core(5)).
        set_dumpable(dumpable=False)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        token = read_token(config.token_file)
        check_key(token)
        hide_in_logs(token)
        redaction = load_redaction(config.redact_files, token)
        redact_logs(redaction.text)
        own_wall = plan_of(wall.bundle, "runner")
        give_up_gains(own_wall)
        become(account)
        os.umask(0o077)
        journal, recovered = open_journal(journal_directory)
        log.info(
            "starting",
            version=__version__,
            url=str(config.url),
            run_as=account.name,
            workspace=str(config.workspace),
            policy=policy.name,
            policy_digest=policy.digest[:16],
            profile=wall.profile,
            bundle_digest=wall.bundle.digest[:16],
        )
        _log_host(wall)
        read = partial(keeper.reload, wall.features)
        # The last step before bytes from outside: nothing below here starts a program or opens what is not listed.
        confine_process(own_wall)
        return run_in_trio(_serve, config, token, context, policy, wall, redaction, journal, recovered, read)
    finally:
        wall.launcher.close()


def _log_host(wall: Wall) -> None:
    """Say once what this host does not give; results repeat only what bounds the one command."""
    log = get_logger()
    for layer, why in wall.features.layers.items():
        if why:
            log.warning("this host does not give a layer", layer=layer, why=why)
    for note in wall.features.notes:
        log.info("about this host", note=note)


def _real_files(*paths: Path) -> tuple[Path, ...]:
    """Return those paths that name something on a disk; the pipe that a hidden token came through does not."""
    return tuple(path.resolve() for path in paths if not path.is_relative_to("/proc") and path.exists())


async def _serve(
    config: RunnerConfig,
    token: Token,
    context: ssl.SSLContext,
    policy: Policy,
    wall: Wall,
    redaction: Redaction,
    journal: Journal,
    recovered: Recovered,
    read: Callable[[], tuple[Policy, Wall]],
) -> Ending:
    log = get_logger()
    ending = Ending.DRAINED
    refused: list[Refused] = []
    died = False
    try:
        async with trio.open_nursery() as nursery:

            def launcher_died() -> None:
                nonlocal died
                died = True
                nursery.cancel_scope.cancel()

            async def begin(policy: Policy, wall: Wall) -> Enforcement:
                enforcement: Enforcement = await nursery.start(
                    partial(enforce, ask_bashlex=config.ask_bashlex, fetch_bounds=config.fetch_bounds),
                    policy,
                    wall,
                    config.workspace,
                    launcher_died,
                )
                return enforcement

            dispatcher = Dispatcher(
                nursery=nursery,
                enforcement=await begin(policy, wall),
                redaction=redaction,
                journal=JournalWriter(journal),
                max_tasks=config.max_tasks,
                approval_timeout_s=config.approval_timeout_s,
            )

            def handle(event: Event) -> None:
                if isinstance(event, PolicySet):
                    nursery.start_soon(hub_policy.take, event)
                else:
                    dispatcher.handle(event)

            session = _restore(journal, recovered, name=config.name or wall.features.hostname)
            link = Link(
                session,
                facts=HostReporter(workspace=config.workspace),
                handle=handle,
                tasks_waiting=lambda: dispatcher.waiting,
                start_delay_ms=dispatcher.take_start_delay_ms,
            )
            proofs = NarrowingProofs(config.state_directory / "journal", profile=config.profile)

            async def report(policy: Policy, wall: Wall) -> None:
                # A proof over thousands of rules takes its time, in which everything else would wait.
                try:
                    held = await trio.to_thread.run_sync(proofs.held, policy)
                except SetupError as error:
                    # They hold all the same; not named, they are sent again by the hub.
                    log.warning("the hub's policies cannot be read again", error=str(error))
                    held = ()
                link.report_policy(make_report(policy, wall, held))

            await report(policy, wall)
            dispatcher.link = link
            end, offline = trio.Event(), trio.Event()

            async def put_in_force(policy: Policy, wall: Wall) -> None:
                before, dispatcher.enforcement = dispatcher.enforcement, await begin(policy, wall)
                before.replace()
                await report(policy, wall)

            reloader = Reloader(read, put_in_force=put_in_force)
            hub_policy = HubPolicy(
                config.state_directory / "journal",
                profile=config.profile,
                proofs=proofs,
                local=lambda: dispatcher.enforcement.policy,
                reload=reloader.reload,
                answer=link.answer_policy,
            )

            def end_at_once() -> None:
                nonlocal ending
                ending = Ending.STOPPED
                nursery.cancel_scope.cancel()

            async def keep_connected() -> None:
                try:
                    await connect_for_ever(config, token, context=context, link=link, end=end)
                finally:
                    offline.set()

            async def keep_policy() -> None:
                with trio.open_signal_receiver(signal.SIGHUP) as received:
                    await reload_on_signal(received, reloader)

            nursery.start_soon(keep_policy)
            nursery.start_soon(keep_connected)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
                await drain_on_signal(
                    received, dispatcher, link, end=end, drain_timeout_s=config.drain_timeout_s, cancel=end_at_once
                )
                with trio.move_on_after(_GOODBYE_S):
                    await offline.wait()
            await dispatcher.enforcement.files.aclose()
            nursery.cancel_scope.cancel()
    except* Refused as group:
        refused += leaves(group)
    except* LauncherDiedError:
        # A task saw it before the watch did.
        died = True
    finally:
        journal.close()
    if refused:
        log.error(str(refused[0]), fault=refused[0].fault)
        return Ending.TOKEN_REFUSED if refused[0].fault is Fault.AUTHENTICATION else Ending.CERTIFICATE_REFUSED
    if died:
        raise SetupError("the launcher ended unexpectedly and every command with it; start the runner again")
    log.info("ended", how=ending)
    return ending


def _restore(journal: Journal, recovered: Recovered, *, name: str) -> RunnerSession:
    """Make the session that knows what the runner before this one knew.

    A task that was running then is answered once, as interrupted; it is not started again.
    """
    log = get_logger()
    session = RunnerSession(memory_id=recovered.memory_id, version=__version__, name=name)
    for task_id in recovered.over:
        session.restore_forgotten(task_id)
    for result_json in recovered.results.values():
        session.restore(msgspec.json.decode(result_json, type=TaskResult))
    for task in recovered.interrupted.values():
        result = TaskResult(
            task_id=task.task_id,
            success=False,
            source_instance_id=task.source_instance_id,
            error=f"interrupted: the runner ended while this task ran (accepted {task.accepted_at}); it was stopped"
            " and is not started again, look at its effects before asking anew",
            error_code="interrupted",
        )
        journal.record_result(task.task_id, msgspec.json.encode(result))
        session.restore(result)
        log.warning("task was interrupted by a restart", task_id=task.task_id, operation=task.operation)
    if recovered.damaged_lines:
        log.error("the journal was damaged; what could be read was kept", damaged_lines=recovered.damaged_lines)
    return session
