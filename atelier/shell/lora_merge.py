"""`atelier lora-merge`: one LoRA of several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .lora_output import add_lora_output, written_as
from .output import add_json, show
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("lora-merge", help="write a LoRA that does what several do together")
    parser.add_argument("sources", type=Path, nargs="+", metavar="SRC", help="LoRA files or PEFT folders, two or more")
    parser.add_argument("destination", type=Path, metavar="DST", help="a .safetensors file; a folder for --to peft")
    parser.add_argument("--strengths", type=float, nargs="+", metavar="S",
                        help="one for each, after DST (default: 1 for each); below 0 takes a change away")
    parser.add_argument("--rank", type=int, default=0, help="at most so many in each layer (default: the sum, exact)")
    add_lora_output(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Merge and report."""
    from ..errors import AtelierError
    from ..lora.combine import combine_loras

    strengths = arguments.strengths or [1.0] * len(arguments.sources)
    if len(strengths) != len(arguments.sources):
        raise AtelierError(f"There are {len(strengths)} strengths for {len(arguments.sources)} LoRAs.",
                           "Give one for each, in the same order.")
    progress = ShellProgress()
    result = combine_loras(list(zip(arguments.sources, strengths, strict=True)), arguments.destination,
                           rank=arguments.rank, written=written_as(arguments), progress=progress)
    progress.close()
    show(arguments, result.text(), vars(result))
