"""One policy and everything that holds tasks to it: judge, file gate, launcher, workers. Replaced as one.

The exec gate's copy of a policy lives in its launcher, so a new policy means a new launcher. What began under the
old one ends under it; then its launcher is closed. Knows no task and no signal. Runs in the runner.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from guardhouse.launcher.client import LauncherClient
from guardhouse.policy import Policy
from guardhouse.policy.in_force import chain_digest, chain_name
from guardhouse.runner.bounds import FetchBounds
from guardhouse.runner.commands import CommandService
from guardhouse.runner.egress import EgressService, rules_of_bundle
from guardhouse.runner.file_gate import FileGate
from guardhouse.runner.files import FilesService
from guardhouse.runner.mcp_pool import McpPool
from guardhouse.runner.mcp_service import McpService
from guardhouse.runner.ripgrep import Ripgrep
from guardhouse.runner.rules import make_judge
from guardhouse.runner.wall import Wall
from guardhouse.runner.web import WebService
from guardhouse.wire.messages_v1 import HubPolicyHeld, PolicyReport
from guardhouse.worker.fetch_client import FetchClient
from guardhouse.worker.parser_client import ParserClient

__all__ = ["Enforcement", "enforce", "make_report"]


class Enforcement:
    """What judges and carries out tasks while one policy is in force."""

    def __init__(
        self,
        *,
        policy: Policy,
        commands: CommandService,
        files: FilesService,
        file_gate: FileGate,
        web: WebService,
        mcp: McpService,
    ) -> None:
        self.policy = policy
        self.commands = commands
        self.files = files
        self.file_gate = file_gate
        self.web = web
        self.mcp = mcp
        self._users = 0
        self._replaced = trio.Event()
        self._unused = trio.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep launcher and files worker for as long as the block lasts, replaced or not."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()
                self._unused = trio.Event()

    def replace(self) -> None:
        """Say that another one is in force: nobody may begin to hold this one from now on."""
        self._replaced.set()

    async def over(self) -> None:
        """Wait until it was replaced and nobody holds it."""
        await self._replaced.wait()
        while self._users:
            await self._unused.wait()


async def enforce(
    policy: Policy,
    wall: Wall,
    workspace: Path,
    launcher_died: Callable[[], None],
    *,
    ask_bashlex: bool,
    fetch_bounds: FetchBounds,
    task_status: trio.TaskStatus[Enforcement],
) -> None:
    """Hold ``wall``'s launcher, which has its copy of ``policy``, until the enforcement is over; then close it.

    Args:
        ask_bashlex: have bashlex give its opinion on command texts as well.
        fetch_bounds: the operator's bounds of web fetch.
        launcher_died: called when the launcher ends before that; every command under it is dead.
        task_status: gets the enforcement once it can be used.
    """
    async with LauncherClient(wall.launcher) as launcher, trio.open_nursery() as nursery:

        async def watch() -> None:
            await launcher.wait_died()
            launcher_died()

        def start_parser() -> socket.socket:
            return trio.from_thread.run(launcher.start_worker, "parser")

        nursery.start_soon(watch)
        parser = ParserClient(start_parser, bashlex=ask_bashlex)
        # Its start takes a moment, which the first command should not wait for.
        nursery.start_soon(partial(trio.to_thread.run_sync, parser.warm, abandon_on_cancel=True))
        files = FilesService(lambda: launcher.start_worker("files"))
        egress = EgressService(rules_of_bundle(wall.bundle), policy=policy, environment=wall.tags)
        commands = CommandService(
            judge=make_judge(policy, reader=parser.read, environment=wall.tags),
            launcher=launcher,
            profile=wall.profile,
            profiles=wall.profiles,
            has_gate=wall.has_gate,
            narrowed=wall.narrowed,
            egress=egress,
            bundle=wall.bundle,
        )
        files.ripgrep = Ripgrep(commands)
        web = WebService(
            policy,
            client=FetchClient(lambda: launcher.start_worker("fetch")),
            files=files,
            bounds=fetch_bounds,
            environment=wall.tags,
        )
        pool = McpPool(launcher=launcher, start_worker=lambda: launcher.start_worker("mcp"), egress=egress)
        await nursery.start(pool.run)
        enforcement = Enforcement(
            policy=policy,
            commands=commands,
            files=files,
            file_gate=FileGate(policy, workspace=workspace, environment=wall.tags),
            web=web,
            mcp=McpService(
                policy,
                pool=pool,
                commands=commands,
                files=files,
                web=web,
                profile=wall.mcp_profile,
                environment=wall.tags,
            ),
        )
        task_status.started(enforcement)
        await enforcement.over()
        await enforcement.web.aclose()
        await enforcement.files.aclose()
        await trio.to_thread.run_sync(parser.close)
        nursery.cancel_scope.cancel()


def make_report(policy: Policy, wall: Wall, held: tuple[HubPolicyHeld, ...]) -> PolicyReport:
    """Return what the hub is told of the policy in force and of the layers that this host gives.

    ``held``: the hub's own among the policies in force (`hub_policy.NarrowingProofs.held`).
    """
    missing = tuple(sorted(name for name, why in wall.features.layers.items() if why))
    return PolicyReport(
        policy_name=Path(policy.name).name,
        policy_digest=policy.digest,
        narrowing_id=chain_name([layer.name for layer in policy.layers[1:]]),
        narrowing_digest=chain_digest([layer.digest for layer in policy.layers[1:]]),
        hub_policies=held,
        shadow_digest=policy.shadow.digest if policy.shadow is not None else "",
        profiles=tuple(sorted(wall.profiles)),
        layers=tuple(sorted(wall.features.layers.keys() - set(missing))),
        missing_layers=missing,
    )
