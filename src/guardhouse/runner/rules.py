"""The policy that a runner was told to use: found by name or path, its includes read beside it, its examples run.

Runs in the boot process; a decision later reads no file.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from guardhouse.data_files import shipped_directory
from guardhouse.errors import SetupError
from guardhouse.policy import Context, Decision, Policy, decide, load_policy

__all__ = ["load_rules", "locate_policy", "make_judge"]

POLICY_MAX_BYTES: Final = 4 * 1024 * 1024


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


def load_rules(name_or_path: str) -> Policy:
    """Load the policy that ``--policy`` means; an included file's name is relative to the file that names it.

    Raises:
        PolicyError: the document is wrong; with file, line and column.
        SetupError: a file cannot be read.
    """
    path = locate_policy(name_or_path)

    def read_include(name: str) -> str:
        return _read(path.parent / name)

    return load_policy(_read(path), name=str(path), includes=read_include)


def make_judge(policy: Policy, *, requester: str | None = None) -> Callable[[str], Decision]:
    """Return gate one as a function of the command text alone; rules about time see the host's clock."""

    def judge(text: str) -> Decision:
        context = Context(now=datetime.now().astimezone(), requester=requester)
        return decide(policy, text, context=context)

    return judge


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(POLICY_MAX_BYTES + 1)
    except OSError as error:
        raise SetupError(
            f"--policy: cannot read {path}: {error.strerror}; check the path and who may read it"
        ) from None
    if len(content) > POLICY_MAX_BYTES:
        raise SetupError(f"--policy: {path} is larger than {POLICY_MAX_BYTES} bytes; is it the right file?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SetupError(f"--policy: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
