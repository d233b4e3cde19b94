"""Denied commands in another spelling, and behind another name of the same file, in the real sandbox with their twins.

One command tries all spellings of a rule, each in a directory of its own; the twin is the same command where nothing is
denied, and there every one of them has its effect.
"""

# ruff: noqa: E501 - an attack stays in one line as it would be typed
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gate.gates import Gate

REMOVALS = [
    "rm -rf victim",
    "rm -r -f victim",
    "rm -fr victim",
    "rm -R -f victim",
    "rm -Rf victim",
    "rm -rvf victim",
    "rm victim -rf",
    "rm -r victim -f",
    "rm -f victim -r",
    "rm --recursive --force victim",
    "rm --rec --for victim",
    "rm --r --f victim",
    "rm -rf -- victim",
    "rm --no-preserve-root -rf victim",
    "rm -rf --one-file-system victim",
    "rm -d -rf victim",
    "rm -I -rf victim",
    "rm -rfi victim </dev/null; rm -irf victim <<< y",
    "rm --interactive=never -rf victim",
    "rm --interactive=never -r --force victim",
    "POSIXLY_CORRECT=1 rm -r -f victim",
    "busybox rm -rf victim",
    "busybox rm -r -f victim",
    "exec -a rm busybox -rf victim",
    "cp /usr/bin/rm x; ./x -r -f victim",
    "cp /usr/bin/rm x; ./x victim -fr",
    "/lib64/ld-linux-x86-64.so.2 /usr/bin/rm -r -f victim",
    "/lib64/ld-linux-x86-64.so.2 --argv0 ls /bin/rm victim -Rf",
    "ln -s /bin/rm ls; ./ls --recursive --force victim",
    "exec -a ls rm -r -f victim",
    "rm -rf victim/ victim",
    "rm '-rf' victim",
    'rm -"r"f ./victim',
    "rm -rf{,} victim",
    "xargs rm -r -f <<< victim",
    "xargs -a <(printf '%s\\n' -r -f victim) rm",
    "find . -name victim -exec rm -r -f {} +",
    "find . -name victim -prune -exec rm -Rf {} \\;",
    "env -S 'rm -r --force victim'",
    "printf '#!/bin/rm -rf\\n' > x; chmod +x x; ./x victim",
    "printf '#!/usr/bin/env -S rm -r -f\\n' > x; chmod +x x; ./x victim",
    "rm -r -- victim -f 2>/dev/null; rm -f -r -- victim",
    "rm -rrff victim",
    "rm -r --force --verbose victim",
    "rm --verbose -r victim --force",
    "rm -rf victim*",
    "rm -rf ./vict?m",
    "rm -rf $'vic\\x74im'",
]
PUSHES = [
    "git push -q . HEAD:refs/heads/z",
    "git -C . push -q . HEAD:refs/heads/z",
    "git -c a.b=c push -q . HEAD:refs/heads/z",
    "git --no-pager push . HEAD:refs/heads/z",
    "git -p push . HEAD:refs/heads/z",
    "git --git-dir=.git push . HEAD:refs/heads/z",
    "git --git-dir .git push . HEAD:refs/heads/z",
    "git --work-tree . push . HEAD:refs/heads/z",
    "git --exec-path=/usr/lib/git-core push . HEAD:refs/heads/z",
    "git --no-replace-objects push . HEAD:refs/heads/z",
    "git --literal-pathspecs push . HEAD:refs/heads/z",
    "git --namespace '' push . HEAD:refs/heads/z",
    "git --attr-source HEAD push . HEAD:refs/heads/z; git --bare --git-dir .git push . HEAD:refs/heads/z",
    "git --config-env=a.b=HOME push . HEAD:refs/heads/z",
    "git --no-optional-locks --icase-pathspecs push . HEAD:refs/heads/z",
    "/usr/lib/git-core/git push . HEAD:refs/heads/z",
    "/usr/lib/git-core/git-push . HEAD:refs/heads/z",
    "PATH=/usr/lib/git-core:$PATH git-push . HEAD:refs/heads/z",
    "exec -a git-push git . HEAD:refs/heads/z",
    "(exec -a /x/git-push git -q . HEAD:refs/heads/z)",
    "ln -s /usr/bin/git git-push; ./git-push . HEAD:refs/heads/z",
    "git -c alias.p=push p . HEAD:refs/heads/z",
    "git config alias.p push; git p . HEAD:refs/heads/z",
    "git -c alias.p='!git push' p . HEAD:refs/heads/z",
    "git -c alias.p='-c a.b=c push' p . HEAD:refs/heads/z",
    "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=alias.p GIT_CONFIG_VALUE_0=push git p . HEAD:refs/heads/z",
    "printf '[alias]\\np=push\\n' > c; GIT_CONFIG_GLOBAL=$PWD/c git p . HEAD:refs/heads/z",
    "cp /usr/bin/git x; ./x push . HEAD:refs/heads/z",
    "cp /usr/bin/git git-push; ./git-push . HEAD:refs/heads/z",
    "git bisect start -q HEAD HEAD 2>/dev/null; git bisect run git push . HEAD:refs/heads/z 2>/dev/null; git for-each-ref >/dev/null; sh -c 'git push . HEAD:refs/heads/z'",
    "/lib64/ld-linux-x86-64.so.2 --argv0 git-push /usr/bin/git . HEAD:refs/heads/z",
    "/lib64/ld-linux-x86-64.so.2 /usr/bin/git -C . push . HEAD:refs/heads/z",
    "git --list-cmds=main >/dev/null; git help -a >/dev/null; git 'push' . HEAD:refs/heads/z",
    "git --html-path push . HEAD:refs/heads/z; git --exec-path; git --info-path; git -h push; git --help >/dev/null; git  -C '' push . HEAD:refs/heads/z",
    "git --no-lazy-fetch --no-advice push . HEAD:refs/heads/z || git --no-advice push . HEAD:refs/heads/z || git -P push . HEAD:refs/heads/z",
]
MAKE_VICTIM = "mkdir victim; : > victim/x"
MAKE_REPOSITORY = "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"


def is_removed(where: Path) -> bool:
    return not (where / "victim").exists()


def is_pushed(where: Path) -> bool:
    return (where / ".git/refs/heads/z").exists()


def effects(gate: Gate, made: str, texts: list[str], is_done: Callable[[Path], bool]) -> dict[str, bool]:
    """Run every text in a directory of its own, all in one command; return which had their effect."""
    where = gate.fresh_directory()
    lines = []
    for number, text in enumerate(texts):
        lines += [f"mkdir {number}; (cd {number} || exit; {made})", f"(cd {number} || exit\n{text}\n) </dev/null"]
    (where / "all.sh").write_text("\n".join(lines))
    done = gate.run("bash all.sh", where=where, timeout_s=100)
    assert not done.outcome.timed_out, done.output
    return {text: is_done(where / str(number)) for number, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("rule", "made", "texts", "is_done"),
    [
        pytest.param("rm -rf *", MAKE_VICTIM, REMOVALS, is_removed, id="rm"),
        pytest.param("git push *", MAKE_REPOSITORY, PUSHES, is_pushed, id="git"),
    ],
)
def test_no_spelling_gets_past_the_rule(
    rule: str, made: str, texts: list[str], is_done: Callable[[Path], bool], gate_workspace: Path, open_gate: Gate
) -> None:
    """Moved, joined, shortened and written-out options, other names, copies and loaders: the rule means them all."""
    missing = [name for name in ("git", "busybox") if shutil.which(name) is None]
    tried = [text for text in texts if not any(name in text for name in missing)]
    assert tried, f"not installed here: {missing}"
    gate = Gate(gate_workspace, [("*", "allow"), (rule, "deny")])
    try:
        denied = effects(gate, made, tried, is_done)
    finally:
        gate.close()
    assert [text for text, was_done in denied.items() if was_done] == []
    twins = effects(open_gate, made, tried, is_done)
    assert [text for text, was_done in twins.items() if not was_done] == []
