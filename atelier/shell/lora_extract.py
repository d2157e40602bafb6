"""`atelier lora-extract`: the LoRA that turns one model into another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .lora_output import add_lora_output, written_as
from .output import add_json, show
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("lora-extract", help="write what fine-tuning changed in a model as a LoRA")
    parser.add_argument("tuned", type=Path, metavar="TUNED", help="a checkpoint or diffusers folder")
    parser.add_argument("base", type=Path, metavar="BASE", help="the model that it was made from")
    parser.add_argument("destination", type=Path, metavar="DST", help="a .safetensors file; a folder for --to peft")
    parser.add_argument("--rank", type=int, default=32, help="at most so many in each layer (default: 32)")
    parser.add_argument("--share", type=float, default=1.0,
                        help="of each layer, the fewest ranks that hold this share of its squares, such as 0.95")
    parser.add_argument("--no-text-encoders", dest="text_encoders", action="store_false", help="the UNet alone")
    add_lora_output(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Extract and report."""
    from ..lora.extract import extract_lora

    progress = ShellProgress()
    result = extract_lora(arguments.tuned, arguments.base, arguments.destination, rank=arguments.rank,
                          share=arguments.share, text_encoders=arguments.text_encoders,
                          written=written_as(arguments), progress=progress)
    progress.close()
    show(arguments, result.text(), vars(result))
