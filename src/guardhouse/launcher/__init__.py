"""The process that starts every command inside the wall.

`client.py`, `messages.py` and `start.py` are what others import; everything else runs in the launcher and in the
processes that it clones. Nothing is imported here, so that each importer loads only what it names.
"""

__all__: list[str] = []
