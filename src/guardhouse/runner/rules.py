"""The policy that a runner was told to use: found by name or path, its includes read beside it, its examples run,
its signature checked where the operator has pinned keys.

Runs in the boot process; a decision later reads no file.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from guardhouse.data_files import shipped_directory
from guardhouse.errors import SetupError
from guardhouse.limits import POLICY_DOCUMENT_MAX_CHARS
from guardhouse.policy import Context, Decision, Policy, decide, load_policy
from guardhouse.policy.gate_one import ShellReader
from guardhouse.policy.signing import parse_public_key, verify_policy

__all__ = ["Judge", "decode_document", "load_policy_keys", "load_rules", "locate_policy", "make_judge"]


def locate_policy(name_or_path: str) -> Path:
    """Return the file that ``--policy`` means: a shipped name, or anything with a ``/`` or ending in ``.yaml``.

    Raises:
        SetupError: no shipped policy has that name.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml", ".json")):
        return Path(name_or_path).absolute()
    directory = shipped_directory("policies")
    path = directory / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in directory.glob("*.yaml"))) or "none"
        raise SetupError(
            f"--policy: no shipped policy is called {name_or_path!r} (there are: {known});"
            " the path of a file must contain a '/' or end in .yaml"
        )
    return path


def load_rules(name_or_path: str, *, keys: Sequence[Ed25519PublicKey] = (), shadow: str | None = None) -> Policy:
    """Load the policy that ``--policy`` means; an included file's name is relative to the file that names it.

    Args:
        keys: with any, the policy counts only with a signature by one of them, in ``FILE.sig`` beside it.
        shadow: a policy to judge and record beside it; it decides nothing and needs no signature.

    Raises:
        PolicyError: the document is wrong, with file, line and column; or its signature is.
        SetupError: a file cannot be read.
    """
    path = locate_policy(name_or_path)

    def read_include(name: str) -> str:
        return _read(path.parent / name)

    policy = load_policy(_read(path), name=str(path), includes=read_include)
    if keys:
        _check_signature(policy, path, keys)
    return policy if shadow is None else replace(policy, shadow=load_rules(shadow))


def load_policy_keys(paths: Sequence[Path]) -> tuple[Ed25519PublicKey, ...]:
    """Read the public keys of ``--policy-key``.

    Raises:
        PolicyError: a file holds no Ed25519 public key in PEM.
        SetupError: a file cannot be read, or everybody may write to it.
    """
    keys = []
    for path in paths:
        pem = _read(path, setting="--policy-key")
        if path.stat().st_mode & stat.S_IWOTH:
            raise SetupError(f"--policy-key: everybody may write to {path}; run: chmod o-w {path}")
        keys.append(parse_public_key(pem, name=str(path)))
    return tuple(keys)


def _check_signature(policy: Policy, path: Path, keys: Sequence[Ed25519PublicKey]) -> None:
    signature = path.with_name(path.name + ".sig")
    if not signature.exists():
        raise SetupError(
            f"--policy: {path} is not signed, and --policy-key asks for a signature: there is no {signature};"
            " run where the private key is: guardhouse policy sign"
        )
    verify_policy(policy, _read(signature), keys, name=str(signature))


class Judge(Protocol):
    """Gate one."""

    def __call__(self, text: str, requester: str | None = None) -> Decision:
        """Decide one command text, asked for by ``requester`` (None: nobody said)."""
        ...


def make_judge(policy: Policy, *, reader: ShellReader, environment: frozenset[str] | None = None) -> Judge:
    """Return gate one as a function of the text and who asks; rules about time see the host's clock.

    Args:
        reader: reads the text; the runner's asks the parser process (`worker.parser_client`).
        environment: this host's tags; None where it was given none.
    """

    def judge(text: str, requester: str | None = None) -> Decision:
        context = Context(now=datetime.now().astimezone(), requester=requester, environment=environment)
        return decide(policy, text, context=context, reader=reader)

    return judge


def decode_document(content: bytes, path: Path) -> str:
    """Return the text of an operator's file.

    Raises:
        SetupError: it is not UTF-8; with line and column.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise SetupError(
            f"{path}:{line}:{column}: not UTF-8 text (the byte 0x{content[error.start]:02x}); save it as UTF-8"
        ) from None


def _read(path: Path, *, setting: str = "--policy") -> str:
    try:
        # Without blocking: a named pipe in the file's place would hold up a start, and a reload for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                kind = "a directory" if stat.S_ISDIR(before.st_mode) else "no regular file"
                raise SetupError(f"{setting}: {path} is {kind}; name the file itself")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(POLICY_DOCUMENT_MAX_CHARS + 1)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SetupError(
            f"{setting}: cannot read {path}: {error.strerror}; check the path and who may read it"
        ) from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SetupError(f"{setting}: {path} was written to while it was read; write beside it and rename, then retry")
    if len(content) > POLICY_DOCUMENT_MAX_CHARS:
        raise SetupError(f"{setting}: {path} is larger than {POLICY_DOCUMENT_MAX_CHARS} bytes; is it the right file?")
    return decode_document(content, path)
