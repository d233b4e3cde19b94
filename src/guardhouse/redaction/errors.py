"""What can be wrong with redaction's own data. Pure."""

from guardhouse.errors import SetupError

__all__ = ["RedactionError"]


class RedactionError(SetupError):
    """A pattern file or a named value cannot be used. The text begins with the place; it never holds a value."""

    def __init__(self, message: str, *, place: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
