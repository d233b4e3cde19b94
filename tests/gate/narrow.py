"""The wall where nothing can follow execs: a launcher without a gate, and the narrowed plan with its listener."""

import sys
from dataclasses import replace
from pathlib import Path

import seccomp

from guardhouse.data_files import shipped_directory
from guardhouse.policy import Policy, policy_from_pairs
from guardhouse.runner.allowed_files import find_allowed_files, find_readable
from guardhouse.sandbox.bundle import Bundle, ExecNotice
from guardhouse.sandbox.compile import with_exec_notice
from guardhouse.sandbox.load import load_profile, read_library
from guardhouse.sandbox.narrow_execute import NARROWED, narrow_execute
from tests.gate.gates import Gate

_found: dict[tuple[object, ...], tuple[str, ...]] = {}


def _programs(policy: Policy, *, with_some_arguments: bool) -> tuple[str, ...]:
    """Return the files that commands may execute; asking the policy of each takes a second, so once for all gates."""
    rules = tuple((rule.match, rule.action) for layer in policy.layers for rule in layer.rules())
    question = (rules, policy.trusted_path, with_some_arguments)
    if question not in _found:
        _found[question] = find_allowed_files(policy, with_some_arguments=with_some_arguments)
    return _found[question]


class NarrowGate(Gate):
    """A wall without a gate whose commands execute only what ``rules`` allow with any arguments, or with some."""

    profile = "observe" + NARROWED
    follows = False

    def __init__(
        self,
        directory: Path,
        rules: list[tuple[str, str]] | Policy,
        *,
        notice: ExecNotice = "allowed_files",
        blind: bool = False,
    ) -> None:
        self._policy = rules if isinstance(rules, Policy) else policy_from_pairs(rules)
        self._notice: ExecNotice = notice
        self.interpreter = (
            str(interpreter_without(directory, "ptrace", "process_vm_readv")) if blind else sys.executable
        )
        super().__init__(directory, self._policy)

    def _bundle(self) -> Bundle:
        bundle = super()._bundle()
        narrowed = narrow_execute(
            bundle.profiles["observe"],
            programs=_programs(self._policy, with_some_arguments=self._notice == "judged_arguments"),
            readable=find_readable(self._policy.trusted_path),
        )
        assert narrowed is not None
        shipped = shipped_directory("sandbox")
        profile = load_profile("observe", directory=shipped, library=read_library(shipped))
        if self._notice != "none":
            narrowed = with_exec_notice(narrowed, profile, notice=self._notice)
        return replace(bundle, profiles={**bundle.profiles, narrowed.name: narrowed})


def interpreter_without(directory: Path, *calls: str) -> Path:
    """Return a Python under a filter that refuses some calls.

    ``ptrace`` for a host where nothing can follow execs; with ``process_vm_readv`` one where nobody's memory can be
    read either, as kernel.yama.ptrace_scope=3 has it (/proc/PID/mem, which that closes too, nothing here opens).
    """
    script = directory / f"python-without-{'-'.join(calls)}"
    if not script.exists():
        script.write_text(
            f"#!{sys.executable} -I\nimport errno, os, sys\n"
            f"sys.path.append({str(Path(seccomp.__file__).parent)!r})\nimport seccomp\n"
            "found = seccomp.SyscallFilter(seccomp.ALLOW)\n"
            f"for call in {calls!r}:\n"
            "    found.add_rule(seccomp.ERRNO(errno.EPERM), call)\n"
            "found.load()\n"
            f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
        )
        script.chmod(0o755)
    return script
