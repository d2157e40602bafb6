"""Options of the verbs that write a LoRA."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..lora.dtypes import DTYPES
from ..lora.names import FORMATS

if TYPE_CHECKING:
    from ..lora.written import WrittenAs


def add_lora_output(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options `--to` and `--save-dtype`."""
    parser.add_argument("--to", choices=FORMATS, default=FORMATS[0], help=f"what to write (default: {FORMATS[0]})")
    parser.add_argument("--save-dtype", choices=DTYPES, default="fp32",
                        help="type of the written numbers; fp16 and bf16 halve the file (default: fp32)")


def written_as(arguments: argparse.Namespace) -> WrittenAs:
    """What these options say."""
    from ..lora.written import WrittenAs

    return WrittenAs(arguments.to, arguments.save_dtype)
