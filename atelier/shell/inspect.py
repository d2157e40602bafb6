"""`atelier inspect`: describe a model or LoRA, file or folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import add_json, show


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("inspect", help="say what a checkpoint, diffusers folder or LoRA is")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Of a model, read the header only; of a LoRA, the layers too."""
    from ..lora.inspect import inspect_lora, is_lora
    from ..models.inspect import inspect

    inspection = inspect_lora(arguments.file) if is_lora(arguments.file) else inspect(arguments.file)
    show(arguments, inspection.text(), inspection.as_dict())
