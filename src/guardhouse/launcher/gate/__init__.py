"""The exec gate: every program of a command's process tree is judged before its first instruction."""
