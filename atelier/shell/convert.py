"""`atelier convert`: convert between checkpoint and diffusers folder, optionally merging a LoRA."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..convert.options import PRECISIONS, ConvertOptions
from ..models.families import PREDICTION_TYPES
from .output import add_json, show
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("convert", help="convert a checkpoint to a diffusers folder, or back")
    parser.add_argument("source", type=Path, metavar="SRC", help=".safetensors, .ckpt or a diffusers folder")
    parser.add_argument("destination", type=Path, metavar="DST",
                        help="a name ending in .safetensors gets a single file, any other a diffusers folder")
    parser.add_argument("--precision", choices=list(PRECISIONS), default=ConvertOptions.precision,
                        help="of the written weights; fp8 (single files only) has a scale for each layer")
    parser.add_argument("--no-prune", dest="prune", action="store_false",
                        help="keep averaged (EMA) weights and what else no model reads (single files only)")
    parser.add_argument("--prediction-type", choices=("auto", *PREDICTION_TYPES),
                        default=ConvertOptions.prediction_type, help="what an SD2 model predicts; no file says it")
    parser.add_argument("--lora", type=Path, help="merge this LoRA file into the weights (single files only)")
    parser.add_argument("--strength", type=float, default=1.0, help="of the LoRA (default: 1)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert and report."""
    from ..checkpoint.pickled import WEIGHT_ENDINGS
    from ..convert.folder import to_folder
    from ..convert.single_file import to_checkpoint
    from ..errors import AtelierError
    from ..files import check_apart
    from ..lora.bake import merge_of
    from ..lora.file import load_lora
    from ..models.layout import read_layout

    options = ConvertOptions(arguments.precision, arguments.prune, arguments.prediction_type)
    progress = ShellProgress()
    if arguments.destination.suffix.lower() in WEIGHT_ENDINGS:
        merge = None
        if arguments.lora:
            check_apart(arguments.destination, [arguments.lora])
            merge = merge_of(load_lora(arguments.lora), read_layout(arguments.source), arguments.strength)
        report = to_checkpoint(arguments.source, arguments.destination, options, progress, merge=merge)
    elif arguments.lora:
        raise AtelierError(f"A LoRA is merged into single files only, and {arguments.destination} would be a folder.",
                           "Give the destination a name that ends in .safetensors.")
    else:
        report = to_folder(arguments.source, arguments.destination, options, progress)
    progress.close()
    show(arguments, report.text(), asdict(report))
