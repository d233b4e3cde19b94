"""Import ahead everything that is imported late, before root is given up.

An installation may lie where the commands' account cannot read (a checkout below /root). What this process imports
after it has become that account would then be missing in the middle of its work. Runs in the boot process.
"""

import encodings.idna  # noqa: F401 - socket looks the codec up at the first host name
import importlib
import pkgutil
from typing import Final

__all__ = ["import_everything"]

# What the runner may need after boot: decisions, messages, its own modules and the clients of its workers.
_PACKAGES: Final = ("guardhouse.policy", "guardhouse.redaction", "guardhouse.wire", "guardhouse.runner")
# The parser worker's alone: bashlex builds its tables anew at each import, a fifth of a second.
_NEVER_HERE: Final = frozenset({"guardhouse.policy.shell.bashlex_reader"})
_MODULES: Final = ("guardhouse.worker.client", "guardhouse.launcher.client", "tree_sitter", "tree_sitter_bash")


def import_everything() -> None:
    """Import every module that may be used later. Takes a few hundred milliseconds; needed only by root."""
    for name in _MODULES:
        importlib.import_module(name)
    for package_name in _PACKAGES:
        package = importlib.import_module(package_name)
        for found in pkgutil.walk_packages(package.__path__, prefix=f"{package_name}."):
            if found.name not in _NEVER_HERE:
                importlib.import_module(found.name)
