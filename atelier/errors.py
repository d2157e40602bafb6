"""The one error type that users of the library see."""

from __future__ import annotations

from pathlib import Path

_SENTENCE_ENDS = (".", "!", "?", ":", "…", "。", "！", "？")


class AtelierError(Exception):
    """A failure a person can act on: what happened, with which value, and what to do about it.

    Args:
        what: One sentence naming the thing that failed and the offending value. A missing full stop, as after
            another program's message at its end, is added.
        do: One sentence saying what to do. It ends the message.
    """

    # ComfyUI shows module and name before the text: where the pack lies there would push the sentence out of sight.
    __module__ = "atelier"

    def __init_subclass__(cls) -> None:
        """Give subclasses the same short name."""
        cls.__module__ = AtelierError.__module__

    def __init__(self, what: str, do: str) -> None:
        self.what = what if what.rstrip().endswith(_SENTENCE_ENDS) else f"{what.rstrip()}."
        self.do = do
        super().__init__(f"{self.what} {do}")


class NameTaken(AtelierError):
    """A file of this name exists and must not be replaced."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already.", "Choose another name.")


class MissingPackage(AtelierError):
    """The request needs an optional package that is not installed."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the Python package {package!r}, which is not installed.",
                         f"Install it with: pip install {package}")
