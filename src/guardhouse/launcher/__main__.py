"""PROCESS: the launcher.

Started with an empty environment as ``python -I -S __main__.py SOCKET BUNDLE SETTINGS POLICY WARM LIBRARY``.

The first four are descriptor numbers: the runner's socket, and sealed memory files with the bundle, with the files
worker's settings, and with the policy of the exec gate (empty where there is no gate). WARM is a comma-separated list
of profiles to prepare at once, LIBRARY the directory with third-party packages: for workers, and RE2 for the gate.

Only the directory that holds `guardhouse` is on the path: no site directory, no ``.pth`` file, and no third-party code
but RE2, which is loaded only where there is a gate.
"""

# ruff: noqa: PTH120 - no pathlib: what is imported here is copied by every fork
import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if _SOURCE not in sys.path:
    sys.path.append(_SOURCE)

from guardhouse import limits  # noqa: E402 - the path must be set first
from guardhouse.errors import SetupError  # noqa: E402 - as above
from guardhouse.kernel import credentials, descriptors  # noqa: E402 - as above
from guardhouse.kernel.memory import use_one_arena  # noqa: E402 - as above
from guardhouse.kernel.sealed import read_sealed  # noqa: E402 - as above
from guardhouse.launcher import channel  # noqa: E402 - as above
from guardhouse.launcher.cgroup import find_home  # noqa: E402 - as above
from guardhouse.launcher.messages import Ready, render_message  # noqa: E402 - as above
from guardhouse.launcher.number_keeper import start_number_keeper  # noqa: E402 - as above
from guardhouse.launcher.self_confine import confine_process, plan_of  # noqa: E402 - as above
from guardhouse.launcher.supervise import Supervisor  # noqa: E402 - as above
from guardhouse.launcher.sweep import start_sweeper  # noqa: E402 - as above
from guardhouse.launcher.template import Template  # noqa: E402 - as above
from guardhouse.launcher.workers import WorkerCode  # noqa: E402 - as above
from guardhouse.sandbox.bundle import Bundle  # noqa: E402 - as above

if TYPE_CHECKING:
    from guardhouse.launcher.gate.judge import ExecJudge

_EXIT_SETUP: Final = 78  # EX_CONFIG of sysexits.h


def _check_identity(bundle: Bundle) -> None:
    """Raise SetupError unless this process may become who commands run as.

    Whether that may be root is the profile's matter and settled when the bundle was compiled.
    """
    uid, gid = bundle.identity.uid, bundle.identity.gid
    if os.geteuid() != 0 and (uid, gid) != (os.geteuid(), os.getegid()):
        raise SetupError(f"identity {uid}:{gid} is not this user; only root can start commands as another")
    for plan in bundle.profiles.values():
        if ("user" in plan.namespaces) == (os.geteuid() == 0):
            raise SetupError(
                f"profile {plan.name!r} was compiled for {'an ordinary user' if os.geteuid() == 0 else 'root'};"
                " compile the bundle as the user who starts the launcher"
            )


def _make_gate(policy: bytes, bundle: Bundle, library: str) -> "ExecJudge | None":
    """Return the exec gate's judge for what `start.gate_settings` wrote, or None when there is none.

    Raises:
        SetupError: it is no policy that this version wrote.
    """
    if not policy:
        return None
    if library not in sys.path:
        sys.path.append(library)
    from guardhouse.launcher.gate.judge import ExecJudge
    from guardhouse.launcher.gate.trusted import TrustedPrograms
    from guardhouse.policy.document import restore_policy
    from guardhouse.policy.exec_decision import decide_exec

    given = json.loads(policy)
    restored = restore_policy(given["policy"])
    environment = None if given["environment"] is None else frozenset(given["environment"])
    # Imported and compiled once, before any monitor is forked: each of them finds its code and the patterns ready.
    importlib.import_module("guardhouse.launcher.gate.monitor")
    decide_exec(restored, ("true",), path="/usr/bin/true", names={"true"})
    trusted = TrustedPrograms(restored.trusted_path)
    return ExecJudge(
        restored, trusted, workspace=bundle.workspace, environment=environment, follows=given["follows"] is True
    )


def main(arguments: list[str]) -> int:
    """Serve one runner; return the exit status."""
    control_fd, bundle_fd, settings_fd, policy_fd = (int(word) for word in arguments[:4])
    warm = tuple(name for name in arguments[4].split(",") if name)
    library = arguments[5]
    descriptors.close_all_but((0, 1, 2, control_fd, bundle_fd, settings_fd, policy_fd))
    os.set_inheritable(control_fd, False)  # noqa: FBT003 - os takes it by position only
    use_one_arena()
    # The end is told by the socket, not by the terminal: a Ctrl-C for the runner must let it end us in order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        bundle = Bundle.from_json(read_sealed(bundle_fd, limit_bytes=limits.LAUNCH_BUNDLE_MAX_BYTES))
        code = WorkerCode(library, read_sealed(settings_fd, limit_bytes=limits.LAUNCH_DATAGRAM_MAX_BYTES))
        gate = _make_gate(read_sealed(policy_fd, limit_bytes=limits.LAUNCH_BUNDLE_MAX_BYTES), bundle, library)
        for descriptor in (bundle_fd, settings_fd, policy_fd):
            os.close(descriptor)
        _check_identity(bundle)
        home = find_home()
    except (SetupError, ValueError) as error:
        sys.stderr.write(f"guardhouse launcher: {error}\n")
        return _EXIT_SETUP
    credentials.set_dumpable(dumpable=False)
    try:
        # Before the first byte from the runner, and before anything is forked: the sweeper is confined with it.
        confine_process(plan_of(bundle, "launcher"))
    except SetupError as error:
        sys.stderr.write(f"guardhouse launcher: {error}\n")
        return _EXIT_SETUP
    sweeper = None if home is None else start_sweeper(home)
    shows_host = any(plan.proc == "host" for plan in bundle.profiles.values())
    numbers = start_number_keeper() if shows_host else None
    runner = socket.socket(fileno=control_fd)
    channel.send(runner, render_message(Ready(0)))
    gc.collect()
    gc.freeze()
    template = Template(bundle)
    Supervisor(bundle, runner, home, warm=warm, code=code, gate=gate, numbers=numbers, template=template).run()
    template.finish()
    if numbers is not None:
        numbers.finish()
    if sweeper is not None:
        sweeper.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
