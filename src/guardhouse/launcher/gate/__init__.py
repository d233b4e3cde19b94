"""The exec gate: every program of a command's process tree is judged before its first instruction."""

from typing import Final

__all__ = ["ATTACH", "FOLLOWED", "LISTENER"]

# What init's thread writes to the monitor, and what it waits for before it starts a program. Here and not in
# `monitor.py`, so that init need not know what a policy is.
ATTACH: Final = b"A"
FOLLOWED: Final = b"F"
# What goes with the descriptor of a command's listener, where nothing can follow execs.
LISTENER: Final = b"L"
