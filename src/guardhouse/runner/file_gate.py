"""The policy's rules for file operations, asked before the files worker is: each path under each name it is used by.

A policy without a section for an operation leaves it to the workspace and the wall. Knows no file. Runs in the
runner.
"""

import posixpath
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from guardhouse.errors import InvariantError, Refusal
from guardhouse.policy import Context, OperationDecision, Policy, decide_operation
from guardhouse.runner.passage import Passage
from guardhouse.values import Verdict
from guardhouse.wire import operations as wire

__all__ = ["FileGate"]


class FileGate:
    """Asks one policy about file operations, always by the path relative to the workspace."""

    def __init__(self, policy: Policy, *, workspace: Path, environment: frozenset[str] | None = None) -> None:
        """``environment``: this host's tags, for rules with conditions."""
        self._policy = policy
        self._root = str(workspace)
        self._environment = environment

    def decide(self, operation: str, args: msgspec.Struct, *, requester: str | None = None) -> list[OperationDecision]:
        """Return what the policy says of every path that an operation reads or changes."""
        return [self._decide(kind, subject, requester) for kind, subject in _subjects(operation, args)]

    def check(self, operation: str, args: msgspec.Struct) -> None:
        """Let an operation pass that the policy allows on every path it touches, where nobody can be asked.

        Raises:
            OperationDenied: a rule, or the lack of one in a section that exists, denies; or a person would have to be
                asked.
        """
        Passage().check(self.decide(operation, args))

    def only_readable(self, result: wire.GrepResult, *, requester: str | None = None) -> wire.GrepResult:
        """Return a search's result without the lines of files that the policy does not let anybody read unasked.

        Raises:
            Refusal: the whole was saved to a file, where it cannot be sifted any more.
        """
        if not self._policy.has_section("read"):
            return result
        kept = tuple(match for match in result.matches if self.is_allowed("read", match.path, requester=requester))
        if len(kept) == len(result.matches) and not result.truncated:
            return result
        if result.truncated:
            raise Refusal(
                "grep denied: the policy has rules for read, and a result this large cannot be sifted by them;"
                " search a smaller directory or a narrower pattern"
            )
        content = "".join(f"{match.path}:{match.line_number}:{match.content}\n" for match in kept)
        left_out = result.left_out + len(result.matches) - len(kept)
        return msgspec.structs.replace(result, matches=kept, content=content, left_out=left_out)

    def is_allowed(self, kind: str, subject: str, *, requester: str | None = None) -> bool:
        """Whether a rule allows it without asking anybody."""
        return self._decide(kind, subject, requester).verdict is Verdict.ALLOW

    def relative(self, path: str) -> str:
        """Return ``path`` relative to the workspace where it is the longer spelling of a place in it.

        The worker takes `/workspace/a` for `a`, and so do people; a rule must not be got round by it.
        """
        plain = posixpath.normpath(path) if path.startswith("/") else path
        if plain == self._root or plain.startswith(f"{self._root}/"):
            return plain.removeprefix(self._root).lstrip("/")
        return path

    def _decide(self, kind: str, subject: str, requester: str | None) -> OperationDecision:
        if kind != "skill":
            subject = self.relative(subject) or "."
        context = Context(now=datetime.now().astimezone(), requester=requester, environment=self._environment)
        return decide_operation(self._policy, kind, subject, context=context)


def _subjects(operation: str, args: msgspec.Struct) -> Iterator[tuple[str, str]]:
    """Yield (the policy's operation, path) for everything that an operation reads or changes."""
    match args:
        case wire.ReadArgs() | wire.StatArgs():
            yield "read", args.path
        case wire.WriteArgs() | wire.RemoveArgs():
            yield "write", args.path
        case wire.EditArgs():
            yield "read", args.path
            yield "write", args.path
        case wire.MoveArgs():
            yield "read", args.path
            yield "write", args.path
            yield "write", args.target
        case wire.ListArgs():
            yield "list", args.path or "."
        case wire.GlobArgs():
            yield "list", "."
        case wire.GrepArgs():
            yield "grep", args.path or "."
        case wire.SyncSkillArgs():
            yield "skill", args.skill_name
            yield "write", args.skill_dir
        case _:
            raise InvariantError(f"the policy is not asked about {operation}")
