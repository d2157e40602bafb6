"""`atelier lora-resize`: a LoRA of a smaller rank."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .lora_output import add_lora_output, written_as
from .output import add_json, show
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("lora-resize", help="write a LoRA with a smaller rank, and say what is lost")
    parser.add_argument("source", type=Path, metavar="SRC", help="a LoRA file, or a PEFT folder")
    parser.add_argument("destination", type=Path, metavar="DST", help="a .safetensors file; a folder for --to peft")
    parser.add_argument("--rank", type=int, default=0, help="at most so many in each layer (default: no limit)")
    parser.add_argument("--share", type=float, default=1.0,
                        help="keep in each layer the fewest ranks that hold this share of its squares, such as 0.95")
    add_lora_output(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Resize and report."""
    from ..lora.resize import resize_lora

    progress = ShellProgress()
    result = resize_lora(arguments.source, arguments.destination, rank=arguments.rank, share=arguments.share,
                         written=written_as(arguments), progress=progress)
    progress.close()
    show(arguments, result.text(), vars(result))
