"""A plan whose commands can execute listed files only: the exec gate's stand-in where nothing can follow execs.

Landlock asks for ``execute`` at every exec, of the program, of a script's interpreter and of an ELF interpreter, by the
file that is opened: no race changes which one that is. Programs that are not listed cannot be read either where the
others stand, so that the dynamic loader cannot be told to load them and nobody can copy them.

Pure; runs at boot. docs/exec_gate.md, "Without ptrace", says what it promises.
"""

from dataclasses import replace

from guardhouse.sandbox.bundle import ExecNotice, PathRule, ProfilePlan

__all__ = ["NARROWED", "exec_notice", "narrow_execute"]

# Appended to a profile's name: the same wall with listed programs only.
NARROWED = ".allowed-files"

_EXECUTE = "execute"
_READ = ("read_file", "read_dir")


def exec_notice(fallback: str, *, exec_notices: str, caller_words: str) -> ExecNotice:
    """Return how execs are heard of where nothing can follow them, for a profile's ``fallback``.

    Args:
        exec_notices: why execs cannot be notified on this host; ``""`` where they can.
        caller_words: why what a caller passes cannot be read; ``""`` where it can. Where it cannot, no argument can be
            judged, and ``judged_arguments`` is ``allowed_files``.
    """
    if fallback == "refuse" or exec_notices:
        return "none"
    return "judged_arguments" if fallback == "judged_arguments" and not caller_words else "allowed_files"


def narrow_execute(plan: ProfilePlan, *, programs: tuple[str, ...], readable: tuple[str, ...]) -> ProfilePlan | None:
    """Return ``plan`` with ``execute`` for ``programs`` alone; None where it has no Landlock rules to say it by.

    Args:
        programs: files that may be executed and read, as the command sees them.
        readable: what else may be read: everything but the directories that programs stand in.
    """
    landlock = plan.landlock
    if landlock is None or _EXECUTE not in landlock.handled_fs:
        return None
    rules: list[PathRule] = []
    for rule in landlock.paths:
        access = tuple(name for name in rule.access if name != _EXECUTE)
        if rule.path == "/":
            access = ("read_dir",)
        rules.append(replace(rule, access=access))
    rules += [PathRule(path, _READ, optional=True) for path in readable]
    rules += [PathRule(path, (_EXECUTE, "read_file"), optional=True) for path in programs]
    return replace(plan, name=plan.name + NARROWED, landlock=replace(landlock, paths=tuple(rules)))
