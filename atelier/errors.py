"""The one error type that users of the library see."""

from __future__ import annotations

from pathlib import Path


class AtelierError(Exception):
    """A failure a person can act on: what happened, with which value, and what to do about it.

    Args:
        what: One sentence naming the thing that failed and the offending value.
        do: One sentence saying what to do. It ends the message.
    """

    def __init__(self, what: str, do: str) -> None:
        self.what = what
        self.do = do
        super().__init__(f"{what} {do}")


class NameTaken(AtelierError):
    """There is a file of this name already, and it is not to be replaced."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already.", "Choose another name.")


class MissingPackage(AtelierError):
    """An optional package is needed for what the user asked for."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the Python package {package!r}, which is not installed.",
                         f"Install it with: pip install {package}")
