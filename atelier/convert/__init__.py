"""Checkpoints in the original (LDM) layout to diffusers folders and back, by byte ranges."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .folder import to_folder
    from .options import ConvertOptions
    from .report import ConversionReport
    from .single_file import to_checkpoint

__all__ = ["ConversionReport", "ConvertOptions", "to_checkpoint", "to_folder"]

_HOMES = {"ConversionReport": "report", "ConvertOptions": "options", "to_checkpoint": "single_file",
          "to_folder": "folder"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: the nodes need `ConvertOptions` alone when the host starts."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
