"""`atelier inspect`: describe a model file or folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import add_json, show


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("inspect", help="say what a checkpoint or diffusers folder is and how to sample it")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read the header only; nothing is loaded."""
    from ..models.inspect import inspect

    inspection = inspect(arguments.file)
    show(arguments, inspection.text(), inspection.as_dict())
