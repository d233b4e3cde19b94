"""Guardhouse: two gates and a wall around every command that an agent runs on a host.

Imported by every process of the system, the launcher included, so this file imports nothing.
"""

__version__ = "0.1.0"
