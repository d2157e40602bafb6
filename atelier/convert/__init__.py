"""Checkpoints in the original (LDM) layout to diffusers folders and back, by byte ranges."""

from .folder import to_folder
from .options import ConvertOptions
from .report import ConversionReport
from .single_file import to_checkpoint

__all__ = ["ConversionReport", "ConvertOptions", "to_checkpoint", "to_folder"]
