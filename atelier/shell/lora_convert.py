"""`atelier lora-convert`: convert a LoRA between formats."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..lora.names import FORMATS
from .output import add_json, show


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("lora-convert", help="convert a LoRA between the formats of kohya, diffusers and PEFT")
    parser.add_argument("source", type=Path, metavar="SRC",
                        help="a LoRA file (.safetensors, .pt, .bin), or a PEFT folder")
    parser.add_argument("destination", type=Path, metavar="DST", help="a .safetensors file; a folder for --to peft")
    parser.add_argument("--to", choices=FORMATS, default=FORMATS[0], help=f"what to write (default: {FORMATS[0]})")
    parser.add_argument("--rank", type=int, help="where a format holds LoRA alone: the most of a layer of another kind "
                        "(LoHa, LoKr) that becomes one; 0: as many as it has (default: 64)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert, and report how many keys matched."""
    from ..lora.convert import convert_lora

    result = convert_lora(arguments.source, arguments.destination, arguments.to, rank=arguments.rank)
    show(arguments, result.text(), vars(result))
